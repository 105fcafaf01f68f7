"""What a network shows to samplers: a score of a noised text (Look), or a law of the next token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphs.base import Graph, Noise


class View(ABC):
    """A trained network seen through its process. ``calls`` counts network calls made through it."""

    device: torch.device
    vocab: int
    length: int
    calls: int = 0


@dataclass(frozen=True)
class Stats:
    """What orders rank rows by, float64 [R]: entropy in nats and the two largest probabilities of the clean law."""

    entropy_R: Tensor
    top1_R: Tensor
    top2_R: Tensor

    def on_host(self) -> Stats:
        """The same where orders rank: beside rows and counts, by one copy."""
        return Stats(*torch.stack([self.entropy_R, self.top1_R, self.top2_R]).cpu())


class Look(ABC):
    """What a score network says of one (x, σ). Lazy: the network runs once, when rows are first asked for.

    Rows are flat positions b·L + l (int64, on the view's device). Methods that make [R, S] or [R, V] tensors
    make fresh ones, which the caller may overwrite; callers go through ``rows_map``, by chunks. ``x_BL``
    int64 is on the view's device, ``sigma_B`` float64.
    """

    x_BL: Tensor
    sigma_B: Tensor

    @abstractmethod
    def log_score(self, rows_R: Tensor) -> Tensor:
        """log of p_σ(y, rest)/p_σ(x, rest), [R, S] float32 (float64 from exact views); own entry 0."""

    @abstractmethod
    def clean(self, rows_R: Tensor) -> Tensor:
        """log law of the clean token given the *other* positions, [R, V], normalised."""

    def log_total(self, rows_R: Tensor, vocab: int) -> Tensor:
        """log Σ over tokens y < ``vocab`` of the score, [R] float64: all that a pace needs on a blind graph.

        Takes all rows that fit in one chunk; override where a fused pass makes no [R, S].
        """
        return torch.logsumexp(self.log_score(rows_R)[:, :vocab], -1).double()

    def bounds_total(self) -> bool:
        """Whether ``log_total_bound`` and ``log_total_noted`` can be asked."""
        return False

    def log_total_bound(self, rows_R: Tensor, vocab: int, notes_BLK: Tensor | None) -> tuple[Tensor, Tensor]:
        """(never less than ``log_total``, [R] float64, at a cost without the vocabulary; the notes it was read from).

        ``notes_BLK``: what ``log_total_noted`` of this look or of earlier ones left, None for none yet. A bound holds
        whatever stands in the notes; it is the closer, the less a row has changed since its sum was taken.
        """
        raise NotImplementedError(f"{type(self).__name__} bounds no sums")

    def log_total_noted(self, rows_R: Tensor, vocab: int, notes_BLK: Tensor) -> Tensor:
        """``log_total``, and writes down in ``notes_BLK`` what later looks bound it by."""
        raise NotImplementedError(f"{type(self).__name__} bounds no sums")

    def others(self, rows_R: Tensor) -> Tensor:
        """log law of the clean token given the others, also at *settled* positions of a masked graph, [R, V].

        Only networks whose output at a position does not see that position can say it (sight "others").

        Raises:
            NotImplementedError: this look cannot tell (resolving refuses such a recipe before).
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell the law of a settled token")

    def stats(self, rows_R: Tensor, chunk: int) -> Stats:
        """Entropy and the two largest probabilities of the clean law at rows, in one pass by chunks."""

        def of(piece_R: Tensor) -> Tensor:
            log_p_RV = self.clean(piece_R)
            p_RV = log_p_RV.exp()
            entropy_R = -(p_RV * log_p_RV.clamp_min(-1e30)).sum(-1, dtype=torch.float64)
            top_R2 = p_RV.topk(min(2, p_RV.shape[-1]), -1).values.double()
            return torch.stack([entropy_R, top_R2[:, 0], top_R2[:, -1]], -1)

        return Stats(*rows_map(of, rows_R, chunk).unbind(-1))

    def expect(self, rows_R: Tensor) -> None:
        """Told on the host (int64) which rows are about to be asked, all pieces together: a look may leave out texts
        that have none of them. Before other rows are asked, those are told too; untold, all may be.
        """
        return

    @abstractmethod
    def select(self, parent_B: Tensor) -> Look:
        """The look of a batch whose row b descends from row ``parent_B[b]`` of this one."""


class ScoreView(View):
    """A denoiser as a score, for the reverse samplers. ``chunk``: rows of the vocabulary axis at a time."""

    graph: Graph
    noise: Noise
    chunk: int
    partial: bool = True
    """Whether a look may read some texts of its batch alone; not beside a cache of the whole batch."""

    def sigma(self, t_B: Tensor) -> Tensor:
        """σ at times ``t_B`` (float64, host). Time 0 is clean text: σ = 0 wherever the schedule starts."""
        return torch.where(t_B == 0, torch.zeros_like(t_B), self.noise.total(t_B))

    @abstractmethod
    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """What the network says at ``x_BL`` (int64, device) and ``sigma_B`` (float64, host).

        ``told_B``: the σ the network hears, where it differs from the law's.
        """


class HintedView(ScoreView):
    """A denoiser that may hear what it expects itself: a network so trained, or a law that learns nothing by it."""

    def hinted(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """As ``look``, after a hint of what a look without one says at masks: of a network two calls.

        Plainly a look where the view knows the law itself.
        """
        return self.look(x_BL, sigma_B, told_B)


class NextTokenView(View):
    """A left-to-right model as a law of the next token."""

    @abstractmethod
    def start(self, batch: int) -> Any:
        """A fresh cache, before the first token (the process supplies what stands before it)."""

    @abstractmethod
    def next(self, x_Bn: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Append ``x_Bn`` (n ≥ 0 tokens): (log law of the token after them, [B, V]; the longer cache)."""


class BlockView(View):
    """A model that writes block after block of ``size`` tokens, each as a score given the finished ones before it.

    A *context* is what it knows of finished blocks: a value, which stays valid after a longer one was made of it.
    """

    size: int

    @abstractmethod
    def start(self, batch: int, keep: bool = True) -> Any:
        """The context of ``batch`` texts without a finished block. ``keep``: in a cache, where the network has one."""

    @abstractmethod
    def block(self, context: Any) -> ScoreView:
        """The score of the block after the context; its calls count as this view's too."""

    @abstractmethod
    def commit(self, x_BS: Tensor, context: Any) -> Any:
        """The context with one more finished block (clean tokens, any device)."""


def rows_map(fn: Callable[[Tensor], Tensor], rows_R: Tensor, chunk: int) -> Tensor:
    """``fn(rows)`` by chunks of at most ``chunk`` rows, concatenated: the only way to the vocabulary axis.

    ``fn`` maps a piece of ``rows_R`` to a tensor whose first axis is that piece and which has no vocabulary
    axis unless the caller means to hold it.
    """
    if rows_R.numel() <= chunk:
        return fn(rows_R)
    return torch.cat([fn(piece) for piece in rows_R.split(chunk)])
