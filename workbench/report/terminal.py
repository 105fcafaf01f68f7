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
"""Rows from which runs stay rows, however narrow the terminal."""


def show(table: Table, console: Console) -> None:
    """Print ``table``, whichever way round fits; runs side by side that do not all fit stand below one another."""
    wide = _by_run(table)
    blocks = _by_columns if len(table.rows) > MANY else _blocks
    for part in [wide] if _fits(wide, console) else blocks(table, console):
        console.print(part)
    for row in table.rows:
        if row.remark:
            console.print(Text(visible(f"{row.label}: {row.remark}"), style="yellow"))
    for note in table.notes:
        console.print(Text(visible(note), style="dim"))


def _by_run(table: Table) -> RichTable:
    shown = _frame()
    shown.add_column("", no_wrap=True)
    for column in table.columns:
        shown.add_column(Text(f"{column.head}\n{column.unit}".strip()), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(_label(row), *(_figure(cell, row) for cell in row.cells))
    return shown


def _by_columns(table: Table, console: Console) -> list[RichTable]:
    """All runs as rows, as many figures beside one another as fit, at least one."""
    size = next((n for n in range(len(table.columns), 1, -1) if all(_fits(p, console) for p in _cut(table, n))), 1)
    return _cut(table, size)


def _cut(table: Table, size: int) -> list[RichTable]:
    """The table in pieces of ``size`` columns."""
    pieces = (slice(start, start + size) for start in range(0, len(table.columns), size))

    def rows(at: slice) -> tuple[Row, ...]:
        return tuple(replace(row, cells=row.cells[at]) for row in table.rows)

    return [_by_run(replace(table, columns=table.columns[at], rows=rows(at))) for at in pieces]


def _blocks(table: Table, console: Console) -> list[RichTable]:
    """Tables by figure of as many runs as fit, at least one, each beside the real text's figures."""
    runs, real = [row for row in table.rows if not row.real], [row for row in table.rows if row.real]
    for size in range(len(runs), 1, -1):
        parts = [_by_figure(table, [*runs[i : i + size], *real]) for i in range(0, len(runs), size)]
        if all(_fits(part, console) for part in parts):
            return parts
    return [_by_figure(table, [run, *real]) for run in runs] or [_by_figure(table, real)]


def _fits(shown: RichTable, console: Console) -> bool:
    boundless = console.options.update(width=10_000)  # a measure is cut to its options' width
    return Measurement.get(console, boundless, shown).maximum <= console.width


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
