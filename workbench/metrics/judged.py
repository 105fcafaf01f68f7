"""What a judge says of samples and of continuations, beside what it says of real text and of shuffled words.

No sample is rejected, and the entropy of the same samples stands beside: a repeated word is cheap to a judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workbench.metrics.base import Evidence, Metric
from workbench.metrics.diversity import BESIDE, entropy_by_sequence
from workbench.metrics.evidence import Continued, Texts
from workbench.metrics.judge import Judge, Passage, Reading
from workbench.metrics.statistics import RESAMPLES, Estimate, bootstrap_ratio, cluster_sums
from workbench.metrics.value import SHUFFLED, Units, Value

Floats = npt.NDArray[np.float64]


def passages_of(texts: Texts) -> list[Passage]:
    """Whole texts as passages, with their ids where it is known whose they are."""
    rows = texts.tokens_NL.tolist() if texts.tokenizer else [[]] * len(texts.texts)
    pairs = zip(texts.texts, rows, strict=True)
    return [Passage(text, ids=tuple(row), tokenizer=texts.tokenizer) for text, row in pairs]


def totals(readings: Sequence[Reading]) -> tuple[Floats, Floats, Floats]:
    """(nats, tokens, bytes) of each reading."""
    found = [(float(np.sum(one.nats, dtype=np.float64)), len(one.nats), one.bytes) for one in readings]
    nats, tokens, sizes = np.asarray(found, dtype=np.float64).reshape(-1, 3).T
    return nats, tokens, sizes


def _exp(found: Estimate) -> Estimate:
    value, low, high = (None if x is None else math.exp(x) for x in (found.value, found.low, found.high))
    assert value is not None
    return Estimate(value, None if found.se is None else value * found.se, low, high, found.n)


def _per_byte(nats_N: Floats, bytes_N: Floats) -> float:
    return float(nats_N.sum() / max(1.0, bytes_N.sum()) / math.log(2))


@Metric.register("judge_perplexity")
class JudgePerplexity(Metric):
    """Perplexity of the samples under the judge, by both published formulas.

    ``judge_perplexity`` is exp(Σ nats / Σ tokens), of the judge's tokens (SEDD, MDLM); ``judge_perplexity_mean`` is
    exp of the mean over samples of their nats per token (SDTT's evaluation). ``extra``: bits per byte of the samples
    (bits_per_byte), of real text and of real text with its words shuffled; unigram entropy of the same samples.
    """

    better = "lower"
    needs = BESIDE | {"judge"}

    def columns(self) -> tuple[str, ...]:
        """By tokens, by samples."""
        return ("judge_perplexity", "judge_perplexity_mean")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Two values."""
        judge = evidence.judge

        def read(texts: Texts) -> tuple[Floats, Floats, Floats]:
            return totals(judge.read(passages_of(texts)))

        own, real = read(evidence.samples), read(evidence.real)
        entropy, entropy_real = (
            float(entropy_by_sequence(texts.tokens_NL).mean()) for texts in (evidence.samples, evidence.real)
        )
        extra = {
            "bits_per_byte": _per_byte(own[0], own[2]),
            "bits_per_byte_real": _per_byte(real[0], real[2]),
            "unigram_entropy": entropy,
            "unigram_entropy_real": entropy_real,
        }
        lowest = {name: read(texts) for name, texts in evidence.calibration.items() if name == SHUFFLED}
        for nats, _, sizes in lowest.values():
            extra["bits_per_byte_shuffled"] = _per_byte(nats, sizes)
        values = []
        for name, each in zip(self.columns(), (False, True), strict=True):
            found, beside = (_exp(_figure(which, each)) for which in (own, real))
            how = "exp of the mean over samples of nats per token" if each else "exp(Σ nats / Σ tokens)"
            values.append(
                Value(
                    name, found.value, found.low, found.high, better="lower", unit="per judge's token", n=found.n,
                    method=f"{how}; BCa bootstrap over samples, {RESAMPLES} resamples", note=judge.identity(),
                    by=judge.digest(), se=found.se, real=beside.value, real_low=beside.low, real_high=beside.high,
                    extra=extra,
                    calibration={floor: _exp(_figure(which, each)).value for floor, which in lowest.items()},
                )
            )  # fmt: skip
        return values


def _figure(which: tuple[Floats, Floats, Floats], each: bool) -> Estimate:
    """Nats per token: of all tokens, or the mean over texts (those of at least one token)."""
    nats, tokens, _ = which
    if not each:
        return bootstrap_ratio(nats, tokens)
    return bootstrap_ratio(nats[tokens > 0] / tokens[tokens > 0])


@Metric.register("continuation_nats")
class ContinuationNats(Metric):
    """Nats per token of what was written, under the judge and given the prompt's first tokens, a value a prompt kind.

    Only what follows the given start counts; at a gap the given end counts too, since the fit shows there. ``units``
    hold the figure of each prompt: runs with the same prompts are compared prompt by prompt (`comparison.paired`).
    """

    better = "lower"
    needs = frozenset({"continuations", "judge"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value for each kind of prompt."""
        return [self._value(name, one, evidence.judge) for name, one in evidence.continuations.items()]

    def _value(self, name: str, one: Continued, judge: Judge) -> Value:
        nats, tokens, sizes = totals(judge.read(rest_passages(one, drawn=True)))
        real_nats, real_tokens, real_sizes = totals(judge.read(rest_passages(one, drawn=False)))
        above, below = cluster_sums(nats, one.prompt_N), cluster_sums(tokens, one.prompt_N)
        found, real = bootstrap_ratio(above, below), bootstrap_ratio(real_nats, real_tokens)
        return Value(
            f"{self.type_name}_{name}", found.value, found.low, found.high, better="lower", unit="nats/token",
            n=found.n, note=judge.identity(), by=judge.digest(), se=found.se,
            real=real.value, real_low=real.low, real_high=real.high,
            method=f"{len(above)} prompts, {one.each} each; BCa bootstrap over prompts, {RESAMPLES} resamples",
            extra={
                "bits_per_byte": _per_byte(nats, sizes),
                "bits_per_byte_real": _per_byte(real_nats, real_sizes),
                "unigram_entropy": float(entropy_by_sequence(one.drawn.tokens_NL[:, one.free]).mean()),
                "unigram_entropy_real": float(entropy_by_sequence(one.real.tokens_NL[:, one.free]).mean()),
            },
            units=Units.of(one.key, above, below),
        )  # fmt: skip


def rest_passages(one: Continued, drawn: bool) -> list[Passage]:
    """What follows the prompt's first tokens, these given: of the drawn sequences, or of the real ones."""
    texts = one.drawn if drawn else one.real
    rest, each = (one.drawn_rest, one.each) if drawn else (one.real_rest, 1)
    rows = texts.tokens_NL.tolist() if texts.tokenizer else [[]] * len(rest)
    return [
        Passage(text, one.given[i // each], tuple(row[one.before :]), tuple(row[: one.before]), texts.tokenizer)
        for i, (text, row) in enumerate(zip(rest, rows, strict=True))
    ]
