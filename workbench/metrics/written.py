"""Diversity of what was written to a prompt, beside how the held-out text itself goes on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workbench.metrics.base import Continued, Evidence, Metric
from workbench.metrics.diversity import Floats, Ints, entropy_by_sequence, repetition_by_sequence
from workbench.metrics.statistics import RESAMPLES, bootstrap_ratio, cluster_sums
from workbench.metrics.value import Units, Value


@Metric.register("continuation_diversity")
class ContinuationDiversity(Metric):
    """Unigram entropy and rep-2 of the written tokens alone (`unigram_entropy`, `repetition`), by prompt kind.

    Neither what is given at the start nor, at a gap, what is given at the end counts. Both figures grow with the
    number of written tokens: compare prompts that leave as many. ``units`` hold the mean of each prompt: runs with
    the same prompts are compared prompt by prompt (`comparison.paired`).
    """

    needs = frozenset({"continuations"})

    def columns(self) -> tuple[str, ...]:
        """Entropy, repetition."""
        return ("continuation_entropy", "continuation_rep_2")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Two values for each kind of prompt."""
        entropy, repetition = self.columns()
        values = []
        for prompt, one in evidence.continuations.items():
            values.append(_value(f"{entropy}_{prompt}", one, entropy_by_sequence, "nats"))
            values.append(_value(f"{repetition}_{prompt}", one, _rep_2))
        return values


def _rep_2(tokens_NL: Ints) -> Floats:
    return repetition_by_sequence(tokens_NL, 2)


def _value(name: str, one: Continued, figure: Callable[[Ints], Floats], unit: str = "") -> Value:
    """The mean over sequences; prompts are the independent units."""
    try:
        drawn_N, real_P = (figure(texts.tokens_NL[:, one.free]) for texts in (one.drawn, one.real))
    except ValueError as error:
        return Value(name, None, error=f"too little is written: {error}; give fewer tokens, or a larger total")
    above_P, below_P = cluster_sums(drawn_N, one.prompt_N), cluster_sums(np.ones_like(drawn_N), one.prompt_N)
    found, real = bootstrap_ratio(above_P, below_P), bootstrap_ratio(real_P)
    return Value(
        name, found.value, found.low, found.high, unit=unit, n=found.n, se=found.se,
        real=real.value, real_low=real.low, real_high=real.high, units=Units.of(one.key, above_P, below_P),
        method=f"{len(above_P)} prompts, {one.each} each; BCa bootstrap over prompts, {RESAMPLES} resamples",
    )  # fmt: skip
