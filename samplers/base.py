"""The contracts of sampling: what a network shows (View, Look), what a step proposes (Law), what draws.

A predictor proposes *laws* (who leaves with what probability, and where to); one place draws from them
(`samplers.draw`); one loop (`samplers.reverse`) walks the times. The loop is a generator that yields laws and
is sent the next state, so that the sampler and the test that enumerates its law drive the same loop. Samplers
see views, never networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from graphs.base import Graph, Noise
from workbench.core.errors import Problem
from workbench.core.part import Part
from workbench.core.rng import Rng

if TYPE_CHECKING:
    from workbench.core.spec import Node

Conditions = Literal["prefix", "anywhere"]


# --- what the network shows -------------------------------------------------------------------------------------


class View(ABC):
    """A trained network seen through its process. ``calls`` counts network calls made through it."""

    device: torch.device
    vocab: int
    length: int
    calls: int = 0


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

    @abstractmethod
    def select(self, parent_B: Tensor) -> Look:
        """The look of a batch whose row b descends from row ``parent_B[b]`` of this one."""


class ScoreView(View):
    """A denoiser as a score, for the reverse samplers. ``chunk``: rows of the vocabulary axis at a time."""

    graph: Graph
    noise: Noise
    chunk: int

    def sigma(self, t_B: Tensor) -> Tensor:
        """σ at times ``t_B`` (float64, host). Time 0 is clean text: σ = 0 wherever the schedule starts."""
        return torch.where(t_B == 0, torch.zeros_like(t_B), self.noise.total(t_B))

    @abstractmethod
    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """What the network says at ``x_BL`` (int64, device) and ``sigma_B`` (float64, host).

        ``told_B``: the σ the network hears, where it differs from the law's.
        """


class NextTokenView(View):
    """A left-to-right model as a law of the next token."""

    @abstractmethod
    def start(self, batch: int) -> Any:
        """A fresh cache, before the first token (the process supplies what stands before it)."""

    @abstractmethod
    def next(self, x_Bn: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Append ``x_Bn`` (n ≥ 0 tokens): (log law of the token after them, [B, V]; the longer cache)."""


def rows_map(fn: Callable[[Tensor], Tensor], rows_R: Tensor, chunk: int) -> Tensor:
    """``fn(rows)`` by chunks of at most ``chunk`` rows, concatenated: the only way to the vocabulary axis.

    ``fn`` maps a piece of ``rows_R`` to a tensor whose first axis is that piece and which has no vocabulary
    axis unless the caller means to hold it.
    """
    if rows_R.numel() <= chunk:
        return fn(rows_R)
    return torch.cat([fn(piece) for piece in rows_R.split(chunk)])


# --- state and law ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """All that a resumable sampler needs between two laws.

    ``x_BL`` int64 on the device; ``free_BL`` bool on the host (False: fixed by the canvas); ``live_BL`` bool
    on the host: free and may be moved by a reverse step (kept without asking the device); ``t_B``, ``s_B``
    the times of the step under way, float64 on the host; ``seq_B`` the sequences' numbers, which key their
    randomness; ``step`` the number of laws drawn so far; ``looks`` those of the earlier stages of a step
    under way (empty between steps); ``memory`` what predictors keep: tensors whose first axis is the batch.
    """

    x_BL: Tensor
    free_BL: Tensor
    live_BL: Tensor
    seq_B: Tensor
    t_B: Tensor
    s_B: Tensor
    step: int = 0
    looks: tuple[Look, ...] = ()
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def select(self, parent_B: Tensor) -> State:
        """The state of a batch whose row b descends from row ``parent_B[b]`` (int64, host): for drivers that
        change the batch, as an enumeration does."""

        def pick(value: Tensor) -> Tensor:
            return value[parent_B.to(value.device)]

        kept: dict[str, Any] = {name: pick(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        looks = tuple(look.select(parent_B) for look in self.looks)
        return replace(self, **kept, looks=looks, memory={name: pick(value) for name, value in self.memory.items()})


@dataclass(frozen=True)
class Law:
    """A factorised law of one step: each row leaves with its probability and lands by its own law.

    ``rows_R``: flat positions that may move, int64 on the host. ``leave_R``: float64, P(row leaves its
    state), the *sum* of the off-diagonal mass, never 1 − stay. ``target(subset)``: for indices into
    ``rows_R`` (int64, host; at most a chunk of them), log law of the landing state given that the row leaves,
    [r, n] with n ≤ S (states from n on have no mass), −inf at the row's own state; a constant may be missing
    from it, the draw divides by the total. ``to_R``: known destinations, int64 on the host; −1 where the
    target is to be asked. ``blind``: no network was asked for ``leave_R``. ``lands_live``: rows that land by
    the target stay live (graphs without a mask). ``clipped``: mass that had to be clamped into [0, 1], summed
    over rows (a diagnostic). ``memory``: what the predictor wants kept in the next state.
    """

    rows_R: Tensor
    leave_R: Tensor
    target: Callable[[Tensor], Tensor]
    to_R: Tensor | None = None
    blind: bool = False
    lands_live: bool = False
    clipped: float | Tensor = 0.0
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Canvas:
    """What to write on, on the host: ``x_BL`` int64, ``fixed_BL`` bool (given, never changes), ``seq_B`` int64."""

    x_BL: Tensor
    fixed_BL: Tensor
    seq_B: Tensor

    @classmethod
    def blank(cls, batch: int, length: int, first: int = 0) -> Canvas:
        """An empty canvas of ``batch`` sequences numbered from ``first``."""
        return cls(
            torch.zeros(batch, length, dtype=torch.long),
            torch.zeros(batch, length, dtype=torch.bool),
            torch.arange(first, first + batch),
        )


@dataclass(frozen=True)
class Samples:
    """Drawn tokens [B, L] (int64, host), network calls, wall-clock seconds, named traces (a list each)."""

    tokens_BL: Tensor
    calls: int
    seconds: float
    trace: Mapping[str, Any] = field(default_factory=dict)


# --- parts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShapeContext:
    """What a shaper may look at: the tokens, the rows being shaped, which positions are settled, the time.

    ``x_BL`` and ``rows_R`` (flat positions) on the device; ``settled_BL`` (bool: no step will move it) and
    ``t_B`` (float64) on the host.
    """

    x_BL: Tensor
    rows_R: Tensor
    settled_BL: Tensor | None = None
    t_B: Tensor | None = None


class Shaper(Part, ABC, kind="shaper"):
    """A change of the law of the clean token given the rest; GPT-2's next-token law takes the same."""

    @abstractmethod
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """A new normalised log law [R, V] (−inf where excluded); pure, each row by itself."""


