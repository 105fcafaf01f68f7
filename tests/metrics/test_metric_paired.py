"""Paired comparisons against enumeration and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from workbench.metrics.paired import compare_figures, compare_right, mcnemar


def test_mcnemar_is_the_share_of_coin_sequences_as_uneven():
    for n in range(11):
        heads = [sum(coins) for coins in itertools.product((0, 1), repeat=n)]
        for gained in range(n + 1):
            uneven = sum(abs(2 * h - n) >= abs(2 * gained - n) for h in heads)
            assert mcnemar(gained, n - gained) == pytest.approx(uneven / 2**n, rel=1e-14)


def test_mcnemar_is_scipys_binomial_test_at_size():
    stats = pytest.importorskip("scipy.stats")
    for gained, lost in ((0, 40), (13, 29), (700, 612), (5021, 5021), (3000, 3300)):
        assert mcnemar(gained, lost) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-9)
    assert 0 < mcnemar(300, 1300) < 1e-100
    with pytest.raises(ValueError, match="not negative"):
        mcnemar(-1, 2)


def test_a_pair_counts_what_differs_and_forgets_what_does_not():
    ours = np.array([1, 1, 1, 0, 0, 1, 1, 1], dtype=bool)
    theirs = np.array([1, 0, 0, 0, 1, 0, 0, 1], dtype=bool)
    found = compare_right(ours, theirs)
    assert (found.n, found.gained, found.lost) == (8, 4, 1)
    assert (found.accuracy, found.baseline) == (0.75, 0.375)
    assert found.p == pytest.approx(2 * (1 + 5) / 32)
    gap = found.difference
    assert gap.value == pytest.approx(0.375)
    assert gap.low < 0.375 < gap.high
    exact = math.sqrt(np.var(ours.astype(float) - theirs) / 8)  # what a bootstrap over items converges to
    assert gap.se == pytest.approx(exact, rel=0.06)


def test_pairing_takes_out_what_items_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 400)
    gap = compare_figures(hard + 0.3 + rng.normal(0, 0.5, 400), hard)
    assert gap.low < 0.3 < gap.high
    assert gap.high - gap.low < 0.12


def test_other_items_are_refused():
    with pytest.raises(ValueError, match="same items"):
        compare_right(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="all numbers"):
        compare_figures(np.array([1.0, np.nan]), np.zeros(2))
