"""Measuring: each way and case in a process of its own, in turn, several rounds; medians and ratios."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.core.build import build
from workbench.core.errors import WorkbenchError
from workbench.core.loading import resolve_as
from workbench.core.part import Section, did_you_mean, settings
from workbench.core.tree import override

TO = "to "
"""Begins the name of a column of ratios to a way that is not the yardstick."""


class Suite(Section):
    """Benchmarks by name.

    Settings:
        benchmarks: what is measured
    """

    def __init__(self, benchmarks: dict[str, Benchmark]) -> None:
        """Keep them."""
        self.benchmarks = benchmarks


@dataclass(frozen=True)
class Task:
    """A benchmark as it will be run: its name, its resolved settings, the object; ``toy``: no goals at such sizes;
    ``only``: the pairs of case and way that are measured (None: all)."""

    name: str
    data: Mapping[str, Any]
    made: Benchmark
    toy: bool = False
    only: frozenset[tuple[str, str]] | None = None

    def goals(self, case: str, way: str, device: str) -> list[Goal]:
        """What is wanted of a way at a case on a device."""
        goals = () if self.toy else self.made.goals
        return [one for one in goals if (one.way, one.device) == (way, device) and case.startswith(one.case)]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(case, way) in the order of measuring: a case's ways one after the other."""
        every = dict.fromkeys(case for way in self.made.ways for case in self.made.cases(way))
        for case in every:
            ways = (way for way in self.made.ways if case in self.made.cases(way))
            yield from ((case, way) for way in ways if self.only is None or (case, way) in self.only)

    def wanted(self, device: str) -> Task:
        """The same, of those ways and cases alone that something is wanted of on ``device``, and what they are
        beside; at toy sizes all."""
        if self.toy:
            return self
        every = list(self.pairs())
        found = {(case, way): self.goals(case, way, device) for case, way in every}
        beside = {(case, goal.beside or self.made.yardstick) for (case, _), goals in found.items() for goal in goals}
        return replace(self, only=frozenset(pair for pair in every if found[pair] or pair in beside))


@dataclass(frozen=True)
class Measured:
    """What was found of a benchmark: its rows, the ways and cases that could not be measured and why, and lines on the
    rows that the benchmark adds where they are kept."""

    task: Task
    rows: list[dict[str, Any]]
    absent: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)


def chosen(names: Sequence[str], overrides: Iterable[str] = (), quick: bool = False, device: str = "cpu") -> list[Task]:
    """Benchmarks by name (none: all), with ``name.setting=value`` set, or ``setting=value`` of the only one that has
    it; ``quick``: at toy sizes, else at those of ``device``.

    Raises:
        WorkbenchError: there is no such benchmark; it cannot be told whose setting is meant.
        RecipeError: with every setting that is wrong.
    """
    from workbench.core import index

    index.import_parts()
    known: Mapping[str, Any] = Benchmark.registered
    for name in names:
        if name not in known:
            raise WorkbenchError(f"there is no benchmark {name!r}.{did_you_mean(name, known)}")
    asked = list(dict.fromkeys(names)) or sorted(known)
    tree = {name: {"type": name, **(known[name].example() if quick else known[name].sizes(device))} for name in asked}
    words = [_of_whom(text, asked, known) for text in overrides]
    node = resolve_as(Suite, {"benchmarks": override(tree, words)}).node
    nodes = node.settings["benchmarks"]
    return [Task(name, nodes[name].as_data(), build(nodes[name]), quick) for name in asked]


def _of_whom(text: str, asked: Sequence[str], known: Mapping[str, type[Benchmark]]) -> str:
    """A word ``setting=value`` with the benchmark in front that it belongs to: the one that it names before a dot, the
    only one asked for, or the only one of these that has such a setting.

    Raises:
        WorkbenchError: it names one that was not asked for; none has it, or several have.
    """
    path = text.partition("=")[0]
    head, dot, _ = path.partition(".")
    if dot and head in asked:
        return text
    setting = head.partition("[")[0]
    owners = [name for name in asked if setting in settings(known[name])]
    word, names = f"{text:.200}", ", ".join(asked)
    if dot and head in known and not owners:
        raise WorkbenchError(f"{word}: benchmark {head!r} is not among those measured ({names}); name it too")
    if len(asked) == 1:
        return f"{asked[0]}.{text}"
    if not owners:
        every = {setting for name in asked for setting in settings(known[name])}
        raise WorkbenchError(f"{word}: none of {names} has a setting {setting!r:.80}.{did_you_mean(setting, every)}")
    if len(owners) > 1:
        whose = f"{', '.join(owners)} have a setting {setting!r} each"
        raise WorkbenchError(f"{word}: {whose}: say whose is meant, as in {owners[0]}.{word}")
    return f"{owners[0]}.{text}"


