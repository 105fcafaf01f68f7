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


def console() -> Console:
    """Where commands print to."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=False)


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