Shape = Callable[[Tensor, ShapeContext], Tensor]


class Times(Part, ABC, kind="times"):
    """A grid of times for the reverse walk."""

    @abstractmethod
    def grid(self, steps: int, noise: Noise) -> Tensor:
        """``steps`` + 1 times from 1 down to the last, float64, strictly decreasing, all in (0, 1]."""


class Predictor(Part, ABC, kind="predictor"):
    """A rule for one step from time t to s < t (a corrector is one at t = s).

    ``stages``: laws per step, a draw between them. ``blind``: on a blind graph, who leaves is known without
    the network. ``shapes``: "clean" where shapers act on the law of the clean token on every graph, "mask"
    where only on masked graphs (there the landing law *is* the clean law). ``graphs``: "any" or "mask" (needs
    a masked graph). ``corrects``: does something at t = s, so that it may stand among the correctors.
    ``faithful``: with the exact score and many steps it writes by the text's own law; False for rules that prefer
    some texts on purpose (by confidence, say).
    """

    stages: ClassVar[int] = 1
    blind: ClassVar[bool] = False
    shapes: ClassVar[Literal["clean", "mask", "none"]] = "none"
    graphs: ClassVar[Literal["any", "mask"]] = "any"
    corrects: ClassVar[bool] = False
    faithful: ClassVar[bool] = True

    def time(self, stage: int, t_B: Tensor, s_B: Tensor) -> Tensor:
        """The time at which the network is asked for this stage."""
        return t_B

    @abstractmethod
    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """The law of this stage: pure, draws nothing. ``looks[stage]`` is at ``state`` and ``time(stage)``.

        ``state.t_B`` → ``state.s_B`` is the step. Only rows of ``state.free_BL`` may be proposed.
        """


class Sampler(Part, ABC, kind="sampler", supplied=()):
    """From a view and a canvas to samples.

    ``needs``: the kind of view. ``conditions``: where fixed tokens may stand.
    """

    needs: ClassVar[type[View]]
    conditions: ClassVar[Conditions]

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A process that does not offer the view this sampler needs."""
        yield from super().misfits(node, root)
        process = root.find("process")
        if process is not None:
            part: Any = process.part
            if not issubclass(offers := part.offers, cls.needs):
                known: Mapping[str, Any] = cls.registered
                fitting = [name for name in sorted(known) if issubclass(offers, known[name].needs)]
                yield Problem(
                    node.path,
                    f"sampler {cls.type_name!r} needs a {cls.needs.__name__}, and process {part.type_name!r} offers "
                    f"a {offers.__name__}. What would fit: {', '.join(fitting) or 'no sampler at hand'}.",
                )

    @abstractmethod
    def draw(self, view: View, canvas: Canvas, rng: Rng, progress: Callable[[float], None] | None = None) -> Samples:
        """Fill the free positions of ``canvas``. ``progress`` hears the share done, in [0, 1].

        Raises:
            WorkbenchError: the canvas fixes positions this sampler cannot condition on.
        """
