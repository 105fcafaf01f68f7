"""Predictors beyond SEDD's own: enumerated laws of the shipping loop against Bayes, orders of accuracy, draws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import Cosine, LogLinear
from samplers.base import Canvas, Predictor
from samplers.enumeration import every_state, law_of, outcomes
from samplers.exact import ExactView, IidView, zipf
from samplers.predictors.analytic import Analytic
from samplers.predictors.dndm import Dndm
from samplers.predictors.first_hitting import FirstHitting
from samplers.predictors.normalised import Normalised
from samplers.predictors.remdm import Remdm
from samplers.predictors.runge_kutta import ThetaRk2
from samplers.predictors.trapezoidal import Trapezoidal
from samplers.reverse import Reverse, Turn, start, walk
from samplers.times import Uniform
from tests import oracle
from tests.samplers.toys import chi_square, law_and_view, on_tokens, reverse
from workbench.core.rng import Rng


def distance(rule: Predictor, steps: int, length: int = 2, **settings: Any) -> float:
    """Total variation of a whole sampler's law to the truth."""
    p0, view = law_and_view("absorbing", length)
    return oracle.total_variation(on_tokens(law_of(reverse(rule, steps, **settings), view), view.vocab), p0)


# --- ReMDM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant,eta", [("cap", 0.0), ("cap", 0.1), ("cap", 1.0), ("rescale", 0.5), ("rescale", 1.0)])
@pytest.mark.parametrize("t,s", [(0.9, 0.6), (0.3, 0.2), (0.2, 0.0)])
def test_remdm_keeps_the_marginals_of_masking(variant: Any, eta: float, t: float, s: float) -> None:
    """One position with its clean token known: x_t drawn by the noise, one step, x_s is distributed as by the noise."""
    vocab, token = 3, 1
    joint = torch.full((vocab,), 1e-300, dtype=torch.float64)
    joint[token] = 1.0
    view = ExactView(Absorbing(vocab), LogLinear(1e-9), joint)
    x_NL = torch.tensor([[token], [vocab]])
    _, law = next(walk(view, start(view, Canvas.blank(2, 1), x_NL), [Turn(Remdm(variant, eta), 0, t, s)]))
    after_NS = outcomes(start(view, Canvas.blank(2, 1), x_NL), law, view.graph)[:, 0]
    kept_t, kept_s = (float(torch.exp(-view.sigma(torch.tensor([time], dtype=torch.float64)))) for time in (t, s))
    got_S = kept_t * after_NS[0] + (1 - kept_t) * after_NS[1]
    assert float(got_S[token]) == pytest.approx(kept_s, abs=1e-12)
    assert float(got_S[vocab]) == pytest.approx(1 - kept_s, abs=1e-12)


def test_remdm_without_remasking_is_the_plain_walk() -> None:
    _, view = law_and_view("absorbing", 2)
    plain = law_of(reverse("normalised", 7), view)
    assert float((law_of(reverse(Remdm("cap", 0.0), 7), view) - plain).abs().max()) < 1e-12
    assert float((law_of(reverse(Remdm("cap", 0.3), 7), view) - plain).abs().max()) > 1e-4


@pytest.mark.parametrize("rule", [Remdm("cap", 0.02), Remdm("rescale", 0.02)], ids=["cap", "rescale"])
def test_remdm_is_near_the_truth(rule: Remdm) -> None:
    """Little taken back at a time leaves little error; given tokens are not taken back."""
    assert distance(rule, 64) < 0.01
    p0, view = law_and_view("absorbing", 2)
    canvas = Canvas.blank(1, 2)
    canvas.fixed_BL[0, 0], canvas.x_BL[0, 0] = True, 2
    got = on_tokens(law_of(reverse(rule, 64), view, canvas), view.vocab)
    assert oracle.total_variation(got, oracle.restrict(p0, {0: 2})) < 0.01


def test_remdm_takes_back_in_its_loop() -> None:
    """Drawn: with the loop more rows move than there are positions; in the loop about 1/10 stays masked."""
    _, view = law_and_view("absorbing", 3)
    sampler = reverse(Remdm("loop", 0.1), 60)
    samples = sampler.draw(view, Canvas.blank(300, 3), Rng(4))
    assert sum(samples.trace["moved"]) > 1.5 * 900
    p0, view = law_and_view("absorbing", 2)
    law = on_tokens(law_of(reverse(Remdm("loop", 0.02), 60), view), 4)
    assert oracle.total_variation(law, p0) < 0.05


