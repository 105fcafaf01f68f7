"""Drawing: exact, keyed, never on an empty state, the same in any batch, resumable."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from graphs.uniform import Uniform as UniformGraph
from samplers.base import Canvas, Law
from samplers.draw import BLOCK, draw, drive, land
from samplers.enumeration import law_of
from samplers.exact import IidView, zipf
from samplers.predictors.analytic import Analytic
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse, start
from samplers.times import Uniform
from tests.graphs.worlds import WORLDS
from tests.samplers.toys import Remask, TwoLooks, chi_square, law_and_view, on_tokens, reverse
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng

LAST = 1 - 2.0**-53
"""The largest number a stream gives."""


# --- the inverse CDF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", [2, 255, 256, 257, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_landing_inverts_the_cdf(states: int, dtype: torch.dtype) -> None:
    """A grid of equally spaced numbers lands on every state in proportion to its probability."""
    generator = torch.Generator().manual_seed(states)
    log_p_S = torch.randn(states, generator=generator).to(dtype)
    grid_R = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    y_R, sound_R = land(log_p_S.expand(20_000, -1), grid_R)
    share_S = torch.bincount(y_R, minlength=states) / 20_000
    p_S = torch.softmax(log_p_S.double(), -1)
    assert bool(sound_R.all()) and bool((y_R[1:] >= y_R[:-1]).all())
    assert float((share_S - p_S).abs().max()) <= 1.01 / 20_000


def test_both_ends_land_on_states_with_mass() -> None:
    """Zero-probability states at both ends, at block edges and in whole blocks are never drawn."""
    states = 4 * BLOCK + 7
    log_p_S = torch.full((states,), -math.inf)
    held = [3, BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 9, 4 * BLOCK + 2]
    log_p_S[held] = torch.tensor([-3.0, -30.0, 0.0, -1.0, -50.0])
    u_R = torch.tensor([0.0, LAST, 0.5, 1e-300, *torch.rand(5000, dtype=torch.float64).tolist()], dtype=torch.float64)
    y_R, _ = land(log_p_S.expand(len(u_R), -1), u_R)
    assert set(y_R.tolist()) <= set(held)
    assert int(y_R[0]) == 3 and int(y_R[1]) in held[2:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_last_bin_survives_rounding(dtype: torch.dtype) -> None:
    """Masses that do not add up to one in floating point, asked at the largest number there is.

    In float32 a mass below 1.2e-38 is nothing: denormal numbers are flushed to zero.
    """
    for states in (3, 10, 49, 1001, 50_257):
        for shift in (-80.0, 0.0, 80.0) if dtype == torch.float64 else (-70.0, 0.0, 60.0):
            log_p_RS = torch.full((1, states), math.log(1 / states) + shift, dtype=dtype)
            y_R, sound_R = land(log_p_RS, torch.tensor([LAST], dtype=torch.float64))
            assert bool(sound_R) and (states - 1) * (1 - 1e-5) <= int(y_R) <= states - 1


def test_rare_states_keep_their_share_in_float32() -> None:
    """A state of probability 1e-12 is reached exactly on its stretch of 1e-12, far below float32's resolution."""
    log_p_S = torch.log(torch.tensor([0.5, 1e-12, 0.5 - 1e-12], dtype=torch.float64)).float()
    u_R = 0.5 + torch.tensor([-1e-12, 0.25e-12, 0.75e-12, 2e-12], dtype=torch.float64)
    # float32 logs put the edges off by a relative 1e-7: the stretch moves, its length stays
    edge = float(log_p_S[:1].exp().double() / log_p_S.exp().double().sum())
    y_R, _ = land(log_p_S.expand(4, -1), u_R - 0.5 + edge)
    assert y_R.tolist() == [0, 1, 1, 2]


def test_rows_without_a_law_are_told() -> None:
    log_p_RS = torch.tensor([[0.0, -1.0], [-math.inf, -math.inf], [math.nan, 0.0], [-1.0, 0.0]])
    y_R, sound_R = land(log_p_RS, torch.full((4,), 0.5, dtype=torch.float64))
    assert sound_R.tolist() == [True, False, False, True]
    assert bool((y_R < 2).all())


