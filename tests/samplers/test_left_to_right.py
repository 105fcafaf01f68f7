"""The next-token sampler against an exact next-token law."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from samplers.base import Canvas
from samplers.exact import ExactNextToken
from samplers.left_to_right import LeftToRight
from samplers.shapers import Nucleus, Temperature
from tests import oracle
from tests.samplers.toys import chi_square
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng

P0 = oracle.random_joint(4, 3, seed=5)


def view() -> ExactNextToken:
    return ExactNextToken(torch.from_numpy(P0))


def test_samples_fit_the_joint_law() -> None:
    samples = LeftToRight().draw(view(), Canvas.blank(5000, 3), Rng(2))
    assert chi_square(samples.tokens_BL, P0) > 1e-3
    assert chi_square(samples.tokens_BL, np.roll(P0, 1)) < 1e-6, "the test could not fail"
    assert samples.calls == 3


def test_prefixes_of_any_length_are_kept_and_continued() -> None:
    """Ragged prefixes in one batch: each group is drawn by itself; the law is the conditional one."""
    canvas = Canvas.blank(6000, 3)
    lengths_B = torch.arange(6000) % 3
    canvas.fixed_BL[:] = torch.arange(3) < lengths_B[:, None]
    canvas.x_BL[:, 0], canvas.x_BL[:, 1] = 2, 1
    heard: list[float] = []
    samples = LeftToRight().draw(view(), canvas, Rng(2), heard.append)
    assert torch.equal(samples.tokens_BL[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL])
    for length, fixed in ((0, {}), (1, {0: 2}), (2, {0: 2, 1: 1})):
        assert chi_square(samples.tokens_BL[lengths_B == length], oracle.restrict(P0, fixed)) > 1e-3
    assert samples.calls == 3 + 2 + 1
    assert heard == sorted(heard) and heard[-1] == 1


def test_a_full_canvas_is_left_alone() -> None:
    canvas = Canvas(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1).long())
    samples = LeftToRight().draw(view(), canvas, Rng(0))
    assert samples.tokens_BL.tolist() == [[1, 2, 3]] and samples.calls == 0


def test_a_sequence_does_not_depend_on_its_batch() -> None:
    whole = LeftToRight().draw(view(), Canvas.blank(20, 3), Rng(3)).tokens_BL
    part = LeftToRight().draw(view(), Canvas.blank(5, 3, first=9), Rng(3)).tokens_BL
    assert torch.equal(part, whole[9:14])


def test_it_takes_the_same_shapers() -> None:
    """At each position the shaped conditional law."""
    tau = 0.4
    law = np.ones_like(P0)
    for seen in range(3):
        p = P0.sum(axis=tuple(range(seen + 1, 3))) if seen < 2 else P0
        p = (p / p.sum(-1, keepdims=True)) ** (1 / tau)
        law = law * (p / p.sum(-1, keepdims=True)).reshape(p.shape + (1,) * (2 - seen))
    samples = LeftToRight((Temperature(tau),)).draw(view(), Canvas.blank(5000, 3), Rng(4))
    assert chi_square(samples.tokens_BL, law) > 1e-3
    greedy = LeftToRight((Nucleus(1e-9),)).draw(view(), Canvas.blank(3, 3), Rng(4)).tokens_BL
    assert bool((greedy == greedy[0]).all())


def test_what_it_cannot_do_is_said() -> None:
    canvas = Canvas.blank(2, 3)
    canvas.fixed_BL[1, 2] = True
    with pytest.raises(WorkbenchError, match=r"continues prefixes only.*conditions anywhere"):
        LeftToRight().draw(view(), canvas, Rng(0))
    with pytest.raises(WorkbenchError, match="the canvas has 4 positions, the model 3"):
        LeftToRight().draw(view(), Canvas.blank(1, 4), Rng(0))


def test_a_network_that_diverged_is_told() -> None:
    class Broken(ExactNextToken):
        def next(self, x_Bn: Tensor, cache: Any) -> tuple[Tensor, Any]:
            log_p_BV, cache = super().next(x_Bn, cache)
            return log_p_BV * math.nan, cache

    with pytest.raises(WorkbenchError, match="not a number"):
        LeftToRight().draw(Broken(torch.from_numpy(P0)), Canvas.blank(2, 3), Rng(0))