def measure(
    task: Task,
    meter: Meter,
    rounds: int,
    tell: Callable[[str], None] = lambda line: None,
    one: Callable[[Task, str, str, Meter], dict[str, Any]] | None = None,
) -> Measured:
    """All ways and cases of a benchmark. ``one``: how a single one is measured (a process of its own).

    A way that fails, in whatever round, ends nothing else; what it said is kept in place of its figures.
    """
    one = one or in_a_process
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    absent: dict[tuple[str, str], str] = {}
    for turn in range(rounds):
        for case, way in task.pairs():
            if (case, way) in absent:
                continue
            got = one(task, way, case, meter)
            if wrong := [name for name, value in got.items() if isinstance(value, float) and not math.isfinite(value)]:
                got = {"absent": f"failed: not finite: {', '.join(wrong)}"}
            if "absent" in got:
                absent[case, way] = got["absent"]
                found.pop((case, way), None)
                tell(f"{task.name}: {case}, {way}: {got['absent']}")
                continue
            found.setdefault((case, way), []).append(got)
            tell(f"{task.name}: {case}, {way}: {got['seconds']:.4g} s (round {turn + 1} of {rounds})")
    rows = table(task, found, meter.device)
    return Measured(task, rows, [{"case": case, "way": way, "why": why} for (case, way), why in absent.items()])


def in_a_process(task: Task, way: str, case: str, meter: Meter) -> dict[str, Any]:
    """What a child process measures; ``absent`` with the reason where it cannot, or failed."""
    asked = {"data": task.data, "way": way, "case": case}
    asked |= {name: getattr(meter, name) for name in ("device", "threads", "precision")}
    command = [sys.executable, "-m", "workbench.bench.child", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return {"absent": f"failed: {last[0]:.300}"}
    got: dict[str, Any] = json.loads(lines[-1])
    return got


def here(task: Task, way: str, case: str, meter: Meter) -> dict[str, Any]:
    """The same in this process (peak memory is then that of all before it too)."""
    try:
        return dict(task.made.measure(way, case, meter))
    except Absent as reason:
        return {"absent": str(reason)}


def table(
    task: Task, found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], device: str
) -> list[dict[str, Any]]:
    """A row each case and way: medians, the ratio to the yardstick's seconds, the share of its memory, the ratios to
    other ways (``to WAY``), what is wanted on ``device``, whether it is met, and what was found where it is not."""
    made, rows = task.made, list[dict[str, Any]]()
    for (case, way), ones in found.items():
        row: dict[str, Any] = {"case": case, "way": way, "runs": len(ones)}
        row |= {name: statistics.median(one[name] for one in ones) for name in ones[0]}
        rows.append(row)
    by = {(row["case"], row["way"]): row for row in rows}
    for row in rows:
        row |= against(row, by.get((row["case"], made.yardstick)))
        row |= {f"{TO}{way}": against(row, by.get((row["case"], way)))["ratio"] for way in made.besides}
        missed = []
        for goal in (goals := task.goals(row["case"], row["way"], device)):
            beside = by.get((row["case"], goal.beside or made.yardstick))
            found_beside = f" beside {goal.beside}" if len(goals) > 1 and goal.beside else ""
            missed += [f"{one}{found_beside}" for one in goal.missed({**row, **against(row, beside)})]
        if goals:
            row |= {"wanted": "; ".join(goal.in_words() for goal in goals), "met": not missed}
            row |= {"missed": ", ".join(missed)}
    return rows


def against(row: Mapping[str, Any], beside: Mapping[str, Any] | None) -> dict[str, float | None]:
    """How many times as fast a row is as another, and the share of its memory; None where it was not measured."""
    shared = beside is not None and "peak_mb" in row and beside.get("peak_mb", 0) > 0
    return {
        "ratio": beside["seconds"] / row["seconds"] if beside is not None else None,
        "memory": row["peak_mb"] / beside["peak_mb"] if beside is not None and shared else None,
    }


def rebuilt(data: Mapping[str, Any]) -> Benchmark:
    """A benchmark from its resolved settings."""
    node = resolve_as(Suite, {"benchmarks": {"one": dict(data)}}).node
    made: Benchmark = build(node.settings["benchmarks"]["one"])
    return made
