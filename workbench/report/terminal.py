"""The main table on a terminal, by rich."""

from __future__ import annotations

from dataclasses import replace

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from workbench.report.tables import Cell, Row, Table
from workbench.report.words import visible

MANY = 8
"""Runs are rows where there are more than so many, however narrow the terminal."""


def show(table: Table, console: Console) -> None:
    """Print ``table``, whichever way round fits: runs as rows; few that do not fit stand beside one another, figures as
    rows, in as many tables as it takes; of many the first figures are shown, and it is said which are left out.
    """
    wide, folded, left = _by_run(table), _by_run(table, console.width // 3), ""
    if _fits(wide, console):
        shown = [wide]
    elif _fits(folded, console) or len(table.columns) < 2:
        shown = [folded]
    elif len(table.rows) > MANY:
        shown, left = _first_figures(table, console)
    else:
        shown = _blocks(table, console)
    for part in shown:
        console.print(part)
    for row in table.rows:
        if row.remark:
            console.print(Text(visible(f"{row.label}: {row.remark}"), style="yellow"))
    for note in (*table.notes, *[left] * bool(left)):
        console.print(Text(visible(note), style="dim"))


def _by_run(table: Table, most: int | None = None) -> RichTable:
    """Runs as rows; their names take ``most`` characters, and go on below."""
    shown = _frame()
    shown.add_column("", no_wrap=most is None, overflow="fold", max_width=most)
    for column in table.columns:
        shown.add_column(Text(f"{column.head}\n{column.unit}".strip()), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(_label(row), *(_figure(cell, row) for cell in row.cells))
    return shown


def _first_figures(table: Table, console: Console) -> tuple[list[RichTable], str]:
    """All runs as rows with as many figures as fit, at least one; the rest by name, with the room that all need."""
    for size in range(len(table.columns) - 1, 0, -1):
        rows = tuple(replace(row, cells=row.cells[:size]) for row in table.rows)
        shown = _by_run(replace(table, columns=table.columns[:size], rows=rows), console.width // 3)
        if size == 1 or _fits(shown, console):
            break
    left, wide = ", ".join(column.line for column in table.columns[size:]), _width(_by_run(table), console)
    return [shown], f"No room for: {left}. All take {wide} characters a line: COLUMNS={wide} workbench … | less -S"


def _blocks(table: Table, console: Console) -> list[RichTable]:
    """Tables by figure of as many runs as fit, at least one, each beside the real text's figures."""
    runs, real = [row for row in table.rows if not row.real], [row for row in table.rows if row.real]
    for size in range(len(runs), 1, -1):
        parts = [_by_figure(table, [*runs[i : i + size], *real]) for i in range(0, len(runs), size)]
        if all(_fits(part, console) for part in parts):
            return parts
    return [_by_figure(table, [run, *real]) for run in runs] or [_by_figure(table, real)]


def _fits(shown: RichTable, console: Console) -> bool:
    return _width(shown, console) <= console.width


def _width(shown: RichTable, console: Console) -> int:
    boundless = console.options.update(width=10_000)  # a measure is cut to its options' width
    return Measurement.get(console, boundless, shown).maximum


def _by_figure(table: Table, rows: list[Row]) -> RichTable:
    shown = _frame()
    shown.add_column("")
    for row in rows:
        whole = max((len(cell.text) for cell in row.cells), default=1)
        shown.add_column(_label(row), justify="right", min_width=whole)
    for index, column in enumerate(table.columns):
        shown.add_row(Text(column.line), *(_figure(row.cells[index], row) for row in rows))
    return shown


def _frame() -> RichTable:
    return RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=False)


def _label(row: Row) -> Text:
    # Text, never markup: a name may hold brackets.
    return Text(visible(row.label), style="italic" if row.real else "bold")


def _figure(cell: Cell, row: Row) -> Text:
    return Text("failed", style="red") if cell.error else Text(cell.text, style="italic" if row.real else "")
