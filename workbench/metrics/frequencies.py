"""Which tokens a model writes, over all samples together: distance of unigram laws, slope of Zipf's law.

No `Value.units`: both are of the pooled tokens, no mean over sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from workbench.core.bounds import Count
from workbench.core.errors import Problem
from workbench.metrics.base import Evidence, Metric
from workbench.metrics.diversity import Ints, by_sequence
from workbench.metrics.statistics import LEVEL, Estimate, jackknife, student_quantile
from workbench.metrics.value import Value

if TYPE_CHECKING:
    from workbench.core.node import Node


@Metric.register("ngram_kl")
class NgramKL(Metric):
    """``kl_unigram``: Σ p ln(p / q), nats, p the samples' unigram law and q held-out text's, one added to each count.

    Counts are of N sequences a side, over the whole vocabulary, so few tokens give a figure that smoothing rules and
    that never reaches 0. ``real`` is the floor, every other held-out sequence against the ones between, ``extra.half``
    the samples' figure on as many: compare these two, and ``value`` between runs of equal numbers of sequences.
    """

    better = "lower"
    needs = frozenset({"samples", "real", "unigram"})

    def columns(self) -> tuple[str, ...]:
        """Of single tokens."""
        return ("kl_unigram",)

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value; its interval leaves out sequences of either side."""
        own, real, kinds = evidence.samples.tokens_NL, evidence.real.tokens_NL, len(evidence.unigram)
        found = kl_estimate(own, real, kinds)
        value = Value(
            self.columns()[0], found.value, found.low, found.high, better=self.better, unit="nats", n=found.n,
            method=f"{len(own)} samples, {len(real)} held-out sequences, {kinds} kinds of tokens, one added to each; "
            "jackknife over the sequences of both, t interval",
            se=found.se,
        )  # fmt: skip
        if len(real) < 2:
            return [value]
        floor = kl_estimate(real[::2], real[1::2], kinds)
        half = kl_estimate(own[::2], real[1::2], kinds)
        note = "real: half of held-out text against the other half; extra.half: half of the samples against that half"
        beside = replace(value, real=floor.value, real_low=floor.low, real_high=floor.high)
        return [replace(beside, note=note, extra={"half": half.value})]


@Metric.register("zipf_slope")
class ZipfSlope(Metric):
    """Slope of ln frequency on ln rank by least squares, over the ranks ``first`` … ``last`` of the pooled tokens.

    Each rank weighs the same (Zipf 1949 for the law; Holtzman et al. 2020, §5.2, for its use on generated text). The
    slope moves with the number of tokens: compare equal numbers of sequences. Where there are fewer kinds of tokens
    than ``last``, the last kind is the last rank, and the note says so.

    Settings:
        first: the first rank that counts; 1 is the most frequent token.
        last: the last one.
    """

    needs = frozenset({"samples", "real"})

    def __init__(self, first: Count = 10, last: Count = 1000) -> None:
        """``first``, ``last``: ranks."""
        self.first, self.last = first, last

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Ranks that make no line."""
        yield from super().misfits(node, root)
        if node.settings["last"] <= node.settings["first"]:
            yield Problem(f"{node.path}.last", "a slope needs two ranks; take last above first")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        sides = {"samples": evidence.samples.tokens_NL, "held-out text": evidence.real.tokens_NL}
        kinds = {name: len(np.unique(tokens)) for name, tokens in sides.items()}
        short = [name for name, found in kinds.items() if found <= self.first]
        if short:
            error = f"{kinds[short[0]]} kinds of tokens in {short[0]} make no line from rank {self.first}; lower first"
            return [Value(self.type_name, None, error=error)]
        found, real = (self.estimate(tokens) for tokens in sides.values())
        note = "; ".join(f"{name}: to rank {k}, its last kind" for name, k in kinds.items() if k < self.last)
        return [
            Value(
                self.type_name, found.value, found.low, found.high, n=found.n, se=found.se, note=note,
                method=f"ranks {self.first} to {self.last} of the pooled tokens; jackknife over sequences, t interval",
                real=real.value, real_low=real.low, real_high=real.high,
            )
        ]  # fmt: skip

    def estimate(self, tokens_NL: Ints) -> Estimate:
        """The slope with its jackknife interval over sequences."""
        kinds, dense = np.unique(tokens_NL, return_inverse=True)
        counts_K = np.bincount(dense.ravel(), minlength=len(kinds))
        row, kind, count = by_sequence(dense.reshape(tokens_NL.shape))
        ends = np.searchsorted(row, np.arange(len(tokens_NL) + 1))
        without = np.empty(len(tokens_NL), dtype=np.float64)
        for i, (start, end) in enumerate(pairwise(ends)):
            rest_K = counts_K.copy()
            rest_K[kind[start:end]] -= count[start:end]
            without[i] = zipf_slope(rest_K, self.first, self.last)
        value = zipf_slope(counts_K, self.first, self.last)
        if np.isnan(without).any():  # a sequence holds all the kinds that make the line
            return Estimate(value, n=len(without))
        return jackknife(value, without)


def zipf_slope(counts_V: Ints, first: int, last: int) -> float:
    """Least-squares slope of ln count on ln rank, ranks ``first`` … ``last`` or the last kind; nan below two ranks."""
    sorted_K = -np.sort(-np.asarray(counts_V)[np.asarray(counts_V) > 0])
    y = np.log(sorted_K[first - 1 : last].astype(np.float64))
    if len(y) < 2:
        return math.nan
    x = np.log(np.arange(first, first + len(y)))
    x -= x.mean()
    return float(x @ y / (x @ x))


def kl_estimate(p_NL: Ints, q_NL: Ints, kinds: int) -> Estimate:
    """Σ p ln(p / q) of the unigram laws of two sets of sequences, one added to each of the ``kinds`` counts.

    The standard error is by jackknives over the sequences of either side, their variances added; the t interval has
    the degrees of freedom of the smaller side.
    """
    p_V, q_V = (np.bincount(tokens.ravel(), minlength=kinds) + 1.0 for tokens in (p_NL, q_NL))
    cross, sum_p, sum_q = float(p_V @ np.log(p_V / q_V)), float(p_V.sum()), float(q_V.sum())
    value = cross / sum_p - math.log(sum_p / sum_q)
    # Without a sequence only the terms of its own kinds of tokens change.
    row, kind, count = by_sequence(p_NL)
    p, q, less = p_V[kind], q_V[kind], p_V[kind] - count
    change_N = np.bincount(row, less * np.log(less / q) - p * np.log(p / q), len(p_NL)).astype(np.float64)
    rest = sum_p - p_NL.shape[1]
    without_p = jackknife(value, (cross + change_N) / rest - math.log(rest / sum_q))
    row, kind, count = by_sequence(q_NL)
    change_N = np.bincount(row, -p_V[kind] * np.log1p(-count / q_V[kind]), len(q_NL)).astype(np.float64)
    without_q = jackknife(value, (cross + change_N) / sum_p - math.log(sum_p / (sum_q - q_NL.shape[1])))
    n = min(len(p_NL), len(q_NL))
    if without_p.se is None or without_q.se is None:
        return Estimate(value, n=n)
    se = math.hypot(without_p.se, without_q.se)
    half = student_quantile(0.5 + LEVEL / 2, n - 1) * se
    return Estimate(value, se, value - half, value + half, n)
