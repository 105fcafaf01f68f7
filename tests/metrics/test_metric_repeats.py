"""Repeats within sequences against plain Python search and hand cases."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.metrics.base import Drawn, Evidence, Texts
from workbench.metrics.diversity import entropy_by_sequence
from workbench.metrics.repeats import (
    LongestRepeat,
    LowEntropyShare,
    Seen,
    longest_repeat_by_sequence,
    seen_by_sequence,
)


def evidence(samples: np.ndarray, real: np.ndarray) -> Evidence:
    return Evidence(samples=Drawn(samples, []), real=Texts(real, []))


def rows(kinds: int, count: int = 12, length: int = 17) -> np.ndarray:
    return np.random.default_rng(kinds).integers(kinds, size=(count, length))


@pytest.mark.parametrize("kinds", [2, 5, 40])
@pytest.mark.parametrize("span", [1, 3, 100])
def test_seen_is_that_of_plain_python(kinds: int, span: int) -> None:
    array = rows(kinds)
    truth = [sum(t in row[max(0, i - span) : i] for i, t in enumerate(row)) / len(row) for row in array.tolist()]
    assert seen_by_sequence(array, span) == pytest.approx(truth)


@pytest.mark.parametrize("kinds", [1, 2, 5, 40])
def test_longest_repeat_is_that_of_plain_python(kinds: int) -> None:
    def truth(row: list[int]) -> int:
        pairs = ((i, j) for j in range(len(row)) for i in range(j))
        return max(next((k for k in range(len(row) - j) if row[i + k] != row[j + k]), len(row) - j) for i, j in pairs)

    array = rows(kinds)
    assert longest_repeat_by_sequence(array).tolist() == [truth(row) for row in array.tolist()]


def test_no_repeat_is_zero_and_a_single_token_has_none() -> None:
    assert longest_repeat_by_sequence(np.array([[1, 2, 3], [256, 1, 0]])).tolist() == [0, 0]
    assert longest_repeat_by_sequence(np.array([[7]])).tolist() == [0]


def test_low_entropy_share_counts_below_the_real_quantile() -> None:
    real, samples = rows(40, 50), np.concatenate([rows(40, 3), np.zeros((1, 17), dtype=np.int64)])
    (value,) = LowEntropyShare(quantile=0.1)(evidence(samples, real))
    threshold = np.quantile(entropy_by_sequence(real), 0.1)
    assert value.value == pytest.approx((entropy_by_sequence(samples) < threshold).mean())
    assert value.value >= 0.25
    assert value.real == pytest.approx((entropy_by_sequence(real) < threshold).mean())


def test_a_loop_is_told_from_real_text() -> None:
    loop, real = np.tile([1, 2], (4, 10)), rows(1000, 8, 20)
    seen = Seen(spans=(1, 2))(evidence(loop, real))
    assert [v.name for v in seen] == ["seen_1", "seen_2"]
    assert [v.value for v in seen] == pytest.approx([0, 0.9])
    (longest,) = LongestRepeat()(evidence(loop, real))
    assert longest.value == 18
    assert longest.real == pytest.approx(longest_repeat_by_sequence(real).mean())
