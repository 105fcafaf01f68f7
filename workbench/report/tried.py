"""What a sweep tried, and what was chosen: a table for a grid's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.report.tables import COLUMNS, Cell, Column, Row, Table, cell_of

if TYPE_CHECKING:
    from workbench.grid.status import Standing
    from workbench.grid.sweep import Tried

CHOSEN = "★"


def tried_table(found: Sequence[Standing]) -> Table:
    """A row for everything that was tried, cells that share their trials once."""
    from workbench.grid.sweep import best, edges, told

    figure = next(column for column in COLUMNS if column.key == "bits_per_byte")
    columns = (Column("tried", "tried", "", str), Column("selection", "selection", figure.unit, figure.write, True))
    rows: list[Row] = []
    at_edge: dict[str, list[str]] = {}
    groups: dict[tuple[str, ...], list[Standing]] = {}
    for one in found:
        if one.tried:
            groups.setdefault(tuple(each.option.trial.key for each in one.tried), []).append(one)
    for group in groups.values():
        first, more = group[0], f" and {len(group) - 1} more" if len(group) > 1 else ""
        over = not any(each.state == "due" for each in first.tried) and any(e.state == "done" for e in first.tried)
        winner = best(first.tried) if over else None
        for each in first.tried:
            mark = f"{CHOSEN} " * (each is winner)
            cells = (Cell(mark + told(each.option.values)), _figure(each, columns[1]))
            rows.append(Row(first.cell.name + more, cells))
        for words in edges(first.tried):
            at_edge.setdefault(words, []).append(first.cell.name + more)
    if not rows:
        return Table(columns, ())
    head = f"{CHOSEN}: chosen, by the first quarter of the held-out text; what is compared is of the rest alone."
    notes = [
        f"Chosen at the edge of the sweep, where a better value may lie beyond: {words} ({'; '.join(names)})."
        for words, names in at_edge.items()
    ]
    return Table(columns, tuple(rows), (head, *notes))


def sentence(found: Sequence[Standing]) -> str:
    """One sentence for the head of the page; "" without a sweep."""
    from workbench.grid.sweep import edges

    swept = [one for one in found if one.tried]
    if not swept:
        return ""
    at_edge = sum(bool(edges(one.tried)) for one in swept)
    settings = ", ".join(swept[0].tried[0].option.values)
    told = f" In {at_edge} of {len(swept)} cells it lies at the edge of what was tried." * bool(at_edge)
    return f"The best {settings} of each cell was chosen on held-out text that the figures are not of.{told}"


def _figure(one: Tried, column: Column) -> Cell:
    if one.state == "due":
        return Cell("not yet")
    return Cell(error=one.detail) if one.figure is None else cell_of(one.figure, column)
