"""The exact law of whole samplers, enumerated through the shipping loop, against the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from graphs.noise import Cosine, Geometric, LogLinear
from samplers.base import Canvas
from samplers.enumeration import end_law, enumerate_walk, every_state, law_of, outcomes
from samplers.exact import ExactView
from samplers.predictors.euler import Euler
from samplers.reverse import Reverse, Turn, start, walk
from samplers.shapers import Nucleus, Temperature
from samplers.times import Uniform
from tests import oracle
from tests.graphs.worlds import WORLDS
from tests.samplers.toys import RULES, Remask, TwoLooks, law_and_view, on_tokens, reverse

worlds = pytest.mark.parametrize("name", list(WORLDS))
exact_rules = pytest.mark.parametrize("rule", ["analytic", "normalised"])


@worlds
@exact_rules
@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("t,s", [(0.9, 0.6), (0.5, 0.499), (0.4, 0.0)])
def test_one_law_is_bayes_reverse_kernel_at_each_position(
    name: str, rule: str, length: int, t: float, s: float
) -> None:
    """At every state that occurs: the oracle's marginals, 0 standing for clean text."""
    world = WORLDS[name]
    p0, view = law_and_view(name, length)
    x_NL = every_state(world.states, length)
    noise = view.noise.total(torch.tensor([t, s], dtype=torch.float64))
    high, low = float(noise[0]), 0.0 if s == 0 else float(noise[1])
    state = start(view, Canvas.blank(len(x_NL), length), x_NL)
    state, law = next(walk(view, state, [Turn(RULES[rule](), 0, t, s)]))
    truth = oracle.reverse_marginals(oracle.embed(p0, world.states), world.Q, high, low)
    occurs = ~np.isnan(truth).any(axis=(1, 2)) & (x_NL.numpy().max(1) < world.states)
    got = outcomes(state, law, view.graph).numpy()
    np.testing.assert_allclose(got[occurs], truth[occurs], atol=1e-9)


@worlds
@pytest.mark.parametrize("rule", list(RULES))
def test_whole_sampler_goes_to_the_truth_at_first_order(name: str, rule: str) -> None:
    """Factorised steps: the error halves, to a tenth, when the steps double, and ends small.

    Euler's falls faster while long steps still ask for more than all to leave (and are clamped).
    """
    p0, view = law_and_view(name, 2)
    errors = [
        oracle.total_variation(on_tokens(law_of(reverse(rule, steps), view), view.vocab), p0) for steps in (32, 64, 128)
    ]
    print(f"{name} {rule}: total variation {errors}")
    assert errors[-1] < 0.01
    for coarse, fine in itertools.pairwise(errors):
        assert 1.75 < coarse / fine < (2.25 if rule != "euler" else 3)


def test_three_positions() -> None:
    p0, view = law_and_view("absorbing", 3)
    errors = [oracle.total_variation(on_tokens(law_of(reverse("analytic", n), view), view.vocab), p0) for n in (16, 64)]
    assert errors[1] < 0.01 and errors[0] / errors[1] > 3.5


@worlds
@exact_rules
@pytest.mark.parametrize("steps", [1, 5])
def test_one_position_is_exact_in_any_number_of_steps(name: str, rule: str, steps: int) -> None:
    """Started from the true law at t = 1 (which is not quite the end law), there is nothing left to be wrong."""
    p0, _ = law_and_view(name, 1)
    graph = WORLDS[name].graph
    view = ExactView(graph, LogLinear() if graph.mask else Geometric(1e-4, 5.0), torch.from_numpy(p0))
    sigma = float(view.sigma(torch.ones(1, dtype=torch.float64)))
    weight_N = torch.from_numpy(oracle.noised(oracle.embed(p0, graph.states), WORLDS[name].Q, sigma))
    state = start(view, Canvas.blank(graph.states, 1), every_state(graph.states, 1))
    law = enumerate_walk(reverse(rule, steps).walk(view, state), weight_N, graph)
    assert oracle.total_variation(on_tokens(law, graph.vocab), p0) < 1e-9


