"""Correctors leave the noised law as it is, where theory says so; drawn walks fit their enumerated laws."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from graphs.mixture import Mixture
from graphs.noise import LogLinear
from samplers.base import Canvas, Predictor
from samplers.correctors.langevin import Dfm, ForwardBackward
from samplers.correctors.resampling import Gibbs, Informed, SelfCorrection
from samplers.draw import drive
from samplers.enumeration import enumerate_walk, every_state, law_of
from samplers.exact import ExactView
from samplers.predictors.dndm import Dndm
from samplers.predictors.remdm import Remdm
from samplers.reverse import Reverse, Turn, start, walk
from samplers.times import Uniform
from tests import oracle
from tests.graphs.worlds import WORLDS
from tests.samplers.toys import chi_square, law_and_view, on_tokens, reverse
from workbench.core.rng import Rng

TIME = 0.75
"""Where correctors are tried: a noise of about 1 on every schedule of these worlds."""


def shift(rule: Predictor, name: str, length: int, times: int = 1) -> float:
    """How far ``times`` turns of a corrector move the noised law at that time: total variation."""
    _, view = law_and_view(name, length)
    noised = view.tables(float(view.noise.total(torch.tensor(TIME, dtype=torch.float64))))[0]
    plan = [Turn(rule, stage, TIME, TIME) for _ in range(times) for stage in range(rule.stages)]
    return float((_after(view, plan, noised) - noised).abs().sum()) / 2


def _after(view: ExactView, plan: list[Turn], law: torch.Tensor) -> torch.Tensor:
    x_NL = every_state(view.graph.states, view.length)
    state = start(view, Canvas.blank(len(x_NL), view.length), x_NL)
    return enumerate_walk(walk(view, state, plan), law.reshape(-1), view.graph)


@pytest.mark.parametrize("name", list(WORLDS))
@pytest.mark.parametrize("length", [1, 2])
def test_gibbs_leaves_the_law_as_it_is(name: str, length: int) -> None:
    """One position at a time: exactly, at any length."""
    assert shift(Gibbs(1), name, length) < 1e-12
    if length == 2:
        assert shift(Gibbs(2), name, 2) > 1e-3, "both at once are drawn independently"


@pytest.mark.parametrize("name", list(WORLDS))
def test_forward_backward_leaves_one_position_as_it_is(name: str) -> None:
    for amount in (0.05, 0.5, 0.9):
        assert shift(ForwardBackward(amount), name, 1) < 1e-9


@pytest.mark.parametrize("name", list(WORLDS))
def test_forward_backward_errs_in_second_order(name: str) -> None:
    """Two positions: what the factorised step back costs falls fourfold when the amount is halved."""
    errors = [shift(ForwardBackward(amount), name, 2) for amount in (0.08, 0.04, 0.02)]
    print(f"{name}: {errors}")
    for coarse, fine in itertools.pairwise(errors):
        assert 3.4 < coarse / fine < 4.6


def test_dfm_balances() -> None:
    assert shift(Dfm(0.2), "absorbing", 1) < 1e-12
    errors = [shift(Dfm(amount), "absorbing", 2) for amount in (0.08, 0.04, 0.02)]
    for coarse, fine in itertools.pairwise(errors):
        assert 3.4 < coarse / fine < 4.6


def test_correctors_mend_a_short_walk() -> None:
    """Three steps alone are off; with Gibbs turns after each step they come nearer to the truth."""
    for name in ("absorbing", "uniform"):
        p0, view = law_and_view(name, 2)
        plain, mended = (
            oracle.total_variation(on_tokens(law_of(reverse("normalised", 3, correctors=more), view), view.vocab), p0)
            for more in ((), (Gibbs(1),) * 3)
        )
        assert mended < 0.75 * plain, (name, plain, mended)


@pytest.mark.parametrize(
    "rule", [Gibbs(1), ForwardBackward(0.3), Informed(1), Informed(1, 0.0), SelfCorrection(1, 0.5)],
    ids=["gibbs", "forward_backward", "informed", "worst", "self_correction"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["absorbing", "uniform"])
def test_draws_fit_the_enumerated_law(rule: Predictor, name: str) -> None:
    _, view = law_and_view(name, 2)
    sampler = reverse("normalised", 2, correctors=(rule,))
    law = on_tokens(law_of(sampler, view), view.vocab)
    assert chi_square(sampler.draw(view, Canvas.blank(4000, 2), Rng(5)).tokens_BL, law) > 1e-3


def test_informed_takes_the_worst_token() -> None:
    """τ = 0: of two written tokens the one that the others' law likes less, by its lead, is drawn anew."""
    joint = torch.full((3, 3), 0.01, dtype=torch.float64)
    joint[0, 0], joint[1, 1], joint[0, 1] = 0.6, 0.3, 0.03
    from graphs.absorbing import Absorbing
    from graphs.noise import LogLinear

    view = ExactView(Absorbing(3), LogLinear(1e-9), joint)
    state = start(view, Canvas.blank(1, 2), torch.tensor([[0, 1]]))
    _, law = next(walk(view, state, [Turn(Informed(1, 0.0), 0, 1e-6, 1e-6)]))
    assert law.choice is not None and int(law.choice.score_R.argmax()) == 1
    p_N = law.target(torch.tensor([1])).exp()[0]
    assert p_N[1] == 0 and float(p_N[0] / p_N.sum()) > 0.9


