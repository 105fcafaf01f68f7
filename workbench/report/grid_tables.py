"""Tables of a grid's page: arms by figures, and the same as rows for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workbench.metrics.value import INDEPENDENT, SHUFFLED, Value
from workbench.report.arms import Arm, names_of
from workbench.report.tables import (
    ASIDE,
    BOUNDS,
    CALIBRATED,
    COLUMNS,
    Cell,
    Column,
    Row,
    Table,
    cell_of,
    further_column,
    judges_told,
    reference_rows,
)

NOTHING = "no figures yet"
NAMED = 3
"""Arms named beside a row of held-out text that is not the same for all."""
BEST = "★"
"""Stands before the best figure of a column."""
HIDDEN = "beside the figure that reads best stands a bound, behind which the true one may be better"
"""Why there is no best."""
FIELDS = ("value", "low", "high", "se", "n", "relation", "unit", "real", SHUFFLED, INDEPENDENT, "error")
"""What the rows for other programs hold of a figure."""


def columns_for(arms: Sequence[Arm], wanted: Sequence[str] | None) -> tuple[Column, ...]:
    """The columns asked for, or all that were measured and are not aside."""
    known = {column.key: column for column in COLUMNS}
    found = names_of(arms)
    if wanted is None:
        first = [name for name in known if name in found]
        wanted = first + [name for name in found if name not in known and name not in ASIDE]
    units = {value.name: value.unit for arm in arms for name in wanted if (value := arm.figure(name))}
    return tuple(known.get(name) or further_column(name, units.get(name, "")) for name in wanted)


def arms_table(arms: Sequence[Arm], wanted: Sequence[str] | None) -> Table:
    """Row zero, then the arms; then real text once for each set of its figures."""
    columns = columns_for(arms, wanted)
    rows = [
        Row(
            arm.label,
            tuple(cell_of(arm.figure(column.key), column) for column in columns),
            remark=("; ".join(arm.failed[:2]) + (f" and {len(arm.failed) - 2} more" if len(arm.failed) > 2 else ""))
            or ("" if arm.repeats else NOTHING),
        )
        for arm in arms
    ]
    figures = [(arm.label, [arm.figure(column.key) for column in columns]) for arm in arms]
    references = reference_rows(figures, columns, NAMED)
    return Table(columns, (*_starred(rows, arms, columns), *references), tuple(_notes(arms, columns)))


def long_rows(arms: Sequence[Arm], axes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Every figure of every repetition: (headings, rows) of text."""
    heads = ["arm", *axes, "repetition", "figure", *FIELDS]
    rows = []
    for arm in arms:
        for key, run in arm.repeats.items():
            for value in run.results.values if run.results else ():
                numbers = [_plain(number) for number in (value.value, value.low, value.high, value.se)]
                beside = (value.real, value.calibration.get(SHUFFLED), value.calibration.get(INDEPENDENT))
                tail = [str(value.n), value.relation, value.unit, *map(_plain, beside), value.error]
                labels = [arm.labels.get(axis, "") for axis in axes]
                rows.append([arm.label, *labels, " ".join(key), value.name, *numbers, *tail])
    return heads, rows


def best_of(arms: Sequence[Arm], name: str) -> tuple[int | None, str]:
    """Which arm is best by a figure's own direction, or nearest to real text where it has none; and which it is.

    None where that cannot be said: no direction and no real text, fewer than two arms with the figure, two judges
    or machines, a bound that may hide a better figure than the one that reads best.
    """
    figures = {i: value for i, arm in enumerate(arms) if (value := arm.figure(name)) and value.value is not None}
    if len(figures) < 2:
        return None, ""
    first = next(iter(figures.values()))
    if len({value.by for value in figures.values()}) > 1:
        return None, ""
    if first.better == "neither" and first.real is not None:
        return min(figures, key=lambda i: _distance(figures[i])), "nearest to held-out text"
    if first.better == "neither":
        return None, ""
    sign = 1 if first.better == "lower" else -1
    best = min(figures, key=lambda i: sign * figures[i].number)
    if any(_slack(value) < _slack(figures[best]) for value in figures.values()):
        return None, HIDDEN
    return best, first.better + " is better"


def _slack(value: Value) -> int:
    """Whether the true figure may be better (-1) or worse (1) than the one shown, or is the one shown (0)."""
    bound = {"≤": -1, "=": 0, "≥": 1}[value.relation]
    return bound if value.better == "lower" else -bound


def _distance(value: Value) -> float:
    return float("inf") if value.real is None else abs(value.number - value.real)


def _starred(rows: Sequence[Row], arms: Sequence[Arm], columns: Sequence[Column]) -> list[Row]:
    """The rows with a star at the best figure of each column, and at those that read the same; none where all do."""
    cells = [list(row.cells) for row in rows]
    for at, column in enumerate(columns):
        best, how = best_of(arms, column.key)
        texts = [row.cells[at].text for row in rows]
        if best is None or len(set(texts)) == 1:
            continue
        for row in cells:
            if row[at].text == texts[best]:
                detail = "; ".join(text for text in (how, row[at].detail) if text)
                row[at] = Cell(f"{BEST} {row[at].text}", detail, row[at].error)
    return [Row(row.label, tuple(new), row.real, row.remark) for row, new in zip(rows, cells, strict=True)]


def _notes(arms: Sequence[Arm], columns: Sequence[Column]) -> Iterable[str]:
    values = [value for arm in arms for column in columns if (value := arm.figure(column.key))]
    if any(value.relation == "≤" for value in values):
        yield BOUNDS
    if any(value.calibration for value in values):
        yield CALIBRATED
    yield from judges_told(((arm.label, [arm.figure(column.key) for column in columns]) for arm in arms), columns)
    yield from _star_notes(values, arms, columns)
    absent = [column.key for column in columns if not any(arm.figure(column.key) for arm in arms)]
    if absent and any(arm.repeats for arm in arms):
        yield f"Asked for, and measured by no arm so far: {', '.join(absent)}."
    for arm in arms:
        for column in columns:
            value = arm.figure(column.key)
            if value is not None and value.value is None:
                yield f"{arm.label}, {column.line}: {value.error or 'no value'}"


def _star_notes(values: Sequence[Value], arms: Sequence[Arm], columns: Sequence[Column]) -> Iterable[str]:
    """What the star says, and what it does not say of bounds; which columns have none for a bound's sake."""
    note = "★: best by the figure's own direction, or nearest to held-out text where it has none."
    bounds = any(value.relation != "=" and value.better != "neither" for value in values)
    yield note + " Among bounds it is the best bound: the true figures may lie in another order." * bounds
    hidden = [column.line for column in columns if best_of(arms, column.key)[1] == HIDDEN]
    if hidden:
        yield f"No ★ for {', '.join(hidden)}: {HIDDEN}."


def _plain(number: float | None) -> str:
    return "" if number is None else f"{number:.8g}"
