"""Self-BLEU: how far each text is made of n-grams of the others."""

from __future__ import annotations

import heapq
import importlib.metadata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import AtLeastTwo
from workbench.metrics.base import Evidence, Metric
from workbench.metrics.calibration import calibrated
from workbench.metrics.diversity import BESIDE
from workbench.metrics.judge import require
from workbench.metrics.statistics import Estimate, Floats, jackknife
from workbench.metrics.value import Value

ORDERS = 4
"""BLEU's n-grams: of one to four words."""


@Metric.register("self_bleu")
class SelfBleu(Metric):
    """BLEU, 0 … 100, of each text with all the others as its references, averaged (Zhu et al. 2018, Texygen).

    It is sacrebleu's sentence score (words by its tokenizer 13a, effective order, exponential smoothing). It grows with
    the number of texts and moves with their length: compare figures that share both. 100: each text stands in another.
    The interval is too wide rather than too narrow, as the jackknife's of a largest count is.

    Settings:
        texts: how many are read at most, of samples and of real text alike: a subsample, the same for every run.
    """

    needs = BESIDE

    def __init__(self, texts: AtLeastTwo = 64) -> None:
        """``texts``: read at most."""
        self.texts = texts

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        require("sacrebleu", what="metric self_bleu")
        sides = (evidence.samples.texts, evidence.real.texts)
        count = min(self.texts, *map(len, sides))
        if count < 2:
            error = "self_bleu needs two samples and two held-out texts; set samples: 64, say"
            return [Value(self.type_name, None, error=error)]
        found, real = (self_bleu(subsample(texts, count)) for texts in sides)
        drawn = f"{count} of {len(sides[0])} samples, {count} of {len(sides[1])} real texts"
        return [
            Value(
                self.type_name, found.value, found.low, found.high, unit="of 100", n=count, se=found.se,
                method=f"{drawn}, chosen by seed 0; sacrebleu's sentence score, 13a; jackknife over texts, t interval",
                real=real.value, real_low=real.low, real_high=real.high,
                by=f"sacrebleu {importlib.metadata.version('sacrebleu')}",
                calibration=calibrated(
                    evidence, lambda one: self_bleu(subsample(one.texts, count), interval=False).value
                ),
            )
        ]  # fmt: skip


def subsample(texts: Sequence[str], count: int) -> list[str]:
    """``count`` of the texts, in their order: the same numbers for equal sizes."""
    chosen = np.random.default_rng(0).choice(len(texts), count, replace=False)
    return [texts[i] for i in np.sort(chosen)]


def self_bleu(texts: Sequence[str], interval: bool = True) -> Estimate:
    """Mean of sacrebleu's ``sentence_score`` of each text against the others, jackknife over texts (three or more).

    Leaving a text out takes away its score and a reference of every other: both are counted, without scoring the rest
    anew. ``sentence_score`` itself would count all n-grams of all references for each of the texts.
    """
    from sacrebleu import BLEU

    bleu = BLEU(effective_order=True)
    words = [bleu.tokenizer(text.rstrip()).split() for text in texts]
    size, lengths = len(texts), [len(one) for one in words]
    matched_NO, lost_NNO = matches(words)

    def score(i: int, matched_O: npt.NDArray[np.int64], reference: int) -> float:
        totals = [max(0, lengths[i] - order) for order in range(ORDERS)]
        found = bleu.compute_bleu(
            matched_O.tolist(), totals, lengths[i], reference, smooth_method=bleu.smooth_method, effective_order=True
        )
        return float(found.score)

    score_N, without_NN = np.zeros(size), np.zeros((size, size))
    for i in range(size):
        others = (j for j in range(size) if j != i)
        nearest = heapq.nsmallest(2, others, key=lambda j: (abs(lengths[j] - lengths[i]), lengths[j]))
        score_N[i] = score(i, matched_NO[i], lengths[nearest[0]])
        for j in range(size) if interval and size > 2 else ():
            if j != i:
                reference = lengths[nearest[1] if j == nearest[0] else nearest[0]]
                without_NN[i, j] = score(i, matched_NO[i] - lost_NNO[i, j], reference)
    if size < 3 or not interval:
        return Estimate(float(score_N.mean()), n=size)
    without_N: Floats = without_NN.sum(axis=0) / (size - 1)
    return jackknife(float(score_N.mean()), without_N)


def matches(words: Sequence[Sequence[str]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """n-grams of each text that the others hold, each as often as the one with the most of it: [N, orders].

    And how many fewer of text i's, without text j: [N, N, orders].
    """
    size = len(words)
    matched_NO, lost_NNO = np.zeros((size, ORDERS), np.int64), np.zeros((size, size, ORDERS), np.int64)
    for order in range(ORDERS):
        holders: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        for i, one in enumerate(words):
            for gram, count in Counter(zip(*(one[k:] for k in range(order + 1)), strict=False)).items():
                holders[gram].append((count, i))
        for found in holders.values():
            # Of the others, text i needs the two that hold the most: these are among the first three of all.
            top = heapq.nlargest(3, found)
            for count, i in found if len(found) > 1 else ():
                (most, j), *rest = [one for one in top if one[1] != i]
                matched = min(count, most)
                matched_NO[i, order] += matched
                lost_NNO[i, j, order] += matched - min(count, rest[0][0] if rest else 0)
    return matched_NO, lost_NNO
