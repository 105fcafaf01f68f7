"""Pooled frequencies against plain counting, known laws and leaving sequences out one by one."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from workbench.core.spec import misfits, resolve
from workbench.metrics.base import Drawn, Evaluation, Evidence, Texts
from workbench.metrics.frequencies import NgramKL, ZipfSlope, kl_estimate, zipf_slope
from workbench.metrics.statistics import jackknife

VOCAB = 30


def evidence(samples: np.ndarray, real: np.ndarray) -> Evidence:
    return Evidence(samples=Drawn(samples, []), real=Texts(real, []), unigram=np.zeros(VOCAB, np.int64))


def rows(seed: int, count: int = 11, length: int = 13) -> np.ndarray:
    return np.minimum(np.random.default_rng(seed).geometric(0.15, size=(count, length)), VOCAB) - 1


def plain_kl(p_NL: np.ndarray, q_NL: np.ndarray) -> float:
    p, q = Counter(p_NL.ravel().tolist()), Counter(q_NL.ravel().tolist())
    laws = [((p[v] + 1) / (p_NL.size + VOCAB), (q[v] + 1) / (q_NL.size + VOCAB)) for v in range(VOCAB)]
    return sum(a * math.log(a / b) for a, b in laws)


def test_kl_is_that_of_plain_counting() -> None:
    own, real = rows(0), rows(1, 8)
    (value,) = NgramKL()(evidence(own, real))
    assert value.name == "kl_unigram"
    assert value.value == pytest.approx(plain_kl(own, real))
    assert value.real == pytest.approx(plain_kl(real[::2], real[1::2]))
    assert value.extra["half"] == pytest.approx(plain_kl(own[::2], real[1::2]))
    assert NgramKL()(evidence(real, real))[0].value == pytest.approx(0, abs=1e-12)


def test_its_error_is_that_of_leaving_each_sequence_out() -> None:
    own, real = rows(0), rows(1, 8)
    of_own = [plain_kl(np.delete(own, i, axis=0), real) for i in range(len(own))]
    of_real = [plain_kl(own, np.delete(real, i, axis=0)) for i in range(len(real))]
    expected = math.hypot(*(jackknife(0, np.array(without)).se for without in (of_own, of_real)))
    assert kl_estimate(own, real, VOCAB).se == pytest.approx(expected)


def test_its_error_is_what_it_spreads_by() -> None:
    """Samples of another law than real text: the error found is that seen over independent sets."""
    found = [
        kl_estimate(np.minimum(rows(2 * i, 60, 20), 12), rows(2 * i + 1, 60, 20), VOCAB) for i in range(150)
    ]  # fmt: skip
    assert np.mean([one.se for one in found]) == pytest.approx(np.std([one.value for one in found]), rel=0.2)


def test_one_sequence_a_side_leaves_no_interval() -> None:
    (value,) = NgramKL()(evidence(rows(0, 1), rows(1, 1)))
    assert value.low is None and value.real is None
    assert value.value == pytest.approx(plain_kl(rows(0, 1), rows(1, 1)))


@pytest.mark.parametrize("slope", [-0.7, -1.0, -1.5])
def test_the_slope_of_an_exact_law_is_found(slope: float) -> None:
    counts = np.rint(1e9 * np.arange(1, 3001) ** slope).astype(np.int64)
    assert zipf_slope(np.random.default_rng(0).permutation(counts), 10, 1000) == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize(("first", "last"), [(1, 5), (3, 1000)])
def test_slope_and_error_are_those_of_plain_counting(first: int, last: int) -> None:
    def plain(tokens: np.ndarray) -> float:
        counts = sorted(Counter(tokens.ravel().tolist()).values(), reverse=True)[first - 1 : last]
        return stats.linregress(np.log(np.arange(first, first + len(counts))), np.log(counts)).slope

    own, real = rows(0), rows(1, 8) + 1000
    (value,) = ZipfSlope(first=first, last=last)(evidence(own, real))
    assert value.value == pytest.approx(plain(own))
    assert value.real == pytest.approx(plain(real))
    without = np.array([plain(np.delete(own, i, axis=0)) for i in range(len(own))])
    assert value.se == pytest.approx(jackknife(0, without).se)
    assert ("samples: to rank" in value.note) == (last == 1000)


def test_too_few_kinds_are_told() -> None:
    (value,) = ZipfSlope()(evidence(np.zeros((4, 5), np.int64), rows(1)))
    assert value.value is None and "1 kinds of tokens in samples" in value.error


def test_ranks_that_make_no_line_are_a_problem_of_the_recipe() -> None:
    asked = {"metrics": [{"type": "zipf_slope", "first": 10, "last": 10}], "samples": 8}
    node, problems = resolve(Evaluation, asked, "evaluations.final")
    assert not problems
    assert [str(problem) for problem in misfits(node)] == [
        "evaluations.final.metrics[0].last: a slope needs two ranks; take last above first"
    ]