@pytest.mark.parametrize("name", ["uniform", "ring", "random"])
def test_euler_is_first_order_at_one_position(name: str) -> None:
    """No factorisation at L = 1: what is left is Euler's own error (the clean-up step is exact)."""
    graph = WORLDS[name].graph
    p0 = oracle.random_joint(graph.vocab, 1, seed=7)
    view = ExactView(graph, Geometric(0.05, 30.0), torch.from_numpy(p0))
    errors = [
        oracle.total_variation(on_tokens(law_of(reverse("euler", steps), view), view.vocab), p0)
        for steps in (128, 256, 512)
    ]
    print(f"{name}: {errors}")
    for coarse, fine in itertools.pairwise(errors):
        assert 1.8 < coarse / fine < 2.2


def test_euler_is_first_order_on_absorbing_too() -> None:
    """On log-linear noise Euler is exact at L = 1 (its rate integrates to the truth), so another schedule."""
    graph = WORLDS["absorbing"].graph
    p0 = oracle.random_joint(4, 1, seed=7)
    view = ExactView(graph, Cosine(1e-9), torch.from_numpy(p0))
    # half-way the masks that are left show the pace; after the clean-up one position is exact at any pace
    left = [float(law_of(Reverse(Euler(), Uniform(0.3), steps, cleanup=False), view)[-1]) for steps in (64, 128, 256)]
    right = float(-torch.expm1(-view.sigma(torch.tensor(0.3, dtype=torch.float64))))
    errors = [abs(one - right) for one in left]
    assert 1.8 < errors[0] / errors[1] < 2.2 and 1.8 < errors[1] / errors[2] < 2.2
    with_cleanup = on_tokens(law_of(reverse("euler", 64), view), 4)
    assert oracle.total_variation(with_cleanup, p0) < 1e-8


@worlds
def test_normalised_and_analytic_are_one_with_the_exact_score(name: str) -> None:
    _, view = law_and_view(name, 2)
    one, other = (law_of(reverse(rule, 16), view) for rule in ("analytic", "normalised"))
    assert float((one - other).abs().max()) < 1e-7


def test_conditioning_is_exact_on_absorbing_in_the_limit() -> None:
    """The middle of three is given."""
    p0, view = law_and_view("absorbing", 3)
    canvas = Canvas.blank(1, 3)
    canvas.fixed_BL[0, 1], canvas.x_BL[0, 1] = True, 2
    truth = oracle.restrict(p0, {1: 2})
    errors = [
        oracle.total_variation(on_tokens(law_of(reverse(rule, steps), view, canvas), view.vocab), truth)
        for rule in ("analytic", "normalised")
        for steps in (32, 64, 256)
    ]
    print(f"absorbing, given the middle: {errors}")
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.15)
    assert errors[2] < 2e-3
    np.testing.assert_allclose(errors[:3], errors[3:], rtol=1e-6)


@pytest.mark.parametrize("name", ["uniform", "ring", "random"])
def test_conditioning_elsewhere_is_measured(name: str) -> None:
    """A clean token at high noise is a state the score never learnt to read: the limit is not the conditional law."""
    p0, view = law_and_view(name, 2)
    canvas = Canvas.blank(1, 2)
    canvas.fixed_BL[0, 0], canvas.x_BL[0, 0] = True, 1
    truth = oracle.restrict(p0, {0: 1})
    marginal = np.zeros_like(p0)
    marginal[1] = p0.sum(0)
    got = [on_tokens(law_of(reverse("analytic", steps), view, canvas), view.vocab) for steps in (64, 256)]
    errors = [oracle.total_variation(law, truth) for law in got]
    unconditional = oracle.total_variation(marginal, truth)
    print(
        f"{name}, given the first: total variation {errors} to the conditional law ({unconditional:.3f} unconditional)"
    )
    assert got[1][0].sum() == 0
    assert errors[1] < unconditional
    assert errors[1] > 1e-3, "exact after all? then say so in the docs of `reverse`"


