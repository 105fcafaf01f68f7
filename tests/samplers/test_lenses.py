"""Lenses: guidance by its formula, what σ the network hears, and conditioning through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from samplers.base import Canvas
from samplers.enumeration import law_of
from samplers.exact import ExactView
from samplers.lenses import Guidance, SigmaHat
from samplers.predictors.first_hitting import FirstHitting
from tests import oracle
from tests.samplers.toys import law_and_view, on_tokens, reverse
from workbench.core.rng import Rng


def given(length: int, fixed: dict[int, int], batch: int = 1) -> Canvas:
    canvas = Canvas.blank(batch, length)
    for at, token in fixed.items():
        canvas.fixed_BL[:, at], canvas.x_BL[:, at] = True, token
    return canvas


@pytest.mark.parametrize("rule", ["normalised", "analytic", FirstHitting()], ids=["normalised", "analytic", "first"])
@pytest.mark.parametrize("fixed", [{0: 1}, {2: 3}, {1: 2}, {0: 3, 2: 0}], ids=["prefix", "suffix", "middle", "gap"])
def test_conditioning_anywhere_is_exact_through_a_lens(rule: Any, fixed: dict[int, int]) -> None:
    """σ̂ changes what the network hears, and an exact score does not hear: the limit is the conditional law."""
    p0, view = law_and_view("absorbing", 3)
    got = on_tokens(law_of(reverse(rule, 128, lenses=(SigmaHat(),)), view, given(3, fixed)), view.vocab)
    assert oracle.total_variation(got, oracle.restrict(p0, fixed)) < 5e-3


def test_guidance_is_its_formula() -> None:
    """One free position beside a given one: log p ∝ log p_u + (1 + w)(log p_c − log p_u), by the raw score too."""
    p0, view = law_and_view("absorbing", 2)
    cond, free = p0[1] / p0[1].sum(), p0.sum(0)
    for w in (0.0, 0.5, 3.0):
        truth = free * (cond / free) ** (1 + w)
        for rule in ("normalised", "analytic"):
            sampler = reverse(rule, 1 if rule == "normalised" else 400, lenses=(Guidance(w),))
            got = on_tokens(law_of(sampler, view, given(2, {0: 1})), view.vocab)[1]
            np.testing.assert_allclose(got, truth / truth.sum(), atol=1e-9)


def test_guidance_costs_two_calls_and_none_without_a_prompt() -> None:
    _, view = law_and_view("absorbing", 3)
    once = reverse("normalised", 6).draw(view, given(3, {0: 1}, 40), Rng(0))
    twice = reverse("normalised", 6, lenses=(Guidance(2.0),)).draw(view, given(3, {0: 1}, 40), Rng(0))
    assert twice.calls == 2 * once.calls
    blank = reverse("normalised", 6, lenses=(Guidance(2.0),)).draw(view, Canvas.blank(40, 3), Rng(0))
    assert blank.calls == reverse("normalised", 6).draw(view, Canvas.blank(40, 3), Rng(0)).calls


class Heard(ExactView):
    """Keeps what it was told."""

    def look(self, x_BL, sigma_B, told_B=None):
        self.told = (*getattr(self, "told", ()), (x_BL.clone(), sigma_B, told_B))
        return super().look(x_BL, sigma_B)


def test_the_network_hears_what_is_masked() -> None:
    p0, view = law_and_view("absorbing", 3)
    view = Heard(view.graph, view.noise, torch.from_numpy(p0))
    reverse("normalised", 4, lenses=(SigmaHat(),)).draw(view, given(3, {0: 1, 1: 2}, 5), Rng(0))
    x_BL, _, told_B = view.told[0]
    assert told_B is not None and (1 - torch.exp(-told_B)).tolist() == pytest.approx([1 / 3] * 5)
    for x_BL, _, told_B in view.told:
        share_B = (x_BL == 4).double().mean(-1).clamp(1e-4, 1 - 1e-4)
        torch.testing.assert_close(1 - torch.exp(-told_B), share_B)
