"""Diversity of samples beside the same figure of real text: entropies, repetition, distinct n-grams, real
words.

Every figure is of *tokens* (end-of-document tokens included) but `known_words`, which reads decoded text. A
model that falls into loops has too little entropy and too much repetition; noise has the reverse: the figure
of held-out text, in as many sequences of the same length, is the target in both directions.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import Count
from workbench.metrics.base import Evidence, Metric, Texts
from workbench.metrics.calibration import calibrated
from workbench.metrics.statistics import RESAMPLES, Estimate, bootstrap_ratio, jackknife
from workbench.metrics.value import Value

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BESIDE = frozenset({"samples", "real", "calibration"})
"""What a figure needs that stands beside the same figure of real text and of calibration texts."""


@Metric.register("unigram_entropy")
class UnigramEntropy(Metric):
    """Entropy of the tokens within a sequence, nats, averaged over sequences: −Σ p ln p with p = count /
    length.

    Its top is ln(length), so it compares sequences of one length and tokenizer only.
    """

    needs = BESIDE

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        return [beside_real(self, self.type_name, evidence, _entropy_of(1), "nats")]


@Metric.register("bigram_entropy")
class BigramEntropy(Metric):
    """Entropy of the pairs of neighbouring tokens within a sequence, nats, averaged over sequences."""

    needs = BESIDE

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        return [beside_real(self, self.type_name, evidence, _entropy_of(2), "nats")]


@Metric.register("repetition")
class Repetition(Metric):
    """rep-n: 1 − distinct n-grams / n-grams of a sequence, averaged over sequences (Welleck et al. 2020, seq-
    rep-n).

    Settings:
        sizes: the n-gram sizes; each gives the value ``rep_<n>``.
    """

    needs = BESIDE

    def __init__(self, sizes: tuple[Count, ...] = (2, 3, 4)) -> None:
        """``sizes``: the n-gram sizes."""
        self.sizes = tuple(sizes)

    def columns(self) -> tuple[str, ...]:
        """One for each size."""
        return tuple(f"rep_{n}" for n in self.sizes)

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value for each size."""
        return [beside_real(self, f"rep_{n}", evidence, _repetition_of(n)) for n in self.sizes]


