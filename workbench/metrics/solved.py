"""Figures of attempts at puzzles: pass@k, what an attempt costs, what a solution costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import Count
from workbench.core.errors import Problem
from workbench.metrics.base import Evidence, Metric, MissingEvidence
from workbench.metrics.solving import Attempts, largest, pass_at
from workbench.metrics.statistics import bootstrap_ratio
from workbench.metrics.value import Better, Units, Value

if TYPE_CHECKING:
    from workbench.core.node import Node

BOOTSTRAP = "bootstrap over puzzles"


@Metric.register("solved")
class Solved(Metric):
    """pass@k by the exact checker, broken positions, and the network calls and seconds of attempts and of solutions.

    pass@k is the chance that one of k attempts is right, unbiased from all attempts made (`pass_at`). An attempt is the
    first draw with the rounds that its strategy adds. Intervals: BCa bootstrap over puzzles, each with its attempts.
    Seconds are of the batches drawn, divided by the attempts in them. ``units`` hold the figure of each puzzle: runs
    with the same puzzles are compared puzzle by puzzle (`comparison.paired`).

    Settings:
        k: the numbers of attempts.
    """

    better = "higher"
    needs = frozenset({"attempts"})

    def __init__(self, k: list[Count] = (1, 4, 16)) -> None:  # type: ignore[assignment]
        """See Settings."""
        self.k = tuple(k)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """More attempts asked for than are made."""
        yield from super().misfits(node, root)
        solving = root.find(f"{node.path.partition('.metrics')[0]}.solving")
        if solving is not None and largest(node.settings["k"]) > solving.settings["attempts"]:
            wanted, made = largest(node.settings["k"]), solving.settings["attempts"]
            yield Problem(
                f"{node.path}.k", f"pass@{wanted} needs {wanted} attempts at each puzzle, and {made} are made: "
                f"set attempts: {wanted}"
            )  # fmt: skip

    def columns(self) -> tuple[str, ...]:
        """pass_<k> for each k, then broken positions and costs."""
        costs = ("broken", "attempt_calls", "attempt_seconds", "calls_per_solution", "seconds_per_solution")
        return (*(f"pass_{k}" for k in self.k), *costs)

    def __call__(self, evidence: Evidence) -> list[Value]:
        """The values."""
        made = evidence.attempts
        puzzles, attempts, rounds = made.solved_NKR.shape
        if largest(self.k) > attempts:
            raise MissingEvidence(f"pass@{largest(self.k)} needs as many attempts, and {attempts} were made")
        right_N = made.solved_NKR[:, :, -1].sum(-1)
        calls_N = made.calls_NKR[:, :, -1].sum(-1)
        each_N = np.full(puzzles, attempts)
        seconds = float(made.seconds_R[-1])
        how = f"{puzzles} puzzles, {attempts} attempts each, {made.batch} at a time; {BOOTSTRAP}"
        after = by_round(made) if rounds > 1 else {}

        def value(
            name: str, above_N: npt.NDArray[np.float64], below_N: npt.NDArray[np.int64], better: Better, unit: str = ""
        ) -> Value:
            if not below_N.sum():
                return Value(name, None, better=better, unit=unit, error="no attempt was right")
            found = bootstrap_ratio(above_N, below_N.astype(np.float64))
            extra = after if name == f"pass_{self.k[0]}" else {}
            low, high = found.low, found.high
            if low is not None and high is not None:  # a skewed bootstrap of few puzzles may miss its own estimate
                low, high = min(low, found.value), max(high, found.value)
            return Value(
                name, found.value, low, high, better=better, unit=unit, n=puzzles, method=how, note=made.how,
                se=found.se, extra=extra,
                units=Units.of(made.key, above_N, below_N.astype(np.float64)) if made.key else None,
            )  # fmt: skip

        broken_N = made.broken_NK.sum(-1).astype(np.float64)
        return [
            *(value(f"pass_{k}", pass_at(k, right_N, attempts), np.ones_like(right_N), "higher") for k in self.k),
            value("broken", broken_N, each_N, "lower", "positions an attempt"),
            value("attempt_calls", calls_N, each_N, "lower", "calls"),
            _time("attempt_seconds", seconds, puzzles * attempts, made),
            value("calls_per_solution", calls_N, right_N, "lower", "calls"),
            _time("seconds_per_solution", seconds, int(right_N.sum()), made),
        ]


def by_round(made: Attempts) -> dict[str, float]:
    """The share solved, the calls and the seconds of an attempt by the end of each round: what a curve is drawn of."""
    found: dict[str, float] = {}
    attempts = made.solved_NKR[:, :, 0].size
    for turn in range(made.solved_NKR.shape[2]):
        found[f"solved_after_{turn}"] = float(made.solved_NKR[:, :, turn].mean())
        found[f"calls_after_{turn}"] = float(made.calls_NKR[:, :, turn].mean())
        found[f"seconds_after_{turn}"] = float(made.seconds_R[turn]) / attempts
    return found


def _time(name: str, seconds: float, count: int, made: Attempts) -> Value:
    if not count:
        return Value(name, None, better="lower", unit="s", error="no attempt was right")
    note = ", ".join(text for text in (made.how, made.device) if text)
    return Value(
        name, seconds / count, better="lower", unit="s", n=count, method="wall clock", note=note, by=made.machine
    )
