"""Self-conditioning: a network that hears what it expects itself, in training, in its bound and in its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samplers.base import HintedView, Look, ScoreView, View
from workbench.core.bounds import Probability
from workbench.core.errors import Problem
from workbench.core.rng import Rng
from workbench.kernels.rows import gather_features, rows_values
from workbench.processes.around import Around
from workbench.processes.base import Bound, Loss, Noised, Process
from workbench.processes.diffusion import Diffusion
from workbench.processes.fits import needs_masks_only
from workbench.processes.objectives import Context
from workbench.processes.reading import Through
from workbench.processes.views import features

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.core.node import Node

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Told(Noised):
    """A noised batch. ``hinted``: whether the network hears a hint (host)."""

    hinted: bool


@Process.register("self_conditioned")
class SelfConditioned(Around[Diffusion]):
    """A diffusion process whose network hears, at masks, the expected token of the law that it said there before.

    Self-conditioning (Chen, Zhang & Hinton 2022, "Analog bits"; Strudel et al. 2022, on embeddings) on laws of tokens:
    in a ``share`` of the updates a first pass without gradient makes the hint, in the others there is none. One choice
    for all of an update, so that all devices have the same work. The likelihood is that of two passes: a hint is a
    function of the noised text and its σ, so both are one score network, and its bound is a bound. Sampling hears
    hints through the lens ``self_conditioning``, none without it.

    Settings:
        inner: the diffusion process
        share: of the updates whose network hears a hint; a half as published
    """

    sees = frozenset({"all"})
    hints = True
    offers: ClassVar[type[View]] = HintedView
    usual: ClassVar[dict[str, Any]] = {"inner": {"type": "diffusion"}}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A graph on which more than masks move; another process around, which reads the network in its own way."""
        yield from super().misfits(node, root)
        yield from needs_masks_only(node, root)
        around: Any = root.find("process")
        if around not in (None, node):
            yield Problem(
                node.path,
                f"process {cls.type_name!r} stands around a diffusion process, and nothing around it: process "
                f"{around.part.type_name!r} takes what is within it: 'diffusion'",
            )

    def __init__(self, inner: Diffusion, share: Probability = 0.5) -> None:
        """``inner``: on a graph where only masks move."""
        super().__init__(inner)
        self.share = share
        self.looks = share * inner.copies

    def prepare(self, x0_BL: Ids, seq_B: Ids, step: int, rng: Rng) -> Told:
        """The inner process's batch, and whether this update has hints: a number of the step's own."""
        noised = self.inner.prepare(x0_BL, seq_B, step, rng)
        return Told(**vars(noised), hinted=bool(rng.uniform("hint", step, [0], 1)[0, 0] < self.share))

    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """The inner loss of the pass that hears a hint, or none."""
        read = Twice(self.inner, noised.rows_R, noised.weight_R > 0) if cast("Told", noised).hinted else unhinted
        return self.inner.loss(Through(shell, read), noised)

    def nll(self, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """The inner process's bound of the network that always hears a hint."""
        return self.inner.nll(Through(shell, Twice(self.inner)), x0_BL, seq_B, rng, draws)

    def view(self, shell: nn.Module) -> View:
        """The network as a score, with hints for those who ask for them."""
        plain, twice = self.inner.view(shell), self.inner.view(Through(shell, Twice(self.inner)))
        return HearingView(cast("ScoreView", plain), cast("ScoreView", twice))


def unhinted(net: Backbone, x_BL: Tensor, sigma_B: Tensor | None) -> Tensor:
    """One pass with a hint of 0, which is none to the digit: weights that hear hints get their gradient of 0 (DDP)."""
    silent_11D = torch.zeros(1, 1, net.head.in_features, dtype=net.head.weight.dtype, device=x_BL.device)
    return net(x_BL, sigma_B, hint_BLD=silent_11D)


class Twice:
    """Reads a text twice: without a gradient and a hint, and then with the hint that comes of it."""

    def __init__(self, process: Diffusion, rows_R: Tensor | None = None, real_R: Tensor | None = None) -> None:
        """``rows_R``: the flat positions of the masks where they are known, padded; ``real_R`` (bool) says by what."""
        self.process, self.rows_R, self.real_R = process, rows_R, real_R

    def __call__(self, net: Backbone, x_BL: Tensor, sigma_B: Tensor | None) -> Tensor:
        """h_BLD of the second pass."""
        hint_BLD = self.hint(net, x_BL, sigma_B)
        if torch.is_grad_enabled():
            # older PyTorch keeps casts of weights made there, which carry no gradient, and takes them up in this pass
            torch.clear_autocast_cache()
        return net(x_BL, sigma_B, hint_BLD=hint_BLD)

    @torch.no_grad()
    def hint(self, net: Backbone, x_BL: Tensor, sigma_B: Tensor | None) -> Tensor:
        """Expected token vectors at masks, 0 elsewhere, [B, L, D]. Unknown masks are counted on the device."""
        rows_R = self.rows_R
        if rows_R is None:
            rows_R = self.process.graph.live(x_BL).reshape(-1).nonzero().squeeze(-1)
        h_RD = gather_features(features(net, x_BL, sigma_B), rows_R)
        assert sigma_B is not None
        context = {"x": x_BL.reshape(-1)[rows_R], "sigma": sigma_B.expand(len(x_BL))[rows_R // x_BL.shape[1]]}
        _, hint_RD = rows_values(net.head, h_RD, ExpectedRows(self.process, net), context, self.process.chunk)
        if self.real_R is not None:
            hint_RD = torch.where(self.real_R.unsqueeze(-1), hint_RD, 0.0)
        hint_ND = hint_RD.new_zeros(x_BL.numel(), hint_RD.shape[-1]).index_add_(0, rows_R, hint_RD)
        return hint_ND.unflatten(0, x_BL.shape)


class ExpectedRows:
    """The expected token vector of a chunk of rows as a row function: it stands where diagnostics do."""

    def __init__(self, process: Diffusion, net: Backbone) -> None:
        """``process``: whose graph and readout read the outputs; ``net``: whose vectors they are."""
        self.graph, self.readout, self.net = process.graph, process.readout, net

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(0 a row, hint_RD)."""
        sigma_R = context["sigma"].to(out_RS.dtype)
        log_score_RS = self.readout.log_score(out_RS, context["x"], sigma_R)
        hint_RD = self.net.expected(self.graph.clean_from_score(log_score_RS, context["x"], sigma_R).exp())
        return hint_RD.new_zeros(len(hint_RD)), hint_RD

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Never trained on."""
        raise NotImplementedError("a hint carries no gradient")


class HearingView(HintedView):
    """The same network without hints and with them."""

    def __init__(self, plain: ScoreView, twice: ScoreView) -> None:
        """``twice``: of which each look is two network calls."""
        self.plain, self.twice = plain, twice
        self.graph, self.noise, self.chunk = plain.graph, plain.noise, plain.chunk
        self.device, self.vocab, self.length = plain.device, plain.vocab, plain.length

    @property
    def calls(self) -> int:  # type: ignore[override]
        """Network calls of both."""
        return self.plain.calls + 2 * self.twice.calls

    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """Without a hint."""
        return self.plain.look(x_BL, sigma_B, told_B)

    def hinted(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """See the base."""
        return self.twice.look(x_BL, sigma_B, told_B)