def test_remdm_by_confidence_fits_its_enumerated_law() -> None:
    """Memory of drawn probabilities in the draw and in the enumeration alike."""
    generator = torch.Generator().manual_seed(1)
    view = ExactView(Absorbing(2), LogLinear(1e-9), torch.rand(2, 2, generator=generator, dtype=torch.float64) + 0.1)
    sampler = Reverse(Remdm("conf"), Uniform(1e-6), 3)
    law = on_tokens(law_of(sampler, view), 2)
    tokens_BL = sampler.draw(view, Canvas.blank(6000, 2), Rng(5)).tokens_BL
    assert chi_square(tokens_BL, law) > 1e-3
    assert oracle.total_variation(law, on_tokens(law_of(reverse("normalised", 3), view), 2)) > 1e-3


# --- first hitting and DNDM -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3])
def test_first_hitting_is_exact(length: int) -> None:
    assert distance(FirstHitting(), 1, length) < 1e-12


def test_first_hitting_is_exact_around_given_tokens() -> None:
    p0, view = law_and_view("absorbing", 3)
    for fixed in ({0: 1}, {2: 3}, {1: 2}, {0: 1, 2: 0}):
        canvas = Canvas.blank(1, 3)
        for at, token in fixed.items():
            canvas.fixed_BL[0, at], canvas.x_BL[0, at] = True, token
        got = on_tokens(law_of(reverse(FirstHitting(), 1), view, canvas), view.vocab)
        assert oracle.total_variation(got, oracle.restrict(p0, fixed)) < 1e-12


def test_first_hitting_is_the_limit_of_many_steps() -> None:
    """χ² of drawn texts against the law of a long walk; a block of all positions draws them independently."""
    p0, view = law_and_view("absorbing", 3)
    limit = on_tokens(law_of(reverse("normalised", 512), view), view.vocab)
    samples = reverse(FirstHitting(), 1).draw(view, Canvas.blank(6000, 3), Rng(6))
    assert samples.calls == 3 and sum(samples.trace["moved"]) == 18_000
    assert chi_square(samples.tokens_BL, limit) > 1e-3
    apart = on_tokens(law_of(reverse(FirstHitting(3), 1), view), view.vocab)
    margins = [p0.sum(tuple({0, 1, 2} - {at})) for at in range(3)]
    np.testing.assert_allclose(apart, np.einsum("i,j,k->ijk", *margins), atol=1e-12)


def test_dndm_is_the_plain_walk_with_times_drawn_ahead() -> None:
    """Enumerated with the law of its times, and drawn with times from the start; calls only where a time falls."""
    _, view = law_and_view("absorbing", 2)
    law = law_of(reverse(Dndm(), 5), view)
    assert float((law - law_of(reverse("normalised", 5), view)).abs().max()) < 1e-12
    samples = reverse(Dndm(), 5).draw(view, Canvas.blank(5000, 2), Rng(7))
    assert chi_square(samples.tokens_BL, on_tokens(law, view.vocab)) > 1e-3
    beta = reverse(Dndm([3, 3]), 40)
    samples = beta.draw(view, Canvas.blank(5000, 2), Rng(8))
    assert chi_square(samples.tokens_BL, on_tokens(law_of(beta, view), view.vocab)) > 1e-3
    share = np.cumsum(samples.trace["moved"]) / 10_000
    assert share[39] == 1 and share[19] == pytest.approx(0.5, abs=0.02) and share[7] < 0.08
    one = reverse(Dndm(), 200).draw(view, Canvas.blank(1, 2), Rng(9))
    assert one.calls <= 2


# --- θ-trapezoidal, θ-RK-2 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("length", [1, 2])
def test_trapezoidal_is_of_second_order(theta: float, length: int) -> None:
    """The error falls fourfold when the steps double."""
    errors = errors_of(Trapezoidal(theta), length)
    for coarse, fine in itertools.pairwise(errors):
        assert 3.3 < coarse / fine < 4.7


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("length,falls", [(1, (3.3, 4.7)), (2, (1.8, 2.6))])
def test_rk2_is_of_second_order_for_one_position_only(theta: float, length: int, falls: tuple[float, float]) -> None:
    """Fourfold for one position, twofold for a pair: what is written in one step is written independently."""
    errors = errors_of(ThetaRk2(theta), length)
    for coarse, fine in itertools.pairwise(errors):
        assert falls[0] < coarse / fine < falls[1]
    assert length == 1 or errors[-1] > 3 * errors_of(Trapezoidal(theta), length)[-1]


