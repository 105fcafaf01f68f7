"""A table for a paper: booktabs, no other package."""

from __future__ import annotations

import re

from workbench.report.tables import Cell, Table
from workbench.report.words import visible

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≤": r"$\leq$", "≥": r"$\geq$", "±": r"$\pm$",
    "·": r"$\cdot$", "−": "$-$", "–": "--", "★": r"$\star$", "→": r"$\to$",
}  # fmt: skip


def table(shown: Table, caption: str) -> str:
    """The table as LaTeX, with its notes as comments."""
    heads = [escape(column.line) for column in shown.columns]
    rows = [[escape(row.label), *(_figure(cell) for cell in row.cells)] for row in shown.rows]
    body = [_line(["", *heads]), r"\midrule", *map(_line, rows)]
    notes = [f"% {_one_line(note)}" for note in shown.notes]
    return "\n".join(
        [
            *notes,
            r"\begin{table}",
            rf"\caption{{{escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found.group()], _one_line(text))


def _one_line(text: str) -> str:
    """Text without breaks: what stood behind one would be no comment any more."""
    return visible(" ".join(text.split()))


def _figure(cell: Cell) -> str:
    return "failed" if cell.error else escape(cell.text)


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
