"""Diversity of continuations by counting: what is given does not count, prompts are the units."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from workbench.metrics.base import Continued, Drawn, Evidence, Texts
from workbench.metrics.comparison import paired
from workbench.metrics.written import ContinuationDiversity


def continued(drawn: np.ndarray, real: np.ndarray, before: int, after: int = 0) -> Continued:
    texts = [""] * len(real)
    each = len(drawn) // len(real)
    return Continued(before, after, each, Drawn(drawn, []), Texts(real, texts), texts, texts * each, texts, "key")


def rows(seed: int, count: int, length: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, size=(count, length))


def entropy(row: list[int]) -> float:
    return -sum(k / len(row) * math.log(k / len(row)) for k in Counter(row).values())


def rep_2(row: list[int]) -> float:
    pairs = list(pairwise(row))
    return 1 - len(set(pairs)) / len(pairs)


@pytest.mark.parametrize(("before", "after"), [(1, 0), (4, 0), (3, 5)])
def test_the_written_part_alone_counts(before: int, after: int) -> None:
    drawn, real = rows(0, 12), rows(1, 4)
    drawn[:, :before] = 9
    values = ContinuationDiversity()(Evidence(continuations={"k": continued(drawn, real, before, after)}))
    assert [value.name for value in values] == ["continuation_entropy_k", "continuation_rep_2_k"]
    for value, figure in zip(values, (entropy, rep_2), strict=True):
        own, beside = ([figure(row[before : 12 - after]) for row in array.tolist()] for array in (drawn, real))
        assert value.value == pytest.approx(np.mean(own))
        assert value.real == pytest.approx(np.mean(beside))
        assert value.n == 4
        assert value.units.values == pytest.approx(np.reshape(own, (4, 3)).mean(axis=1), abs=1e-5)


def test_runs_are_compared_prompt_by_prompt() -> None:
    one, other = (
        ContinuationDiversity()(Evidence(continuations={"k2": continued(rows(seed, 12), rows(1, 4), 2)}))
        for seed in (2, 3)
    )
    for a, b in zip(one, other, strict=True):
        assert paired(a, b).value == pytest.approx(a.value - b.value, abs=1e-5)
        assert paired(a, b).n == 4


def test_sequences_of_one_prompt_are_one_unit() -> None:
    """Copies within a prompt add nothing: the error is that of as many prompts."""
    drawn, real = rows(4, 30), rows(1, 30)
    single = continued(drawn, real, 2)
    copied = replace(continued(np.repeat(drawn, 5, axis=0), real, 2), each=5)
    a, b = (ContinuationDiversity()(Evidence(continuations={"k2": one}))[0] for one in (single, copied))
    assert (b.value, b.se) == (pytest.approx(a.value), pytest.approx(a.se))


def test_a_single_written_token_has_no_pairs() -> None:
    found = ContinuationDiversity()(Evidence(continuations={"k11": continued(rows(0, 4), rows(1, 4), 11)}))
    assert found[0].value == 0
    assert found[1].value is None and "no 2-grams" in found[1].error
