"""Diversity figures against plain Python counting and hand cases; what they say of loops."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from workbench.metrics.base import Drawn, Evidence, Texts
from workbench.metrics.diversity import (
    BigramEntropy,
    Distinct,
    KnownWords,
    Repetition,
    UnigramEntropy,
    distinct,
    entropy_by_sequence,
    ngram_ids,
    repetition_by_sequence,
    whole_words,
    word_set,
)


def evidence(samples: np.ndarray, real: np.ndarray, texts: tuple[list[str], list[str]] = ([], []), **rest: object):
    return Evidence(samples=Drawn(samples, texts[0]), real=Texts(real, texts[1]), **rest)


def grams(row: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


tokens = st.integers(2, 5).flatmap(
    lambda rows: st.integers(4, 12).flatmap(
        lambda length: st.lists(
            st.lists(st.sampled_from([0, 1, 2, 50256, 2**40]), min_size=length, max_size=length),
            min_size=rows,
            max_size=rows,
        )
    )
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(tokens, st.integers(1, 4))
def test_counts_are_those_of_plain_python(rows: list[list[int]], n: int) -> None:
    array = np.array(rows, dtype=np.int64)
    per_row = [Counter(grams(row, n)) for row in rows]
    total = len(rows[0]) - n + 1
    assert repetition_by_sequence(array, n) == pytest.approx([1 - len(c) / total for c in per_row])
    assert entropy_by_sequence(array, n) == pytest.approx(
        [-sum(k / total * math.log(k / total) for k in c.values()) for c in per_row]
    )
    everything = [set(grams(row, n)) for row in rows]
    found = distinct(array, n)
    assert found.value == pytest.approx(len(set.union(*everything)) / (total * len(rows)))
    without = [
        len(set.union(*(s for j, s in enumerate(everything) if j != i))) / (total * (len(rows) - 1))
        for i in range(len(rows))
    ]
    spread = np.sqrt((len(rows) - 1) / len(rows) * np.square(np.array(without) - np.mean(without)).sum())
    assert found.se == pytest.approx(spread)


def test_limits() -> None:
    loop, chain = np.full((3, 16), 9), np.tile(np.arange(16), (3, 1))
    assert entropy_by_sequence(loop).tolist() == [0, 0, 0]
    assert entropy_by_sequence(chain) == pytest.approx([math.log(16)] * 3)
    assert repetition_by_sequence(loop, 4) == pytest.approx([1 - 1 / 13] * 3)
    assert repetition_by_sequence(chain, 2).tolist() == [0, 0, 0]
    assert distinct(chain, 2).value == pytest.approx(15 / 45)
    with pytest.raises(ValueError, match="no 4-grams"):
        ngram_ids(np.zeros((2, 3), np.int64), 4)


def test_values_stand_beside_real_text_with_intervals() -> None:
    rng = np.random.default_rng(0)
    looping, real = rng.integers(0, 4, (40, 32)), rng.integers(0, 200, (40, 32))
    given_evidence = evidence(looping, real)
    for metric in (UnigramEntropy(), BigramEntropy()):
        (found,) = metric(given_evidence)
        assert found.low < found.value < found.high < found.real_low < found.real < found.real_high
        assert found.unit == "nats"
    names = {value.name: value for value in Repetition()(given_evidence) + Distinct()(given_evidence)}
    assert list(names) == ["rep_2", "rep_3", "rep_4", "distinct_2"]
    assert names["rep_2"].low > names["rep_2"].real_high
    assert names["distinct_2"].high < names["distinct_2"].real_low
    assert Repetition((5,)).columns() == ("rep_5",)


def test_words_are_cut_free_and_stripped() -> None:
    text = "ring the «Bell», 1976 well-known don't th3 end"
    assert whole_words(text) == [
        "the",
        "bell",
        "well-known",
        "don't",
        "th3",
    ]
    assert whole_words(" all of it ") == ["all", "of", "it"]
    assert whole_words("") == whole_words("one") == []
    assert word_set(["The bell. 12", "(the) knell"]) == {"the", "bell", "knell"}


def test_known_words() -> None:
    known = word_set(["The people of the Union, and the States."])
    samples = [" the peopel of Union ", " zxq states "]
    real = [" of the people ", " and the union "]
    found = KnownWords()(evidence(np.zeros((2, 4)), np.zeros((2, 4)), (samples, real), known_words=known))[0]
    assert found.value == pytest.approx(4 / 6)
    assert found.real == 1.0


def test_speed_of_a_full_table() -> None:
    """256 sequences of 256 tokens with their intervals take seconds at most."""
    rng = np.random.default_rng(1)
    given_evidence = evidence(rng.integers(0, 1024, (256, 256)), rng.integers(0, 1024, (256, 256)))
    started = time.process_time()
    for metric in (UnigramEntropy(), BigramEntropy(), Repetition(), Distinct()):
        metric(given_evidence)
    assert time.process_time() - started < 10
