"""Kept ends: nothing there moves at any noise, and the middle is noised as a block of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from tests.smoke import RECIPES
from workbench.core.errors import RecipeError
from workbench.core.rng import Rng
from workbench.processes.corruptions import Complementary, EvenShare, ExactCount, Independent
from workbench.processes.kept import KeptEnds
from workbench.processes.time_draws import UniformTimes
from workbench.recipe import load


@pytest.mark.parametrize("inner", [Independent(), EvenShare(), Complementary(), ExactCount()])
def test_the_middle_is_a_block_of_its_own(inner):
    seq_B, noise, times = np.arange(50), LogLinear(), UniformTimes()
    drawn = KeptEnds(inner, first=3, last=2).draw(seq_B, 9, 7, Rng(0), noise, times)
    alone = inner.draw(seq_B, 4, 7, Rng(0), noise, times)
    assert torch.equal(drawn.u_NL[:, 3:7], alone.u_NL.double()) and torch.equal(drawn.weight_N, alone.weight_N)
    assert torch.equal(drawn.sigma_N, alone.sigma_N) and drawn.u_NL.shape == (len(drawn.item_N), 9)
    x0_NL = torch.zeros(drawn.u_NL.shape, dtype=torch.long)
    assert drawn.given_NL[:, :3].all() and drawn.given_NL[:, 7:].all() and not drawn.given_NL[:, 3:7].any()
    moved_NL = Absorbing(4).corrupt(x0_NL, drawn.sigma_N.unsqueeze(-1), drawn.u_NL) == 4
    assert moved_NL[:, 3:7].any()


def test_something_must_be_left():
    with pytest.raises(RecipeError, match="nothing is left to learn"):
        load(RECIPES / "puzzles" / "sudoku4-sedd.yaml", ["process.corruption.last=17"])