def test_landing_fits_a_wide_law() -> None:
    """χ² over 50,257 tokens (rare ones pooled), seeded."""
    p_V = zipf(50_257)
    u_R = torch.from_numpy(Rng(5).uniform("test", 0, [0], 8_000)[0])
    y_R = torch.cat([land(p_V.log().float().expand(len(u), -1), u)[0] for u in u_R.split(500)])
    due, seen = p_V.numpy() * 8_000, np.bincount(y_R.numpy(), minlength=50_257).astype(float)
    bins = np.minimum((np.cumsum(due) / 40).astype(int), int(due.sum() / 40) - 1)
    due, seen = np.bincount(bins, due), np.bincount(bins, seen)
    keep = due > 0
    assert stats.chisquare(seen[keep], due[keep] * seen.sum() / due[keep].sum()).pvalue > 1e-3


# --- draws fit the enumerated law -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(WORLDS))
@pytest.mark.parametrize("rule", ["analytic", "normalised", "euler"])
def test_draws_fit_the_enumerated_law(name: str, rule: str) -> None:
    """The prior, both stages of every draw and the clean-up: χ² of whole samples at a fixed seed."""
    _, view = law_and_view(name, 2)
    sampler = reverse(rule, 6)
    law = on_tokens(law_of(sampler, view), view.vocab)
    samples = sampler.draw(view, Canvas.blank(4000, 2), Rng(11))
    assert chi_square(samples.tokens_BL, law) > 1e-3
    wrong = np.roll(law, 1)
    assert chi_square(samples.tokens_BL, wrong) < 1e-6, "the test could not fail"


def test_draws_of_stages_and_correctors_fit_the_enumerated_law() -> None:
    _, view = law_and_view("absorbing", 2)
    for sampler in (reverse(TwoLooks(), 2), reverse("normalised", 3, correctors=(Remask(0.3),))):
        law = on_tokens(law_of(sampler, view), view.vocab)
        samples = sampler.draw(view, Canvas.blank(4000, 2), Rng(12))
        assert chi_square(samples.tokens_BL, law) > 1e-3


# --- keyed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["absorbing", "uniform"])
def test_a_sequence_does_not_depend_on_its_batch(name: str) -> None:
    _, view = law_and_view(name, 3)
    sampler = reverse("analytic", 8)
    whole = sampler.draw(view, Canvas.blank(40, 3), Rng(3)).tokens_BL
    for first, last in ((0, 7), (7, 8), (8, 40)):
        part = sampler.draw(view, Canvas.blank(last - first, 3, first=first), Rng(3)).tokens_BL
        assert torch.equal(part, whole[first:last])
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    blank = Canvas.blank(40, 3)
    mixed = sampler.draw(view, Canvas(blank.x_BL, blank.fixed_BL, shuffled), Rng(3)).tokens_BL
    assert torch.equal(mixed, whole[shuffled])
    assert not torch.equal(sampler.draw(view, blank, Rng(4)).tokens_BL, whole)


def test_chunks_make_no_difference() -> None:
    _, view = law_and_view("uniform", 3)
    sampler = reverse("analytic", 8)
    whole = sampler.draw(view, Canvas.blank(10, 3), Rng(3)).tokens_BL
    for chunk in (1, 7):
        view.chunk = chunk
        assert torch.equal(sampler.draw(view, Canvas.blank(10, 3), Rng(3)).tokens_BL, whole)


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_walk_resumes_from_any_state(at: int) -> None:
    """A state taken between two laws (inside a step of two stages as well) ends in the same samples."""
    _, view = law_and_view("absorbing", 3)
    sampler = reverse(TwoLooks(), 3, correctors=(Remask(0.4),))
    begun = sampler.begin(view, Canvas.blank(50, 3), Rng(6))
    kept = []
    whole = drive(sampler.walk(view, begun), Rng(6), view, lambda state, law, moved: kept.append(state))
    again = drive(sampler.walk(view, kept[at - 1]), Rng(6), view)
    assert [state.step for state in kept] == list(range(1, len(kept) + 1))
    assert torch.equal(again.x_BL, whole.x_BL)
    assert again.step == whole.step and torch.equal(again.memory["runs"], torch.full((50,), 3.0))


def test_the_host_knows_what_is_live() -> None:
    """The book that the draw keeps is what the graph says of the tokens, after every law."""
    _, view = law_and_view("absorbing", 3)
    sampler = reverse("normalised", 5, correctors=(Remask(0.4),))
    canvas = Canvas.blank(30, 3)
    canvas.fixed_BL[:, 1] = True

    def check(state: object, law: Law, moved: int) -> None:
        assert torch.equal(state.live_BL, state.free_BL & view.graph.live(state.x_BL))  # type: ignore[attr-defined]

    drive(sampler.walk(view, sampler.begin(view, canvas, Rng(1))), Rng(1), view, check)


