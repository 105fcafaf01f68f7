"""Figures of a judge by hand, MAUVE by its own package, comparisons that cover what they should."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from workbench.core.errors import WorkbenchError
from workbench.metrics.base import Continued, Drawn, Evidence, Texts
from workbench.metrics.comparison import (
    OtherJudge,
    equivalence,
    holm,
    paired,
    paired_bootstrap,
    smallest_detectable,
)
from workbench.metrics.contract import ByLetter, example_evidence
from workbench.metrics.judge import Passage
from workbench.metrics.judged import ContinuationNats, JudgePerplexity
from workbench.metrics.mauve import ContinuationMauve, Mauve, states
from workbench.metrics.statistics import Estimate, by_normal
from workbench.metrics.value import Units, Value
from workbench.metrics.written import ContinuationDiversity


def test_both_perplexities_by_hand() -> None:
    texts = ["aab", "the people of it"]
    tokens = np.zeros((2, 3), np.int64)
    evidence = Evidence(samples=Drawn(tokens, texts), real=Texts(tokens, texts), judge=ByLetter())
    whole, mean = JudgePerplexity()(evidence)
    nats = [[math.log(2 + ord(letter) % 8) for letter in text] for text in texts]
    assert whole.value == pytest.approx(math.exp(sum(map(sum, nats)) / 19))
    assert mean.value == pytest.approx(math.exp(np.mean([np.mean(one) for one in nats])))
    assert whole.value == whole.real
    assert whole.extra["bits_per_byte"] == pytest.approx(sum(map(sum, nats)) / 19 / math.log(2))
    assert "by letter" in whole.note


def test_continuations_count_what_was_written() -> None:
    evidence = example_evidence()
    first, _ = ContinuationNats()(evidence)
    one = evidence.continuations["k1"]
    read = ByLetter().reread([Passage(text) for text in one.drawn_rest])
    assert first.name == "continuation_nats_k1"
    assert first.value == pytest.approx(np.concatenate([r.nats for r in read]).mean(), rel=1e-5)
    assert first.units is not None and len(first.units.values) == 4
    assert paired(first, first).value == 0
    with pytest.raises(WorkbenchError, match="other units"):
        paired(first, Value("x", 1.0, by=first.by, units=Units("else", (1.0,) * 4)))
    with pytest.raises(WorkbenchError, match="no units"):
        paired(first, Value("x", 1.0, by=first.by))


class Stranger(ByLetter):
    """Another judge that says the same."""

    def identity(self) -> str:
        return "by letter, in bfloat16"


def test_figures_by_two_judges_are_not_compared() -> None:
    evidence = example_evidence()
    strange = Evidence(continuations=evidence.continuations, judge=Stranger())
    ours, theirs = ContinuationNats()(evidence)[0], ContinuationNats()(strange)[0]
    assert ours.value == theirs.value and ours.units == theirs.units
    assert ours.by == ByLetter().digest() != theirs.by
    assert Value.from_data(ours.as_data()).by == ours.by
    with pytest.raises(OtherJudge, match="by the same"):
        paired(ours, theirs)
    with pytest.raises(OtherJudge, match="an unknown one"):  # results of before
        paired(ours, replace(theirs, by=""))
    assert all(value.by == ByLetter().digest() for value in JudgePerplexity()(evidence))


def test_mauve_is_that_of_its_package() -> None:
    mauve = pytest.importorskip("mauve")
    rng = np.random.default_rng(0)
    real, own = ([" ".join(rng.choice(list(letters), 20)) for _ in range(60)] for letters in ("abcdefgh", "efghijkl"))
    evidence = Evidence(
        samples=Drawn(np.zeros((60, 2), np.int64), own), real=Texts(np.zeros((60, 2), np.int64), real), judge=ByLetter()
    )
    (found,) = Mauve(seeds=2)(evidence)
    p, q = (states(ByLetter(), [Passage(text) for text in texts]) for texts in (real, own))
    direct = [mauve.compute_mauve(p_features=p, q_features=q, seed=s, mauve_scaling_factor=5).mauve for s in (1, 2)]
    assert found.value == pytest.approx(np.mean(direct), abs=1e-6)
    assert "only 60 texts" in found.note
    assert "60 samples, 60 real texts, mean of 2 k-means seeds" in found.method
    assert found.by == f"{ByLetter().digest()}, c = 5"
    assert found.value < found.extra["ceiling"]


def test_mauve_of_prompts_leaves_out_groups_of_them() -> None:
    """By the package, and by jackknife over prompts with all their continuations."""
    mauve = pytest.importorskip("mauve")
    rng = np.random.default_rng(0)
    real = [" ".join(rng.choice(list("abcd"), 20)) for _ in range(30)]
    own = [" ".join(rng.choice(list("abde"), 20)) for _ in range(60)]
    drawn, beside = Drawn(np.zeros((60, 2), np.int64), own), Texts(np.zeros((30, 2), np.int64), real)
    one = Continued(1, 0, 2, drawn, beside, [""] * 30, own, real, "k")
    (found,) = ContinuationMauve(seeds=2, groups=3)(Evidence(continuations={"k1": one}, judge=ByLetter()))
    p, q = (states(ByLetter(), [Passage(text) for text in texts]) for texts in (real, own))

    def direct(keep: np.ndarray, seed: int) -> float:
        chosen = {"p_features": p[keep], "q_features": q[np.repeat(keep, 2)], "mauve_scaling_factor": 5}
        return float(mauve.compute_mauve(seed=seed, **chosen).mauve)

    assert found.name == "continuation_mauve_k1"
    everyone = np.ones(30, dtype=bool)
    assert found.value == pytest.approx(np.mean([direct(everyone, seed) for seed in (1, 2)]), abs=1e-6)
    without = np.array([direct(np.arange(30) % 3 != g, 1) for g in range(3)])
    assert found.se == pytest.approx(np.sqrt(2 / 3 * np.square(without - without.mean()).sum()), abs=1e-6)


def test_paired_bootstrap_covers() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(1000):
        level, weight = rng.normal(3, 1, 60), rng.uniform(20, 60, 60)
        a, b = level + rng.normal(0.1, 0.2, 60), level + rng.normal(0, 0.2, 60)
        found = paired_bootstrap((a, weight), (b, weight), resamples=400, seed=trial)
        hits += found.low <= 0.1 <= found.high
    assert abs(hits / 1000 - 0.95) <= 0.02


def test_families_equivalence_and_power() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert equivalence(Estimate(0.0, 0.1), 0.5).equivalent
    assert not equivalence(Estimate(0.45, 0.1), 0.5).equivalent
    for margin, inside in ((0.29, False), (0.30, True)):  # 0.1 ± 0.196; at 5 % each 0.265 would do
        found = equivalence(by_normal(0.1, 0.1), margin)
        assert found.equivalent is inside and (by_normal(0.1, 0.1).high < margin) is inside
    assert equivalence(Estimate(0.2, 0.1), 0.5).p == pytest.approx(stats.norm.sf(3))
    due = (stats.t.ppf(0.975, 9) + stats.t.ppf(0.8, 9)) / math.sqrt(10)
    assert smallest_detectable(1.0, 10) == pytest.approx(due, rel=0.01)
    with pytest.raises(WorkbenchError, match="margin above 0"):
        equivalence(Estimate(0.0, 0.1), 0.0)


def test_intervals_of_continuations_take_prompts_as_units_and_those_of_samples_texts() -> None:
    """A prompt drawn three times alike says no more than one drawn once; a text drawn three times would."""
    one = example_evidence().continuations["k1"]
    first = one.drawn.tokens_NL[:: one.each], one.drawn_rest[:: one.each]

    def drawn(each: int) -> Evidence:
        rest = [text for text in first[1] for _ in range(each)]
        same = replace(
            one, each=each, drawn=Drawn(np.repeat(first[0], each, 0), rest), drawn_rest=rest
        )
        return Evidence(continuations={"k1": same}, judge=ByLetter())

    for metric in (ContinuationNats(), ContinuationDiversity()):
        for once, thrice in zip(metric(drawn(1)), metric(drawn(3)), strict=True):
            assert once.n == thrice.n == 4
            assert thrice.value == pytest.approx(once.value)
            # ties of so few units move BCa's levels a little; texts as units would be narrower by the root of 3
            assert thrice.high - thrice.low >= 0.85 * (once.high - once.low)
    tokens, texts = np.zeros((4, 3), np.int64), ["aab", "the people", "of it", "zzz"]
    alone, copied = (
        JudgePerplexity()(
            Evidence(
                samples=Drawn(np.repeat(tokens, k, 0), np.repeat(texts, k).tolist()),
                real=Texts(tokens, texts),
                judge=ByLetter(),
            )
        )[0]
        for k in (1, 3)
    )
    assert (alone.n, copied.n) == (4, 12)
    assert copied.high - copied.low < alone.high - alone.low