def test_self_correction_changes_k_at_most() -> None:
    _, view = law_and_view("uniform", 3)
    x_NL = every_state(4, 3)
    state = start(view, Canvas.blank(len(x_NL), 3), x_NL)
    for k in (1, 2):
        plan = [Turn(SelfCorrection(k, 1.0), stage, TIME, TIME) for stage in range(2)]
        after = drive(walk(view, state, plan), Rng(k), view).x_BL
        changed_B = (after != x_NL).sum(-1)
        assert int(changed_B.max()) == k


def test_self_correction_leaves_masks_to_the_predictor() -> None:
    """On a mixture tokens are replaced by tokens: no objection is a mask, and what is masked stays so."""
    p0 = torch.from_numpy(oracle.random_joint(4, 3, seed=7))
    view = ExactView(Mixture(4, 0.3), LogLinear(1e-3), p0)
    x_NL = every_state(5, 3)
    state = start(view, Canvas.blank(len(x_NL), 3), x_NL)
    plan = [Turn(SelfCorrection(2, 0.5), stage, TIME, TIME) for stage in range(2)]
    after = drive(walk(view, state, plan), Rng(1), view).x_BL
    assert torch.equal(after == 4, x_NL == 4)
    assert bool((after != x_NL).any())


@pytest.mark.parametrize("rule", [Gibbs(), ForwardBackward(), Informed(2), SelfCorrection()], ids=lambda r: r.type_name)
@pytest.mark.parametrize("name", ["absorbing", "uniform"])
def test_given_tokens_stay_and_calls_are_one_a_turn(rule: Any, name: str) -> None:
    _, view = law_and_view(name, 3)
    canvas = Canvas.blank(30, 3)
    canvas.fixed_BL[::2, 1], canvas.x_BL[::2, 1] = True, 2
    sampler = reverse("normalised", 4, correctors=(rule,))
    whole = sampler.draw(view, canvas, Rng(4))
    assert bool((whole.tokens_BL[::2, 1] == 2).all())
    assert whole.calls <= 5 + 4
    part = Canvas(canvas.x_BL[3:9], canvas.fixed_BL[3:9], canvas.seq_B[3:9])
    view.chunk = 3
    assert torch.equal(sampler.draw(view, part, Rng(4)).tokens_BL, whole.tokens_BL[3:9])


@pytest.mark.parametrize(
    "rule,last", [(Dndm([3, 3]), 0.3), (Dndm([1, 4]), 0.2), (Remdm("loop", 0.0), 0.3), (Remdm("loop", 0.0), 0.7)]
)
@pytest.mark.parametrize("corrector", [Dfm(0.3), ForwardBackward(0.4)], ids=lambda r: r.type_name)
def test_correctors_hear_the_noise_at_which_the_text_is(rule: Predictor, last: float, corrector: Predictor) -> None:
    """One position, enumerated, the walk stopped on its way: correctors leave its law as it is, at a pace not the
    schedule's too."""
    _, view = law_and_view("absorbing", 1)
    plain, corrected = (
        law_of(Reverse(rule, Uniform(last), 5, correctors=some, cleanup=False), view) for some in ((), (corrector,))
    )
    assert 0.02 < float(plain[-1]) < 0.98
    assert float((corrected - plain).abs().max()) < 1e-9
