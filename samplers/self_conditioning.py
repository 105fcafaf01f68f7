"""Self-conditioning in sampling: each look hears what the network expects before it says what it says."""

from __future__ import annotations

from typing import cast

from samplers.base import Canvas, HintedView, Lens, ScoreView
from samplers.lenses import LensView


@Lens.register("self_conditioning")
class SelfConditioning(Lens):
    """The network looks twice: the second time it hears, at masks, the expected token of the law it said the first.

    Published samplers (Chen, Zhang & Hinton 2022, "Analog bits") hand on the last step's; here it is made anew at each
    look. That is twice the calls, and the law of a step depends on the text and its noise alone: the network that
    draws is the one whose likelihood is bounded. It stands first among the lenses.
    """

    graphs = "mask"
    needs = HintedView

    def __call__(self, view: ScoreView, canvas: Canvas) -> ScoreView:
        """See the class."""
        return LensView(view, cast("HintedView", view).hinted)
