"""Self-BLEU is sacrebleu's own, text by text, and its error that of leaving texts out."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.metrics.base import Drawn, Evidence, Texts
from workbench.metrics.self_bleu import SelfBleu, self_bleu, subsample
from workbench.metrics.statistics import jackknife

WORDS = ["the", "people", "of", "a", "state,", "it's", "free", "union.", "law", "& order"]


@pytest.fixture
def bleu():
    return pytest.importorskip("sacrebleu", reason="self-BLEU needs sacrebleu").BLEU(effective_order=True)


def written(seed: int, count: int, shortest: int = 1, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, len(WORDS) + 1)
    sizes = rng.integers(shortest, longest + 1, size=count)
    return [" ".join(rng.choice(WORDS, size=size, p=p / p.sum())) for size in sizes]


def evidence(samples: list[str], real: list[str]) -> Evidence:
    tokens = [np.zeros((len(texts), 1), np.int64) for texts in (samples, real)]
    return Evidence(samples=Drawn(tokens[0], samples), real=Texts(tokens[1], real))


def direct(bleu, texts: list[str]) -> float:
    return float(np.mean([bleu.sentence_score(t, texts[:i] + texts[i + 1 :]).score for i, t in enumerate(texts)]))


@pytest.mark.parametrize(
    "texts",
    [
        written(0, 9),
        written(1, 12, longest=6),
        [*written(2, 5), *written(2, 2), "nothing in common", "", "  trailing \n\n"],
        ["one", "two"],
        ["a b c d e f g"] * 3,
    ],
    ids=["prose", "short", "copies and empty", "disjoint", "equal"],
)
def test_it_is_that_of_its_package(bleu, texts: list[str]) -> None:
    found = self_bleu(texts)
    assert found.value == pytest.approx(direct(bleu, texts))
    if len(texts) < 3:
        assert found.low is None
        return
    without = np.array([direct(bleu, texts[:i] + texts[i + 1 :]) for i in range(len(texts))])
    assert found.se == pytest.approx(jackknife(0, without).se)


def test_copies_score_a_hundred(bleu) -> None:
    assert self_bleu(["the people of the state"] * 4).value == pytest.approx(100)


def test_both_sides_read_as_many_texts(bleu) -> None:
    samples, real = written(3, 20), written(4, 9)
    (value,) = SelfBleu(texts=12)(evidence(samples, real))
    assert value.n == 9
    assert value.value == pytest.approx(direct(bleu, subsample(samples, 9)))
    assert value.real == pytest.approx(direct(bleu, real))
    assert "9 of 20 samples, 9 of 9 real texts" in value.method
    assert SelfBleu(texts=5)(evidence(samples, real))[0].n == 5


def test_a_subsample_holds_each_text_once() -> None:
    texts = [str(i) for i in range(30)]
    chosen = subsample(texts, 12)
    assert len(set(chosen)) == 12 and chosen == sorted(chosen, key=int)
    assert chosen == subsample(texts, 12)


def test_a_single_text_is_told(bleu) -> None:
    (value,) = SelfBleu()(evidence(["the people"], written(4, 9)))
    assert value.value is None and "two samples" in value.error


def test_what_is_not_installed_is_told(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkbenchError) as caught:
        SelfBleu()(evidence(["a"], ["a"]))
    assert "self_bleu needs sacrebleu" in str(caught.value)
    assert 'pip install "sedd-workbench[eval]"' in str(caught.value)