# --- laws that cannot be drawn ------------------------------------------------------------------------------------


def _state(batch: int = 2) -> object:
    _, view = law_and_view("absorbing", 2)
    return start(view, Canvas.blank(batch, 2), torch.full((batch, 2), view.vocab)), view


def test_scores_that_are_not_numbers_end_the_walk() -> None:
    state, view = _state()
    rows_R = torch.arange(4)
    law = Law(rows_R, torch.tensor([0.1, math.nan, 0.1, 0.1], dtype=torch.float64), torch.Tensor.double)
    with pytest.raises(WorkbenchError, match="not numbers at sampling step 0"):
        draw(state, law, Rng(0), view.graph, 8)


def test_targets_that_are_not_numbers_end_the_walk() -> None:
    state, view = _state()

    def walk():
        law = Law(torch.arange(4), torch.ones(4, dtype=torch.float64), lambda s: torch.full((len(s), 4), math.nan))
        return (yield state, law)

    with pytest.raises(WorkbenchError, match="not a number"):
        drive(walk(), Rng(0), view)


def test_a_law_that_would_move_a_fixed_position_does_not() -> None:
    state, view = _state(500)
    state = replace(state, free_BL=torch.arange(2).eq(0).expand(500, 2))
    law = Law(torch.arange(1000), torch.ones(1000, dtype=torch.float64), lambda s: torch.zeros(len(s), 4))
    after = draw(state, law, Rng(0), view.graph, 64).state
    assert bool((after.x_BL[:, 1] == view.vocab).all()) and bool((after.x_BL[:, 0] < view.vocab).all())


# --- no float truncation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Analytic, Normalised])
def test_more_steps_do_not_cool_the_samples(rule: type) -> None:
    """Zipf's conditional over 50,257 tokens, exact score: −log p stays at the entropy from 16 to 1,024 steps.

    Drawn as published, by float32 Gumbel noise, it falls from 7.83 to 7.28 nats between 16 and 256 steps.
    """
    from graphs.absorbing import Absorbing
    from graphs.noise import LogLinear

    p_V = zipf(50_257)
    entropy = float(-(p_V * p_V.log()).sum())
    spread = float(((p_V * p_V.log().square()).sum() - entropy**2).sqrt())
    assert entropy == pytest.approx(7.706, abs=5e-4)
    view = IidView(Absorbing(50_257), LogLinear(), p_V, length=256)
    means = []
    for steps in (16, 128, 1024):
        tokens_BL = (
            Reverse(rule(), Uniform(), steps).draw(view, Canvas.blank(4, 256, first=4 * steps), Rng(8)).tokens_BL
        )
        means.append(float(-view.log_p_V[tokens_BL].mean()))
    error = spread / math.sqrt(1024)
    print(f"{rule.__name__}: mean −log p {[f'{mean:.3f}' for mean in means]} ± {error:.3f}, entropy {entropy:.3f}")
    assert all(abs(mean - entropy) < 3 * error for mean in means)
    assert abs(np.mean(means) - entropy) < 3 * error / math.sqrt(3)


def test_a_wide_uniform_graph_draws_as_well() -> None:
    """The transition law of 2,000 states: independent positions stay at their law (mean −log p)."""
    from graphs.noise import Geometric

    p_V = zipf(2000)
    view = IidView(UniformGraph(2000), Geometric(), p_V, length=256)
    entropy = float(-(p_V * p_V.log()).sum())
    spread = float(((p_V * p_V.log().square()).sum() - entropy**2).sqrt())
    for rule in (Analytic(), Normalised()):
        tokens_BL = Reverse(rule, Uniform(), 24).draw(view, Canvas.blank(4, 256), Rng(9)).tokens_BL
        assert abs(float(-view.log_p_V[tokens_BL].mean()) - entropy) < 3 * spread / 32


def test_seeds_and_steps_are_independent_streams() -> None:
    """Laws at different steps do not share numbers: leaving at one says nothing of leaving at the next."""
    u = [Rng(1).uniform("leave", step, range(200), 8).reshape(-1) for step in range(3)]
    for one, other in itertools.combinations(u, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
