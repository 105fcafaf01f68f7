"""The main table on a terminal, by rich."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from workbench.report.tables import MISSING, Cell, Row, Table
from workbench.report.words import visible

MANY = 8
"""Runs are rows where there are more than so many, however narrow the terminal."""
FOLD = 12
"""Names keep words of so many characters whole where a terminal is too narrow for longer ones."""
BESIDE = 3
"""Characters between two columns."""
EDGES = 2
"""Characters beside a table."""


def show(table: Table, console: Console) -> None:
    """Print ``table``, whichever way round fits: runs as rows; few that do not fit stand beside one another, figures as
    rows, in as many tables as it takes; of many the first figures are shown, and it is said which are left out.

    A figure is never cut: where nothing fits, lines are longer than the terminal.
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
        if not _fits(part, console):
            part.width = _width(part, console)  # given less, rich crops the last columns' digits without a sign
        console.print(part, crop=False)
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
    """Tables by figure of as many runs as fit, at least one, each beside the real text's figures; these in tables of
    their own where they do not fit beside one run."""
    runs, real = [row for row in table.rows if not row.real], [row for row in table.rows if row.real]
    for size in range(len(runs), 0, -1):
        parts = [_by_figure(table, [*runs[i : i + size], *real], console) for i in range(0, len(runs), size)]
        if all(_fits(part, console) for part in parts):
            return parts
    alone = [_by_figure(table, [run], console, FOLD) for run in runs]
    known = [i for i, _ in enumerate(table.columns) if any(row.cells[i].text != MISSING for row in real)]
    measured = replace(table, columns=tuple(table.columns[i] for i in known))
    rows = [replace(row, cells=tuple(row.cells[i] for i in known)) for row in real]
    together = _by_figure(measured, rows, console, FOLD)
    apart = [_by_figure(measured, [row], console, FOLD) for row in rows]
    return [*alone, together] if rows and _fits(together, console) else alone + apart


def _fits(shown: RichTable, console: Console) -> bool:
    return _width(shown, console) <= console.width


def _width(shown: RichTable, console: Console) -> int:
    boundless = console.options.update(width=10_000)  # a measure is cut to its options' width
    return Measurement.get(console, boundless, shown).maximum


def _by_figure(table: Table, rows: list[Row], console: Console, fold: int | None = None) -> RichTable:
    """Figures as rows; headings and names go on below where it is narrow, words of more than ``fold`` characters too.

    Columns have widths of their own, for rich shrinks the widest whatever they hold.
    """
    heads = [[column.line for column in table.columns], *([visible(row.label)] for row in rows)]
    whole = [1, *(max((cell_len(_figure(cell, row).plain) for cell in row.cells), default=1) for row in rows)]
    most = [max(least, *map(cell_len, texts), 1) for least, texts in zip(whole, heads, strict=True)]
    words = [max(map(cell_len, " ".join(texts).split()), default=1) for texts in heads]
    least = [max(least, min(word, fold or word)) for least, word in zip(whole, words, strict=True)]
    room = console.width - BESIDE * len(rows) - EDGES
    widths = _squeezed(most, [most[0], *least[1:]], room)  # names go on below once, headings in many rows
    widths = _squeezed(widths, least, room)
    shown = _frame()
    shown.add_column("", width=widths[0], overflow="fold")
    for row, width in zip(rows, widths[1:], strict=True):
        shown.add_column(_label(row), justify="right", width=width, overflow="fold")
    for index, column in enumerate(table.columns):
        shown.add_row(Text(column.line), *(_figure(row.cells[index], row) for row in rows))
    return shown


def _squeezed(most: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns that together take ``room``, or as little as they can: the widest give way first."""
    widths = list(most)
    while sum(widths) > room and (loose := [i for i, width in enumerate(widths) if width > least[i]]):
        widths[max(loose, key=lambda i: widths[i])] -= 1
    return widths


def _frame() -> RichTable:
    return RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=False)


def _label(row: Row) -> Text:
    # Text, never markup: a name may hold brackets.
    return Text(visible(row.label), style="italic" if row.real else "bold")


def _figure(cell: Cell, row: Row) -> Text:
    return Text("failed", style="red") if cell.error else Text(cell.text, style="italic" if row.real else "")
