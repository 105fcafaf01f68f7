"""Likelihood of held-out text: bits per byte (comparable across tokenizers), perplexity, the unigram."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from workbench.metrics.base import Evidence, HeldOut, Metric
from workbench.metrics.statistics import Estimate, Floats, cluster_sums, draw_variance, ratio
from workbench.metrics.value import Units, Value


@Metric.register("bits_per_byte")
class BitsPerByte(Metric):
    """Σ nats / (Σ bytes · ln 2) over held-out blocks.

    The standard error takes blocks (documents, where known) as units of a ratio estimator; since each block
    has its own noise draws, it covers them too. ``extra`` splits it: ``se_draws`` from the draws of a block
    (two or more), ``se_blocks`` what remains. The bound's terms stand beside, in bits per byte. ``units`` hold the
    figure of each of those units: runs measured on the same blocks are compared in pairs (`comparison.paired`).
    """

    better = "lower"
    needs = frozenset({"bound"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        held = evidence.bound
        per_bit = 1 / math.log(2)
        found = per_unit(held, held.bytes_B, per_bit)
        scale = per_bit / float(held.bytes_B.sum())
        extra = {f"part_{name}": float(nats_B.sum()) * scale for name, nats_B in held.parts.items()}
        value = likelihood_value(self, held, found, "bits/byte", extra | standard_errors(held, found, scale))
        return [replace(value, units=Units.of(blocks_key(held), *unit_sums(held, held.bytes_B, per_bit)))]


@Metric.register("perplexity")
class Perplexity(Metric):
    """exp(Σ nats / Σ tokens): per token, hence not comparable between tokenizers."""

    better = "lower"
    needs = frozenset({"bound"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value; its interval is that of the log, carried over."""
        held = evidence.bound
        log = per_unit(held, np.full(len(held.bytes_B), held.tokens_BL.shape[1]), 1.0)
        value = math.exp(log.value)
        ends = [None if end is None else math.exp(end) for end in (log.low, log.high)]
        found = Estimate(value, None if log.se is None else value * log.se, ends[0], ends[1], log.n)
        extra = {"nats_per_token": log.value}
        return [likelihood_value(self, held, found, "per token", extra, "per token of this run's tokenizer")]


@Metric.register("unigram_bits_per_byte")
class UnigramBitsPerByte(Metric):
    """The same blocks coded by the train split's token counts, one added to each: the plateau to leave."""

    better = "neither"
    needs = frozenset({"bound", "unigram"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value, exact."""
        held, counts_V = evidence.bound, evidence.unigram
        nats_B = unigram_nats(held.tokens_BL, counts_V)
        exact = HeldOut(nats_B[:, None], held.bytes_B, held.tokens_BL, "exact", document_B=held.document_B)
        found = per_unit(exact, held.bytes_B, 1 / math.log(2))
        return [likelihood_value(self, exact, found, "bits/byte", {})]


def unigram_nats(tokens_BL: npt.NDArray[np.int64], counts_V: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Code length [B] in nats of blocks under add-one smoothed token frequencies."""
    counts = np.asarray(counts_V, dtype=np.float64) + 1.0
    return np.asarray(-np.log(counts / counts.sum())[tokens_BL].sum(axis=1))


def per_unit(held: HeldOut, units_B: npt.NDArray[np.int64], scale: float) -> Estimate:
    """Σ nats · ``scale`` / Σ units, blocks (or documents) as independent units."""
    return ratio(*unit_sums(held, units_B, scale))


def unit_sums(held: HeldOut, units_B: npt.NDArray[np.int64], scale: float) -> tuple[Floats, Floats]:
    """Nats · ``scale``, and ``units_B``, of each block, or of each document where documents are known."""
    nats_B = held.nats_BK.mean(axis=1) * scale
    units = np.asarray(units_B, dtype=np.float64)
    return cluster_sums(nats_B, held.document_B), cluster_sums(units, held.document_B)


def blocks_key(held: HeldOut) -> str:
    """Digest of the blocks, their bytes and their documents: what must be equal for a comparison in pairs."""
    digest = hashlib.sha256(repr(held.tokens_BL.shape).encode())
    for array in (held.tokens_BL, held.bytes_B, held.document_B):
        digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def standard_errors(held: HeldOut, found: Estimate, scale: float) -> dict[str, float]:
    """``found``'s standard error split into what more draws would take away and what more text would."""
    if found.se is None or held.kind == "exact":
        return {} if found.se is None else {"se_blocks": found.se, "se_draws": 0.0}
    if held.nats_BK.shape[1] < 2:
        return {}  # one draw a block: the two cannot be told apart, the total covers both
    se_draws = float(np.sqrt(draw_variance(held.nats_BK).sum())) * scale
    return {"se_blocks": math.sqrt(max(found.se**2 - se_draws**2, 0.0)), "se_draws": se_draws}


def likelihood_value(
    metric: Metric, held: HeldOut, found: Estimate, unit: str, extra: dict[str, float], note: str = ""
) -> Value:
    """A `Value` that says what it was measured on."""
    blocks, draws = held.nats_BK.shape
    unit_name = "blocks" if held.document_B is None else "documents"
    drawn = "" if held.kind == "exact" else f", {draws} noise draw{'s' if draws > 1 else ''} a block"
    measured = f"{blocks} blocks of {held.tokens_BL.shape[1]} tokens"
    extra = {**extra, "blocks": blocks, "tokens": held.tokens_BL.size, "bytes": int(held.bytes_B.sum())}
    return Value(
        metric.type_name,
        found.value,
        found.low,
        found.high,
        better=metric.better,
        unit=unit,
        n=found.n,
        method=f"{measured}{drawn}; ratio estimator over {unit_name}, t interval",
        note=note,
        relation=held.relation,
        se=found.se,
        extra=extra,
    )
