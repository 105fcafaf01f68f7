"""Two grids beside each other: for arms of the same name, which settings differ and which figures do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.errors import WorkbenchError
from workbench.core.files import write_text
from workbench.grid.status import by_grid
from workbench.report import html, markdown, words
from workbench.report.arms import Arm, arms_of, names_of
from workbench.report.collect import differing
from workbench.report.differences import differences_table, in_pairs, moves
from workbench.report.tables import ASIDE, Cell, Column, Row, Table

if TYPE_CHECKING:
    from workbench.grid.cells import Plan
    from workbench.grid.status import Standing


@dataclass(frozen=True)
class Side:
    """A grid's name and its arms by name."""

    name: str
    arms: Mapping[str, Arm]


@dataclass(frozen=True)
class TwoGrids:
    """What stands on the page: the second grid minus the first."""

    title: str
    lead: str
    gaps: Table
    settings: Table


def sides(plans: Sequence[Plan], found: Sequence[Sequence[Standing]]) -> list[Side]:
    """Grids by name, or by the names of their folders where two are called the same."""
    alike = len({planned.name for planned in plans}) < len(plans)
    names = [planned.folder_name if alike else planned.name for planned in plans]
    return [Side(name, _arms(one, cells)) for name, one, cells in zip(names, plans, found, strict=True)]


def _arms(planned: Plan, found: Sequence[Standing]) -> dict[str, Arm]:
    """The arms of a grid by name; those of a study by question too."""
    arms: dict[str, Arm] = {}
    for question, grid, cells in by_grid(planned, found):
        for arm in arms_of(cells, grid.report.over):
            label = f"{question}: {arm.label}" if question else arm.label
            arms[label] = replace(arm, label=label)
    return arms


def two_grids(first: Side, second: Side) -> TwoGrids:
    """Compare the arms that both have.

    Arms of the same recipes and figures in both are told, not compared: a difference of nothing says nothing.

    Raises:
        WorkbenchError: no arm has the same name in both.
    """
    shared = [label for label in first.arms if label in second.arms]
    if not shared:
        names = [", ".join(side.arms) or "none" for side in (first, second)]
        raise WorkbenchError(
            f"no arm has the same name in both grids: {first.name} has {names[0]}; {second.name} has {names[1]}"
        )
    same = [label for label in shared if _same(first.arms[label], second.arms[label])]
    pairs = [(second.arms[label], first.arms[label]) for label in shared if label not in same]
    figures = [name for name in _figures(pairs) if name not in ASIDE]
    found = in_pairs(pairs, figures)
    gaps = differences_table(found, [arm for pair in pairs for arm in pair], f"{second.name} minus {first.name}")
    return TwoGrids(
        f"{second.name} beside {first.name}",
        " ".join(_told(first, second, shared, same)),
        gaps,
        _settings(first, second, pairs),
    )


def write_two(page: TwoGrids, out: Path) -> list[Path]:
    """Write the page into ``out`` (made where absent): report.html, report.md."""
    date = time.strftime("%Y-%m-%d %H:%M")
    tables = [("Figures that differ", page.gaps, "arm"), ("Settings that differ", page.settings, "setting")]
    shown = [(heading, table, first) for heading, table, first in tables if table.rows]
    parts = [
        html.section(heading, html.table_of(table, heading, first) + html.notes_of(table))
        for heading, table, first in shown
    ]
    text = [f"# {markdown.line(page.title)}", markdown.line(page.lead)]
    for heading, table, first in shown:
        text += [f"## {heading}", markdown.with_notes(table, first)]
    text.append(words.made(date))
    out.mkdir(parents=True, exist_ok=True)
    lead = f'<p class="lead">{html.escape(page.lead)}</p>'
    write_text(out / "report.html", html.filled(page.title, lead, parts, date), sync=False)
    write_text(out / "report.md", "\n\n".join(text) + "\n", sync=False)
    return [out / "report.html", out / "report.md"]


def _same(one: Arm, other: Arm) -> bool:
    """Whether both are the very same figures."""

    def content(arm: Arm) -> list[object]:
        return [(key, run.path, run.results and run.results.as_data()) for key, run in arm.repeats.items()]

    return bool(one.repeats) and content(one) == content(other)


def _figures(pairs: Sequence[tuple[Arm, Arm]]) -> list[str]:
    """Figures that differ in any pair by more than the machine's mood."""
    arms = [arm for pair in pairs for arm in pair]
    return [name for name in names_of(arms) if any(moves(pair, name) for pair in pairs)]


def _told(first: Side, second: Side, shared: Sequence[str], same: Sequence[str]) -> Iterator[str]:
    yield f"{len(shared)} arm{'s' * (len(shared) != 1)} in both grids."
    if same:
        yield f"The very same figures in both: {', '.join(same)}."
    for side, other in ((first, second), (second, first)):
        alone = [label for label in side.arms if label not in other.arms]
        if alone:
            yield f"In {side.name} alone: {', '.join(alone)}."
        waiting = [label for label in shared if not side.arms[label].repeats]
        if waiting:
            yield f"Not measured in {side.name}: {', '.join(waiting)}."


def _settings(first: Side, second: Side, pairs: Sequence[tuple[Arm, Arm]]) -> Table:
    """A row for each setting and pair of values, with the arms that it is so in."""
    found: dict[tuple[str, str, str], list[str]] = {}
    measured = 0
    for ours, theirs in pairs:
        key = next((key for key in ours.repeats if key in theirs.repeats), None)
        if key is None:
            continue
        measured += 1
        for name, (before, after) in differing([theirs.repeats[key], ours.repeats[key]]).items():
            found.setdefault((name, _plain(before), _plain(after)), []).append(ours.label)
    heads = [Column(name, name, "", str) for name in (first.name, second.name, "arms")]
    rows = [
        Row(name, (Cell(before), Cell(after), Cell("all" if len(arms) == measured else ", ".join(arms))))
        for (name, before, after), arms in found.items()
    ]
    return Table(tuple(heads), tuple(rows))


def _plain(value: object) -> str:
    return "–" if value is None else str(value)
