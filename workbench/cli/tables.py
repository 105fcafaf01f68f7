"""Tables and text on the terminal; rich is imported when something is printed, not before."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 160
"""Columns where the output is no terminal."""


def console(wide: int | None = WIDE) -> Console:
    """Where commands print to; ``wide``: columns where that is no terminal, more where the environment's ``COLUMNS``
    says so (None: what rich takes). Fewer it cannot say: some set it for their own screens, and lines would break."""
    from rich.console import Console

    class Piped(Console):
        """A console whose reader may leave, as of any output."""

        def on_broken_pipe(self) -> None:
            """Leave it to the entry point; rich ends the process with status 1."""
            raise BrokenPipeError

    if wide is not None and (told := os.environ.get("COLUMNS", "")).isdigit():
        wide = max(wide, int(told))
    return Piped(width=None if sys.stdout.isatty() else wide, highlight=False, soft_wrap=False)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A table. Cells are plain text: square brackets in them mean nothing."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_figures(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table of figures, which are never broken: where they do not fit the terminal it is turned, or cut after the
    columns that fit, as `workbench.report.terminal` does. The first column names the rows."""
    from rich.text import Text

    from workbench.report.tables import Cell, Column, Row, Table
    from workbench.report.terminal import show

    heads = [name.partition(" ") for name in columns[1:]]
    figures = tuple(Column(head, head, rest, str) for head, _, rest in heads)
    printer = console()
    if title:
        printer.print(Text(title, style="bold"))
    show(Table(figures, tuple(Row(name, tuple(map(Cell, cells))) for name, *cells in rows)), printer)


def print_json(data: Any) -> None:
    """Data for another program to read."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def place(file: Path, line: int) -> str:
    """``file:line``, relative to the working folder where it lies below it."""
    try:
        return f"{file.resolve().relative_to(os.getcwd())}:{line}"
    except ValueError:
        return f"{file}:{line}"


def amount(value: float) -> str:
    """A count with three digits and a unit: 12.3 M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"
