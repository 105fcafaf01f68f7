"""Penalties and annealing against their definitions, written out token by token; pace; both samplers take them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas, ShapeContext, Shaper
from samplers.enumeration import law_of
from samplers.exact import ExactNextToken, IidView, zipf
from samplers.left_to_right import LeftToRight
from samplers.penalties import Frequency, NoRepeatNgram, Repetition, counts
from samplers.reverse import Reverse
from samplers.shapers import Annealed, MinP, Nucleus, Temperature
from samplers.times import Uniform
from tests.samplers.toys import law_and_view, reverse
from workbench.core.rng import Rng

VOCAB, LENGTH = 5, 9
PENALTIES = [Frequency(2.0), Repetition(1.7), NoRepeatNgram(2), MinP(0.3), Annealed(Temperature(2.0), Nucleus(0.6))]


def world() -> tuple[torch.Tensor, ShapeContext]:
    """Two texts with masks (5) in them, every masked position a row; laws at random."""
    x_BL = torch.tensor([[0, 1, 5, 0, 1, 2, 5, 1, 5], [5, 4, 4, 5, 3, 4, 5, 3, 4]])
    rows_R = torch.nonzero((x_BL == VOCAB).reshape(-1)).squeeze(-1)
    generator = torch.Generator().manual_seed(0)
    log_p_RV = torch.randn(len(rows_R), VOCAB, generator=generator, dtype=torch.float64).log_softmax(-1)
    return log_p_RV, ShapeContext(x_BL, rows_R, x_BL != VOCAB, torch.tensor([0.25, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("window", [0, 1, 3])
def test_counts_and_penalties_are_their_definitions(window: int) -> None:
    log_p_RV, context = world()
    got = counts(log_p_RV, context, window)
    frequency, repetition = Frequency(1.5, window)(log_p_RV, context), Repetition(1.3, window)(log_p_RV, context)
    for r, row in enumerate(context.rows_R.tolist()):
        text, at = context.x_BL[row // LENGTH].tolist(), row % LENGTH
        near = [text[i] for i in range(LENGTH) if i != at and (not window or abs(i - at) <= window)]
        count = np.array([near.count(v) for v in range(VOCAB)])
        np.testing.assert_array_equal(got[r].numpy(), count)
        log_p = log_p_RV[r].numpy()
        for out, due in (
            (frequency[r], np.exp(log_p) / (1 + count) ** 1.5),
            (repetition[r], np.exp(np.where(count > 0, 1.3 * log_p, log_p))),
        ):
            np.testing.assert_allclose(out.exp().numpy(), due / due.sum(), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_no_ngram_is_written_twice(n: int) -> None:
    """A token is excluded exactly where some n-gram that holds it is settled around it and stands elsewhere too."""
    log_p_RV, context = world()
    out_RV = NoRepeatNgram(n)(log_p_RV, context)
    for r, row in enumerate(context.rows_R.tolist()):
        text, at = context.x_BL[row // LENGTH].tolist(), row % LENGTH
        grams = {tuple(text[i : i + n]) for i in range(LENGTH - n + 1) if VOCAB not in text[i : i + n]}
        banned = []
        for token in range(VOCAB):
            with_it = [*text[:at], token, *text[at + 1 :]]
            starts = range(max(0, at - n + 1), min(at, LENGTH - n) + 1)
            banned.append(any(tuple(with_it[i : i + n]) in grams for i in starts))
        if not all(banned):
            assert out_RV[r].isneginf().tolist() == banned, (text, at)
        else:
            torch.testing.assert_close(out_RV[r], log_p_RV[r])


def test_min_p_and_annealing() -> None:
    log_p_RV, context = world()
    p_RV = log_p_RV.exp()
    kept_RV = p_RV >= 0.3 * p_RV.amax(-1, keepdim=True) * (1 - 1e-12)
    assert torch.equal(torch.isfinite(MinP(0.3)(log_p_RV, context)), kept_RV)
    got_RV = Annealed(Temperature(2.0), Temperature(0.5), power=2.0)(log_p_RV, context)
    for r, row in enumerate(context.rows_R.tolist()):
        w = (0.25, 1.0)[row // LENGTH] ** 2
        torch.testing.assert_close(got_RV[r], (log_p_RV[r] * (w / 2 + (1 - w) / 0.5)).log_softmax(-1))
    clean = ShapeContext(context.x_BL, context.rows_R, context.settled_BL, torch.zeros(2, dtype=torch.float64))
    late_RV = Annealed(Nucleus(0.1), Temperature(0.5))(log_p_RV, clean)
    torch.testing.assert_close(late_RV, Temperature(0.5)(log_p_RV, clean))
    timeless = ShapeContext(context.x_BL, context.rows_R)
    torch.testing.assert_close(Annealed(Nucleus(0.1), Temperature(0.5))(log_p_RV, timeless), late_RV)


@pytest.mark.parametrize("shaper", PENALTIES, ids=lambda shaper: shaper.type_name)
def test_they_never_change_the_pace(shaper: Shaper) -> None:
    """How many masks are left has the same law with and without them."""
    _, view = law_and_view("absorbing", 2)
    for rule in ("analytic", "normalised"):
        plain, shaped = (law_of(reverse(rule, 4, shapers=more, cleanup=False), view) for more in ((), (shaper,)))
        for axis in (0, 1):
            assert float(shaped.sum(axis)[-1] - plain.sum(axis)[-1]) == pytest.approx(0, abs=1e-12)


def test_penalties_in_both_samplers() -> None:
    """No bigram twice left to right and, one token a step, in any order; frequency evens out a skewed law."""
    p_V = zipf(8)
    joint = p_V
    for _ in range(4):
        joint = joint.unsqueeze(-1) * p_V
    view = ExactNextToken(joint)
    tokens_BL = LeftToRight((NoRepeatNgram(2),)).draw(view, Canvas.blank(200, 5), Rng(1)).tokens_BL
    assert all(len(set(itertools.pairwise(row))) == 4 for row in tokens_BL.tolist())
    from samplers.predictors.first_hitting import FirstHitting

    any_order = IidView(Absorbing(8), LogLinear(), p_V, length=20)
    walk = Reverse(FirstHitting(), Uniform(), 1, shapers=(NoRepeatNgram(2),))
    twice = [20 - 1 - len(set(itertools.pairwise(row))) for row in
             walk.draw(any_order, Canvas.blank(40, 20), Rng(1)).tokens_BL.tolist()]  # fmt: skip
    assert sum(twice) <= 4  # a token between two others may make the same bigram on both sides, or have no choice left
    entropies = []
    for shapers in ((), (Frequency(3.0),)):
        tokens_BL = Reverse(FirstHitting(), Uniform(), 1, shapers=shapers).draw(
            any_order, Canvas.blank(60, 20), Rng(2)
        ).tokens_BL  # fmt: skip
        share_BV = torch.nn.functional.one_hot(tokens_BL, 8).double().mean(1)
        entropies.append(float(-(share_BV * share_BV.clamp_min(1e-300).log()).sum(-1).mean()))
    assert entropies[1] > entropies[0] + 0.15 and entropies[1] < math.log(8)