@Metric.register("distinct")
class Distinct(Metric):
    """distinct-n: distinct n-grams / n-grams over all sequences together (Li et al. 2016).

    It falls as the corpus grows: compare equal numbers of sequences only.

    Settings:
        sizes: the n-gram sizes; each gives the value ``distinct_<n>``.
    """

    needs = BESIDE

    def __init__(self, sizes: tuple[Count, ...] = (2,)) -> None:
        """``sizes``: the n-gram sizes."""
        self.sizes = tuple(sizes)

    def columns(self) -> tuple[str, ...]:
        """One for each size."""
        return tuple(f"distinct_{n}" for n in self.sizes)

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value for each size; its interval by the jackknife (resampling repeats sequences, hence
        n-grams).
        """
        return [self._value(evidence, n) for n in self.sizes]

    def _value(self, evidence: Evidence, n: int) -> Value:
        def figure(texts: Texts) -> Estimate:
            return distinct(texts.tokens_NL, n)

        return _value(
            self,
            f"distinct_{n}",
            figure(evidence.samples),
            figure(evidence.real),
            calibrated(evidence, lambda texts: figure(texts).value),
            method="over all sequences together; jackknife over sequences, t interval",
        )


@Metric.register("known_words")
class KnownWords(Metric):
    """Share of words that occur in the training text, over all sequences.

    A word is what stands between white space and holds a letter, stripped of punctuation at its ends, in any
    case. The first and the last of a sequence are left out where the sequence may cut them.
    """

    needs = BESIDE | {"known_words"}

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        known = evidence.known_words

        def share(texts: Texts) -> PerSequence:
            words = [whole_words(text) for text in texts.texts]
            return PerSequence(
                np.array([sum(word in known for word in one) for one in words], dtype=np.float64),
                np.array([len(one) for one in words], dtype=np.float64),
            )

        return [beside_real(self, self.type_name, evidence, share, note="a word between white space, any case")]


# --- counting -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PerSequence:
    """A figure Σ above / Σ below over sequences, [N] each; ``below`` None for a plain mean."""

    above_N: Floats
    below_N: Floats | None = None

    @property
    def figure(self) -> float:
        """The figure without its interval; nan over nothing."""
        below = len(self.above_N) if self.below_N is None else float(self.below_N.sum())
        return float(self.above_N.sum()) / below if below else math.nan


def ngram_ids(tokens_NL: Ints, n: int) -> Ints:
    """Dense ids [N, L − n + 1] of the n-grams, equal where the n-grams are equal, over all sequences.

    Grown one token at a time and renumbered, so that no vocabulary overflows 64 bits.

    Raises:
        ValueError: sequences shorter than ``n`` tokens.
    """
    tokens = np.asarray(tokens_NL, dtype=np.int64)
    if tokens.shape[1] < n:
        raise ValueError(f"sequences of {tokens.shape[1]} tokens have no {n}-grams")
    dense = np.unique(tokens, return_inverse=True)[1].reshape(tokens.shape)
    kinds, ids = int(dense.max(initial=0)) + 1, dense
    for k in range(1, n):
        pairs = ids[:, :-1] * kinds + dense[:, k:]
        ids = np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
    return np.asarray(ids, dtype=np.int64)


def by_sequence(ids_NG: Ints) -> tuple[Ints, Ints, Ints]:
    """(sequence, id, count) of every distinct n-gram of every sequence."""
    kinds = int(ids_NG.max(initial=0)) + 1
    row_N = np.arange(len(ids_NG), dtype=np.int64)[:, None]
    found, counts = np.unique(row_N * kinds + ids_NG, return_counts=True)
    return found // kinds, found % kinds, counts


def entropy_by_sequence(tokens_NL: Ints, n: int = 1) -> Floats:
    """Entropy in nats of the n-grams within each sequence, [N]."""
    ids_NG = ngram_ids(tokens_NL, n)
    row, _, counts = by_sequence(ids_NG)
    p = counts / ids_NG.shape[1]
    return np.bincount(row, weights=-p * np.log(p), minlength=len(ids_NG)).astype(np.float64)


def repetition_by_sequence(tokens_NL: Ints, n: int) -> Floats:
    """1 − distinct n-grams / n-grams of each sequence, [N]."""
    ids_NG = np.sort(ngram_ids(tokens_NL, n), axis=1)
    return 1.0 - (1 + (np.diff(ids_NG, axis=1) != 0).sum(axis=1)) / ids_NG.shape[1]


def distinct(tokens_NL: Ints, n: int) -> Estimate:
    """Distinct n-grams / n-grams over all sequences, with its jackknife interval over sequences."""
    ids_NG = ngram_ids(tokens_NL, n)
    sequences, per_sequence = ids_NG.shape
    kinds = int(ids_NG.max(initial=0)) + 1
    row, gram, _ = by_sequence(ids_NG)
    lonely = np.bincount(gram, minlength=kinds)[gram] == 1  # n-grams of one sequence only: lost without it
    without_N = (kinds - np.bincount(row[lonely], minlength=sequences)) / max(1, (sequences - 1) * per_sequence)
    return jackknife(kinds / ids_NG.size, without_N)


def _strip(piece: str) -> str:
    """``piece`` without what is neither letter nor digit at its ends, casefolded."""
    start, end = 0, len(piece)
    while start < end and unicodedata.category(piece[start])[0] not in "LMN":
        start += 1
    while end > start and unicodedata.category(piece[end - 1])[0] not in "LMN":
        end -= 1
    return piece[start:end].casefold()


def whole_words(text: str) -> list[str]:
    """The words of a cut-out piece of text, without its first and last where they may be cut."""
    pieces = text.split()
    if pieces and not text[0].isspace():
        pieces = pieces[1:]
    if pieces and not text[-1].isspace():
        pieces = pieces[:-1]
    return [_strip(piece) for piece in pieces if any(map(str.isalpha, piece))]


def word_set(documents: Iterable[str]) -> frozenset[str]:
    """All words of whole documents, as `known_words` compares them."""
    pieces: set[str] = set()
    for document in documents:
        pieces.update(document.split())
    return frozenset(_strip(piece) for piece in pieces if any(map(str.isalpha, piece)))


# --- values -------------------------------------------------------------------------------------------------


def _entropy_of(n: int) -> Callable[[Texts], PerSequence]:
    return lambda texts: PerSequence(entropy_by_sequence(texts.tokens_NL, n))


def _repetition_of(n: int) -> Callable[[Texts], PerSequence]:
    return lambda texts: PerSequence(repetition_by_sequence(texts.tokens_NL, n))


def beside_real(
    metric: Metric,
    name: str,
    evidence: Evidence,
    figure: Callable[[Texts], PerSequence],
    unit: str = "",
    note: str = "",
) -> Value:
    """``figure`` of the samples beside that of real text, each with a bootstrap interval over sequences, and of
    calibration texts."""
    found, real = (bootstrap_ratio(f.above_N, f.below_N) for f in (figure(evidence.samples), figure(evidence.real)))
    method = f"over sequences; BCa bootstrap, {RESAMPLES} resamples"
    calibration = calibrated(evidence, lambda texts: figure(texts).figure)
    return _value(metric, name, found, real, calibration, unit, method, note)


def _value(
    metric: Metric,
    name: str,
    found: Estimate,
    real: Estimate,
    calibration: Mapping[str, float],
    unit: str = "",
    method: str = "",
    note: str = "",
) -> Value:
    return Value(
        name,
        found.value,
        found.low,
        found.high,
        better=metric.better,
        unit=unit,
        n=found.n,
        method=method,
        note=note,
        se=found.se,
        real=real.value,
        real_low=real.low,
        real_high=real.high,
        calibration=calibration,
    )
