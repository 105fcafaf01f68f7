"""Repetition within a sequence beyond rep-n: tokens seen shortly before, the longest repeat, sequences of
little entropy.

No `Value.units`: samples of two models under one number share nothing, so a difference in pairs by number
would mean no more than one between independent sets.
"""

from __future__ import annotations

import numpy as np

from workbench.core.bounds import Count, Fraction
from workbench.metrics.base import Evidence, Metric, Texts
from workbench.metrics.diversity import BESIDE, Floats, Ints, PerSequence, beside_real, entropy_by_sequence
from workbench.metrics.value import Value


@Metric.register("seen")
class Seen(Metric):
    """rep/l: share of a sequence's tokens that occur among the l tokens before them, averaged over sequences
    (Welleck et al. 2020, §4, of the written tokens rather than of a model's best guesses).

    The first tokens have fewer than l before them and count all the same: compare sequences of one length.

    Settings:
        spans: how many tokens to look back; each gives the value ``seen_<l>``.
    """

    needs = BESIDE

    def __init__(self, spans: tuple[Count, ...] = (16, 32, 128)) -> None:
        """``spans``: how many tokens to look back."""
        self.spans = tuple(spans)

    def columns(self) -> tuple[str, ...]:
        """One for each span."""
        return tuple(f"seen_{span}" for span in self.spans)

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value for each span."""
        return [self._value(evidence, span) for span in self.spans]

    def _value(self, evidence: Evidence, span: int) -> Value:
        def share(texts: Texts) -> PerSequence:
            return PerSequence(seen_by_sequence(texts.tokens_NL, span))

        return beside_real(self, f"seen_{span}", evidence, share)


@Metric.register("longest_repeat")
class LongestRepeat(Metric):
    """Length in tokens of the longest n-gram that occurs at two places of a sequence (they may overlap),
    averaged over sequences.

    It grows with the length of the sequences; one loop among many samples moves the mean far.
    """

    needs = BESIDE

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""

        def longest(texts: Texts) -> PerSequence:
            return PerSequence(longest_repeat_by_sequence(texts.tokens_NL))

        return [beside_real(self, self.type_name, evidence, longest, "tokens")]


@Metric.register("low_entropy_share")
class LowEntropyShare(Metric):
    """Share of sequences whose unigram entropy lies below the ``quantile`` of real text's.

    Real text's own share is at most about ``quantile``. The intervals take the threshold as given: with few
    real sequences it is itself uncertain.

    Settings:
        quantile: which quantile of the real sequences' entropies is the threshold.
    """

    needs = BESIDE

    def __init__(self, quantile: Fraction = 0.01) -> None:
        """``quantile``: of the real sequences' entropies."""
        self.quantile = quantile

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        threshold = float(np.quantile(entropy_by_sequence(evidence.real.tokens_NL), self.quantile))

        def low(texts: Texts) -> PerSequence:
            return PerSequence((entropy_by_sequence(texts.tokens_NL) < threshold).astype(np.float64))

        note = f"below {threshold:.4g} nats, the {self.quantile:g} quantile of real text, taken as given"
        return [beside_real(self, self.type_name, evidence, low, note=note)]


def seen_by_sequence(tokens_NL: Ints, span: int) -> Floats:
    """Share of each sequence's tokens that occur among the ``span`` tokens before them, [N]."""
    tokens = np.asarray(tokens_NL, dtype=np.int64)
    order_NL = np.argsort(tokens, axis=1, kind="stable")
    # Stable sorting leaves equal tokens in their order: neighbours are an occurrence and the one before it.
    same = np.diff(np.take_along_axis(tokens, order_NL, axis=1), axis=1) == 0
    near = same & (np.diff(order_NL, axis=1) <= span)
    return np.asarray(near.sum(axis=1) / tokens.shape[1], dtype=np.float64)


def longest_repeat_by_sequence(tokens_NL: Ints) -> Floats:
    """Length of the longest n-gram that occurs at two places of each sequence, [N]; 0 where none does."""
    return np.array([_longest(row) for row in np.asarray(tokens_NL, dtype=np.int64)], dtype=np.float64)


def _longest(row_L: Ints) -> int:
    """By bisection: where an n-gram repeats, so does its (n − 1)-gram."""
    data, width = row_L.tobytes(), row_L.itemsize
    low, high = 0, len(row_L) - 1
    while low < high:
        n = (low + high + 1) // 2
        places = len(row_L) - n + 1
        if len({data[i * width : (i + n) * width] for i in range(places)}) < places:
            low = n
        else:
            high = n - 1
    return low