def errors_of(rule: Predictor, length: int) -> list[float]:
    """Distances to the noised law at t = 0.3 after 16, 32, 64 steps, by a law so mild that nothing is clamped."""
    p0 = oracle.random_joint(4, length, seed=7, concentration=20.0)
    view = ExactView(Absorbing(4), Cosine(0.05), torch.from_numpy(p0))
    due = view.tables(float(view.noise.total(torch.tensor(0.3, dtype=torch.float64))))[0]
    whole = view.tables(float(view.noise.total(torch.tensor(1.0, dtype=torch.float64))))[0]
    errors = []
    for steps in (16, 32, 64):
        sampler = Reverse(rule, Uniform(0.3), steps, cleanup=False)
        errors.append(float((_from(sampler, view, whole) - due).abs().sum()) / 2)
    print(f"{rule.type_name}, {length} positions: {errors}")
    return errors


def _from(sampler: Reverse, view: ExactView, law: torch.Tensor) -> torch.Tensor:
    """The law of a walk begun by ``law`` in place of the end law."""
    from samplers.enumeration import enumerate_walk

    x_NL = every_state(view.graph.states, view.length)
    state = start(view, Canvas.blank(len(x_NL), view.length), x_NL)
    return enumerate_walk(sampler.walk(view, state), law.reshape(-1), view.graph)


def test_trapezoidal_beats_one_look_at_equal_calls() -> None:
    assert distance(Trapezoidal(), 32) < distance(Normalised(), 64)


def test_trapezoidal_says_what_it_clamps() -> None:
    """Two steps from t = 1 extrapolate too far; many short ones hardly."""
    _, view = law_and_view("absorbing", 2)
    few, many = (
        sum(reverse(Trapezoidal(), n).draw(view, Canvas.blank(200, 2), Rng(1)).trace["clipped"]) for n in (2, 200)
    )
    assert few > many >= 0


# --- thinning --------------------------------------------------------------------------------------------------------


class Hot(ExactView):
    """Scores that sum to more than they should at some rows: what a network's may."""

    def look(self, x_BL, sigma_B, told_B=None):
        look = super().look(x_BL, sigma_B)
        exact = look.log_score

        def log_score(rows_R):
            out_RS = exact(rows_R)
            out_RS[:, :-1] += 0.3 * torch.sin(rows_R.double())[:, None]
            return out_RS

        look.log_score = log_score
        return look


def test_thinning_draws_the_same_tokens() -> None:
    """Bit for bit where the bound holds; the law is the bounded one where it does not, and the excess is counted."""
    p0, _ = law_and_view("absorbing", 3)
    view = Hot(Absorbing(4), LogLinear(1e-6), torch.from_numpy(p0))
    whole = reverse(Analytic(), 16).draw(view, Canvas.blank(400, 3), Rng(2))
    thinned = reverse(Analytic(thin=1.5), 16).draw(view, Canvas.blank(400, 3), Rng(2))
    assert torch.equal(whole.tokens_BL, thinned.tokens_BL)
    short = reverse(Analytic(thin=1.0), 16)
    samples = short.draw(view, Canvas.blank(6000, 3), Rng(3))
    assert sum(samples.trace["clipped"]) > 0
    assert chi_square(samples.tokens_BL, on_tokens(law_of(short, view), 4)) > 1e-3


def test_thinning_asks_only_where_something_is_proposed() -> None:
    view = IidView(Absorbing(50), LogLinear(), zipf(50), length=8)
    thinned = reverse(Analytic(thin=1.2), 400).draw(view, Canvas.blank(1, 8), Rng(0))
    whole = reverse(Analytic(), 400).draw(view, Canvas.blank(1, 8), Rng(0))
    assert torch.equal(thinned.tokens_BL, whole.tokens_BL)
    assert thinned.calls <= 20 < 200 < whole.calls


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Remdm("cap", 0.1), Remdm("conf"), FirstHitting(), FirstHitting(2), Dndm(), Dndm([2, 5]), Trapezoidal(0.4),
        ThetaRk2(0.4), Analytic(1.2),
    ],
    ids=["cap", "conf", "first_hitting", "block", "dndm", "beta", "trapezoidal", "rk2", "thinned"],
)
def test_a_text_hears_neither_its_batch_nor_its_chunks(rule: Predictor) -> None:
    _, view = law_and_view("absorbing", 3)
    canvas = Canvas.blank(30, 3)
    canvas.fixed_BL[::3, 1], canvas.x_BL[::3, 1] = True, 2
    whole = reverse(rule, 6).draw(view, canvas, Rng(3)).tokens_BL
    part = Canvas(canvas.x_BL[7:12], canvas.fixed_BL[7:12], canvas.seq_B[7:12])
    view.chunk = 3
    assert torch.equal(reverse(rule, 6).draw(view, part, Rng(3)).tokens_BL, whole[7:12])
    assert bool((whole[::3, 1] == 2).all())
