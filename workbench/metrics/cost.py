"""What a run costs: speed of training and of sampling, network calls, parameters, seconds."""

from __future__ import annotations

import math

import numpy as np

from workbench.metrics.base import Evidence, Metric, MissingEvidence
from workbench.metrics.statistics import bootstrap_median
from workbench.metrics.value import Better, Value


@Metric.register("training_speed")
class TrainingSpeed(Metric):
    """Tokens per second in training (the median of the log's entries) and its wall-clock seconds."""

    better = "higher"
    needs = frozenset({"cost"})

    def columns(self) -> tuple[str, ...]:
        """Speed, seconds, tokens."""
        return ("train_tokens_per_second", "train_seconds", "train_tokens")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Three values; one that the run did not record has none."""
        cost = evidence.cost
        entries = np.asarray([entry for entry in cost.tokens_per_second if entry > 0], dtype=np.float64)
        speed_name, seconds_name, tokens_name = self.columns()
        if len(entries):
            found = bootstrap_median(entries)
            speed = Value(
                speed_name,
                found.value,
                found.low,
                found.high,
                better="higher",
                unit="tokens/s",
                n=found.n,
                method="median of the training log's entries; bootstrap over entries",
                note=cost.device,
                se=found.se,
                by=cost.machine,
            )
        else:
            speed = Value(speed_name, None, better="higher", error="the training log holds no speeds")
        return [
            speed,
            _count(seconds_name, cost.seconds, "s", "lower", cost.device, cost.machine),
            _count(tokens_name, cost.tokens, "tokens"),
        ]


@Metric.register("sampling_speed")
class SamplingSpeed(Metric):
    """Tokens per second in sampling, network calls a sequence went through, wall-clock seconds."""

    better = "higher"
    needs = frozenset({"samples"})

    def columns(self) -> tuple[str, ...]:
        """Speed, calls, seconds."""
        return ("sample_tokens_per_second", "network_calls", "sample_seconds")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Three values."""
        drawn = evidence.samples
        speed_name, calls_name, seconds_name = self.columns()
        count, length = drawn.tokens_NL.shape
        if not drawn.seconds > 0:
            raise MissingEvidence("the samples carry no time")
        how = f"{count} sequences of {length} tokens" + (f", {drawn.batch} at a time" if drawn.batch else "")
        note = ", ".join(text for text in (drawn.sampler, drawn.device) if text)
        speed = drawn.tokens_NL.size / drawn.seconds
        return [
            Value(
                speed_name,
                speed,
                better="higher",
                unit="tokens/s",
                n=count,
                method=f"{how}; wall clock",
                note=note,
                by=drawn.machine,
            ),
            _count(calls_name, drawn.calls, "calls a sequence", "lower", note),
            _count(seconds_name, drawn.seconds, "s", "lower", how, drawn.machine),
        ]


@Metric.register("latency")
class Latency(Metric):
    """Seconds from an empty canvas to a whole batch of texts, and tokens per second, for each timed size of batch.

    The median of the timed draws, with the interval of the median by order statistics (bootstrap over draws). Named
    ``latency_b<batch>`` and ``throughput_b<batch>``; ``extra`` holds the network calls of a draw.
    """

    better = "lower"
    needs = frozenset({"timings"})

    def columns(self) -> tuple[str, ...]:
        """Both."""
        return ("latency", "throughput")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Two values for each size of batch."""
        values = []
        for timed in evidence.timings:
            found = bootstrap_median(np.asarray(timed.seconds, dtype=np.float64))
            tokens = timed.batch * timed.length
            how = f"{timed.batch} sequences of {timed.length} tokens at a time; "
            how += f"median of {found.n} draws after one untimed"
            note = ", ".join(text for text in (timed.how, timed.device) if text)
            extra = {"calls": timed.calls}
            values.append(
                Value(
                    f"latency_b{timed.batch}", found.value, found.low, found.high, better="lower", unit="s a batch",
                    n=found.n, method=how, note=note, se=found.se, extra=extra, by=timed.machine,
                )
            )  # fmt: skip
            low, high = (None if end is None else tokens / end for end in (found.high, found.low))
            se = None if found.se is None else tokens * found.se / found.value**2
            values.append(
                Value(
                    f"throughput_b{timed.batch}", tokens / found.value, low, high, better="higher", unit="tokens/s",
                    n=found.n, method=how, note=note, se=se, extra=extra, by=timed.machine,
                )
            )  # fmt: skip
        return values


@Metric.register("parameters")
class Parameters(Metric):
    """Number of trained parameters, in all and without embeddings."""

    needs = frozenset({"cost"})

    def columns(self) -> tuple[str, ...]:
        """In all, without embeddings."""
        return ("parameters", "parameters_non_embedding")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Two values."""
        cost = evidence.cost
        total, without = self.columns()
        return [
            _count(total, cost.parameters, "parameters"),
            _count(
                without,
                cost.parameters_non_embedding,
                "parameters",
                note="without token and position embeddings",
            ),
        ]


def _count(
    name: str, value: float | None, unit: str, better: Better = "neither", note: str = "", by: str = ""
) -> Value:
    if value is None or not math.isfinite(value):
        return Value(name, None, better=better, unit=unit, error="not recorded")
    return Value(name, value, better=better, unit=unit, n=1, note=note, by=by)
