"""Likelihood on evaluation sets: perplexity, bits per byte and nats a token of each, by a declared protocol."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from workbench.metrics.base import Evidence, HeldOut, Metric
from workbench.metrics.likelihood import blocks_key, standard_errors, unit_sums
from workbench.metrics.sets import Ids, OnSet
from workbench.metrics.statistics import Estimate, ratio
from workbench.metrics.value import Units, Value

PER_TOKEN = "per token of this run's tokenizer: between tokenizers compare bits per byte"
PER_BYTE = "per byte of the detokenised text: comparable between tokenizers"


@Metric.register("set_likelihood")
class SetLikelihood(Metric):
    """Likelihood of evaluation sets (`Evaluation.sets`) under `Evaluation.protocol`, whose name ends each column:
    ``set_perplexity_lambada_sedd``. Figures of two protocols never stand in one column.

    exp(Σ nats / Σ tokens), Σ nats / (Σ bytes · ln 2) and Σ nats / Σ tokens, over the tokens that the protocol counts;
    ends of documents stand for no bytes. A bound is marked ≤. The standard error takes documents (articles, where the
    set has them) as units of a ratio estimator, and covers the noise draws; ``extra`` splits it into ``se_blocks`` and
    ``se_draws`` (`bits_per_byte`). ``units`` hold each document: runs that measured the same blocks by one protocol are
    compared in pairs. A set that cannot be measured is reported in its cells.
    """

    better = "lower"
    needs = frozenset({"sets"})

    def columns(self) -> tuple[str, ...]:
        """Perplexity, bits per byte, nats a token."""
        return ("set_perplexity", "set_bits_per_byte", "set_nats_per_token")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Three values a set."""
        found: list[Value] = []
        for name, one in evidence.sets.items():
            values = self._failed(one) if one.held is None or one.counted_B is None else self._of(one, one.held)
            found += [replace(value, name=f"{value.name}_{name}_{one.protocol}") for value in values]
        return found

    def _failed(self, one: OnSet) -> Iterator[Value]:
        reason = one.error or "nothing was measured"
        return (Value(column, None, better=self.better, error=reason) for column in self.columns())

    def _of(self, one: OnSet, held: HeldOut) -> Iterator[Value]:
        assert one.counted_B is not None
        perplexity, per_byte, per_token = self.columns()
        logs = self._value(per_token, one, held, one.counted_B, 1.0, "nats/token", PER_TOKEN)
        assert logs.value is not None
        value = math.exp(logs.value)
        ends = [None if end is None else math.exp(end) for end in (logs.low, logs.high)]
        errors = {key: logs.extra[key] * value for key in ("se_blocks", "se_draws") if key in logs.extra}
        extra = {**logs.extra, **errors, "nats_per_token": logs.value}
        se = None if logs.se is None else value * logs.se
        yield replace(
            logs, name=perplexity, value=value, low=ends[0], high=ends[1], se=se, unit="per token", extra=extra,
            units=None,
        )  # fmt: skip
        yield self._value(per_byte, one, held, held.bytes_B, 1 / math.log(2), "bits/byte", PER_BYTE)
        yield logs

    def _value(self, name: str, one: OnSet, held: HeldOut, below_B: Ids, scale: float, unit: str, note: str) -> Value:
        above_U, below_U = unit_sums(held, below_B, scale)
        found: Estimate = ratio(above_U, below_U)
        assert one.counted_B is not None
        extra = {
            "blocks": len(held.nats_BK), "blocks_in_set": one.size, "tokens": int(one.counted_B.sum()),
            "bytes": int(held.bytes_B.sum()), "rows": one.rows, "stream_tokens": one.stream,
            "dropped_tokens": one.dropped,
        }  # fmt: skip
        return Value(
            name, found.value, found.low, found.high, better=self.better, unit=unit, n=found.n,
            method=method(one, held),
            note="; ".join(part for part in (f"protocol {one.protocol}: {one.about}", note, one.note) if part),
            relation=held.relation, se=found.se,
            extra={**extra, **standard_errors(held, found, scale / float(below_U.sum()))},
            units=Units.of(set_key(one, held), above_U, below_U),
        )  # fmt: skip


def method(one: OnSet, held: HeldOut) -> str:
    """How much of which set was measured, in words."""
    blocks, draws = held.nats_BK.shape
    drawn = "" if held.kind == "exact" else f", {draws} noise draw{'s' if draws > 1 else ''} a block"
    share = "all" if blocks == one.size else f"{blocks:,} (evenly spread) of"
    return (
        f"{one.source}; protocol {one.protocol}; {share} {one.size:,} blocks of {held.tokens_BL.shape[1]:,} tokens"
        f"{drawn}; ratio estimator over {'blocks' if held.document_B is None else 'documents'}, t interval"
    )


def set_key(one: OnSet, held: HeldOut) -> str:
    """The protocol's name, then a digest of the blocks and of what counts in them."""
    assert one.counted_B is not None
    counted = np.ascontiguousarray(one.counted_B, dtype=np.int64).tobytes()
    return f"{one.protocol}:{hashlib.sha256(blocks_key(held).encode() + counted).hexdigest()[:16]}"
