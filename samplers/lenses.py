"""Lenses: other ways to look through the same network, for one canvas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplers.base import Canvas, Lens, Look, ScoreView
from workbench.core.bounds import NonNegative

Looks = Callable[[Tensor, Tensor, "Tensor | None"], Look]


class LensView(ScoreView):
    """A view whose looks are made otherwise; everything else, calls too, is that of the view it was made of."""

    def __init__(self, inner: ScoreView, looks: Looks) -> None:
        """``looks(x_BL, sigma_B, told_B)`` makes a look."""
        self.inner, self.looks = inner, looks
        self.graph, self.noise, self.chunk = inner.graph, inner.noise, inner.chunk
        self.device, self.vocab, self.length = inner.device, inner.vocab, inner.length

    @property
    def calls(self) -> int:  # type: ignore[override]
        """Network calls of the view within."""
        return self.inner.calls

    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """See the class."""
        return self.looks(x_BL, sigma_B, told_B)


@Lens.register("sigma_hat")
class SigmaHat(Lens):
    """The network hears σ̂ = −ln(1 − masked/L), the noise at which as much is masked as is, instead of the clock's σ.

    With a given prompt fewer positions are masked than σ(t) says, a text the network never saw in training; the law of
    the step stays the clock's. (DUO's likelihood of suffixes does the same.)
    """

    graphs = "mask"

    def __call__(self, view: ScoreView, canvas: Canvas) -> ScoreView:
        """See the class. Each look reads from the device how much is masked."""

        def look(x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None) -> Look:
            # one masked position of L at least: σ̂ = 0 is a noise at which nothing is asked
            share_B = (x_BL == view.graph.vocab).double().mean(-1).cpu().clamp(1e-4, 1 - 1e-4)
            most_B = view.sigma(torch.ones_like(share_B))
            return view.look(x_BL, sigma_B, torch.minimum(-torch.log1p(-share_B), most_B))

        return LensView(view, look)


@Lens.register("guidance")
class Guidance(Lens):
    """Classifier-free guidance with the prompt as condition, without training (Nie et al. 2025; Schiff et al. 2024).

    log p ∝ log p_u + (1 + w)(log p_c − log p_u): p_c sees the canvas's given tokens, p_u masks in their place. Two
    network calls a look (one where nothing is given, or ``w`` is 0). Raw scores mix alike.

    Settings:
        w: strength beyond conditioning; 0 changes nothing
    """

    graphs = "mask"

    def __init__(self, w: NonNegative = 1.0) -> None:
        """Keep the strength."""
        self.w = w

    def __call__(self, view: ScoreView, canvas: Canvas) -> ScoreView:
        """See the class."""
        if self.w == 0 or not bool(canvas.fixed_BL.any()):
            return view
        fixed_BL = canvas.fixed_BL.to(view.device)

        def look(x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None) -> Look:
            free_BL = x_BL.masked_fill(fixed_BL, view.graph.vocab)
            return Guided(view.look(x_BL, sigma_B, told_B), view.look(free_BL, sigma_B, told_B), self.w)

        return LensView(view, look)


class Guided(Look):
    """Two looks as one."""

    def __init__(self, with_prompt: Look, without: Look, w: float) -> None:
        """``w`` as in `Guidance`."""
        self.looks, self.w = (with_prompt, without), w
        self.x_BL, self.sigma_B = with_prompt.x_BL, with_prompt.sigma_B

    def expect(self, rows_R: Tensor) -> None:
        """Both."""
        for look in self.looks:
            look.expect(rows_R)

    def log_score(self, rows_R: Tensor) -> Tensor:
        """Mixed as logs, not normalised."""
        return self._mixed(*(look.log_score(rows_R) for look in self.looks))

    def clean(self, rows_R: Tensor) -> Tensor:
        """Mixed and normalised; what the prompt excludes stays excluded."""
        return self._mixed(*(look.clean(rows_R) for look in self.looks)).log_softmax(-1)

    def others(self, rows_R: Tensor) -> Tensor:
        """Mixed and normalised."""
        return self._mixed(*(look.others(rows_R) for look in self.looks)).log_softmax(-1)

    def select(self, parent_B: Tensor) -> Look:
        """Both."""
        return Guided(self.looks[0].select(parent_B), self.looks[1].select(parent_B), self.w)

    def _mixed(self, with_RV: Tensor, without_RV: Tensor) -> Tensor:
        # −∞ − −∞ is no number: a token that the prompt excludes has no ratio to mix
        mixed_RV = with_RV + self.w * (with_RV - without_RV.clamp_min(-1e30))
        return torch.where(with_RV.isneginf(), -torch.inf, mixed_RV)