def test_nucleus_on_the_clean_law_is_the_nucleus_of_one_position() -> None:
    """On the uniform graph, through ``normalised``: exactly the nucleus of p0, renormalised, in any number of steps."""
    p0, view = law_and_view("uniform", 1)
    order = np.argsort(-p0)
    keep = order[: int(np.searchsorted(np.cumsum(p0[order]), 0.7)) + 1]
    truth = np.zeros_like(p0)
    truth[keep] = p0[keep] / p0[keep].sum()
    assert 1 < len(keep) < 4
    for steps in (1, 3, 32):
        got = on_tokens(law_of(reverse("normalised", steps, shapers=(Nucleus(0.7),)), view), view.vocab)
        np.testing.assert_allclose(got, truth, atol=1e-9)


@pytest.mark.parametrize("rule", list(RULES))
def test_shapers_never_change_the_pace_on_masked_graphs(rule: str) -> None:
    """At L = 2, before the clean-up: how many masks are left has the same law, hot, cold or cut, and tokens change."""
    _, view = law_and_view("absorbing", 2)
    laws = [
        law_of(reverse(rule, 4, shapers=shapers, cleanup=False), view)
        for shapers in [(), (Temperature(0.2),), (Nucleus(0.5), Temperature(3.0))]
    ]
    middle = [law_of(reverse(rule, 4, shapers=s), view) for s in [(), (Temperature(0.2),)]]
    assert float((middle[0] - middle[1]).abs().sum()) > 0.1
    for law in laws[1:]:
        for axis in (0, 1):
            assert float(law.sum(axis)[-1] - laws[0].sum(axis)[-1]) == pytest.approx(0, abs=1e-12)
        assert float(law[-1, -1]) == pytest.approx(float(laws[0][-1, -1]), abs=1e-12)


def test_temperature_of_one_position_on_absorbing() -> None:
    p0, view = law_and_view("absorbing", 1)
    got = on_tokens(law_of(reverse("analytic", 7, shapers=(Temperature(0.5),)), view), view.vocab)
    np.testing.assert_allclose(got, p0**2 / (p0**2).sum(), atol=1e-12)


def test_stages_and_correctors_run_in_the_same_loop() -> None:
    """A rule of two looks converges as well; a corrector that masks again leaves the law right in the limit."""
    p0, view = law_and_view("absorbing", 2)
    errors = [
        oracle.total_variation(on_tokens(law_of(reverse(TwoLooks(), steps), view), view.vocab), p0) for steps in (8, 32)
    ]
    assert errors[0] / errors[1] > 3.5
    corrected = on_tokens(law_of(reverse("normalised", 3, correctors=(Remask(0.3),)), view), view.vocab)
    plain = on_tokens(law_of(reverse("normalised", 3), view), view.vocab)
    assert oracle.total_variation(corrected, plain) > 1e-4


@worlds
def test_the_start_law_is_the_end_of_noise(name: str) -> None:
    np.testing.assert_allclose(end_law(WORLDS[name].graph).numpy(), oracle.stationary(WORLDS[name].Q), atol=1e-12)


def test_enumeration_weighs_what_it_is_given() -> None:
    """A walk of no laws returns its start, weighed; one that is resumed half-way gives the whole."""
    _, view = law_and_view("absorbing", 2)
    sampler = reverse("analytic", 4)
    whole = law_of(sampler, view)
    plan = sampler.plan(view)
    state = start(view, Canvas.blank(1, 2), torch.full((1, 2), view.vocab))
    half = enumerate_walk(walk(view, state, plan[:2]), torch.ones(1, dtype=torch.float64), view.graph)
    x_NL = every_state(view.graph.states, 2)
    weight_N = half.reshape(-1)
    on = weight_N > 0
    rest = start(view, Canvas.blank(int(on.sum()), 2), x_NL[on])
    second = enumerate_walk(walk(view, rest, plan[2:]), weight_N[on], view.graph)
    assert float((second - whole).abs().max()) < 1e-12
    assert math.isclose(float(whole.sum()), 1, abs_tol=1e-12)
