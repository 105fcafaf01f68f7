"""Power laws: the constants that made the data are found; intervals hold them as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import WorkbenchError
from workbench.metrics.scaling import fit_power_law

SIZES = np.asarray([1e5, 3e5, 1e6, 3e6, 1e7])


@settings(max_examples=20, deadline=None)
@given(floor=st.floats(0.2, 3.0), exponent=st.floats(0.1, 1.5), drop=st.floats(0.3, 4.0))
def test_exact_data_give_their_constants_back(floor, exponent, drop):
    """``drop``: what the smallest size has above the floor."""
    scale = drop * SIZES[0] ** exponent
    law = fit_power_law(SIZES, floor + scale * SIZES**-exponent)
    assert law.exponent.value == pytest.approx(exponent, rel=1e-3)
    assert law.floor.value == pytest.approx(floor, rel=1e-3, abs=1e-4)
    assert law.scale == pytest.approx(scale, rel=2e-2)
    assert law.at(SIZES) == pytest.approx(floor + scale * SIZES**-exponent, rel=1e-5)
    assert law.exponent.low <= exponent * 1.001 and law.exponent.high >= exponent * 0.999


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, exponent, floor = np.random.default_rng(0), 0.4, 1.0
    truth = floor + 60.0 * SIZES**-exponent
    held = {"exponent": 0, "floor": 0}
    rounds = 40
    for _ in range(rounds):
        x, y = np.repeat(SIZES, 3), np.repeat(truth, 3) + 0.004 * rng.standard_normal(15)
        law = fit_power_law(x, y)
        for name, true in (("exponent", exponent), ("floor", floor)):
            one = getattr(law, name)
            held[name] += (one.low is None or one.low <= true) and (one.high is None or true <= one.high)
    assert all(0.8 * rounds <= count for count in held.values()), held  # 38 of 40 expected, 32 is four deviations below
    assert law.rms < 0.01


def test_what_the_data_leave_open_is_left_open():
    """Noise as large as the fall: any floor will do, and the steepest exponents."""
    rng = np.random.default_rng(1)
    law = fit_power_law(np.repeat(SIZES, 2), 2.0 + 0.5 * rng.standard_normal(10))
    assert law.exponent.low is None or law.exponent.high is None
    flat = fit_power_law(SIZES, [2.0, 2.1, 1.9, 2.0, 2.05])
    assert flat.floor.low is None, "no floor at all, and a very flat law, is as good"


def test_a_loss_that_rises_has_no_scale():
    law = fit_power_law(SIZES, [1.0, 1.1, 1.2, 1.3, 1.4])
    assert law.scale == 0 and law.floor.value == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("size", "loss", "said"),
    [
        ([1, 2, 3], [3, 2, 1], "three sizes and four runs; found 3 sizes, 3 runs"),
        ([1, 1, 2, 2], [3, 3, 2, 2], "found 2 sizes, 4 runs"),
        ([0, 1, 2, 3], [4, 3, 2, 1], "sizes above 0"),
        ([1, 2, 3, 4], [4, 3, float("nan"), 1], "losses that are numbers"),
    ],
)
def test_what_cannot_be_fitted_is_told(size, loss, said):
    with pytest.raises(WorkbenchError, match=said):
        fit_power_law(size, loss)
