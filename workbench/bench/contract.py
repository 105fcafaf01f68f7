"""What every benchmark must satisfy: run at its toy sizes, on any registered part, a plug-in's included."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from workbench.bench.base import Benchmark, Meter
from workbench.bench.run import Measured, Task, here, measure
from workbench.core.checks import run_checks


def check_benchmark(part: type[Benchmark]) -> list[str]:
    """Problems of a benchmark, in words."""
    return run_checks(Benchmark, part, (_runs_small,))


def _runs_small(benchmark: Benchmark) -> Iterator[str]:
    """At toy sizes every way gives finite seconds or says why not, and its rows can be told and drawn."""
    if benchmark.yardstick and benchmark.yardstick not in benchmark.ways:
        yield f"its yardstick {benchmark.yardstick!r} is none of its ways"
        return
    if unknown := {*benchmark.besides, *(goal.way for goal in benchmark.goals)} - set(benchmark.ways):
        yield f"goals of, or ratios to, ways that it has not: {unknown}"
    if untold := {goal.beside for goal in benchmark.goals} - {"", benchmark.yardstick, *benchmark.besides}:
        yield f"goals beside ways that its table tells no ratios to: {untold}"
    found: Measured = measure(Task(benchmark.type_name, {}, benchmark, toy=True), Meter(threads=1), 1, one=here)
    for row in found.rows:
        wrong = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if row["seconds"] <= 0 or wrong:
            yield f"{row['case']}, {row['way']}: seconds are {row['seconds']}, not finite: {wrong}"
    if not found.rows and not found.absent:
        yield "it measures nothing at its toy sizes"
    if found.rows:
        notes = list(benchmark.notes(found.rows))
        if not all(isinstance(note, str) for note in notes):
            yield "its notes are not text"


CHECKS: dict[str, Callable[[Any], list[str]]] = {"benchmark": check_benchmark}
"""Kind → the function that checks a part of it."""
