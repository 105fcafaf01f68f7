"""A report as Markdown: the same table, words and samples; plots as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from workbench.report import words
from workbench.report.collect import Run, differing
from workbench.report.differences import beside
from workbench.report.plots import Plot
from workbench.report.tables import Cell, Table

SAMPLES = 2
"""Samples of each run."""


def document(runs: Sequence[Run], table: Table, plots: Sequence[Plot], folder: str, date: str) -> str:
    """The text; ``folder``: where the plots lie, relative to it."""
    parts = [f"# {line(words.title(runs))}", line(words.summary(runs))]
    if table.columns:
        parts.append(with_notes(table))
    parts += [f"{line(row.label)}: {line(row.remark)}." for row in table.rows if row.remark]
    gaps = beside(runs)
    if gaps.rows:
        parts += [f"## Differences to {line(runs[0].label)}", with_notes(gaps)]
    if plots:
        parts.append("## Curves")
        parts.append(f"Lines in the order of the table: {', '.join(line(run.label) for run in runs)}.")
        parts += [f"![{plot.title}]({folder}/{plot.name}.svg)\n\n*{plot.title}.* {plot.caption}" for plot in plots]
    parts += _samples(runs)
    if len(runs) > 1 and (found := differing(runs)):
        rows = [[name, *("–" if value is None else str(value) for value in values)] for name, values in found.items()]
        parts += ["## Settings that differ", grid(["setting", *(run.label for run in runs)], rows)]
    parts.append("## Provenance")
    for run in runs:
        facts = "\n".join(f"- {name}: {line(text)}" for name, text in words.provenance(run))
        parts.append(f"**{line(run.label)}**\n\n{facts}")
    parts.append(words.made(date))
    return "\n\n".join(part for part in parts if part) + "\n"


def table_text(table: Table, first: str = "run") -> str:
    """The main table alone; ``first``: the heading of its rows' names."""
    heads = [column.line for column in table.columns]
    return grid([first, *heads], [[row.label, *map(_figure, row.cells)] for row in table.rows], right=True)


def with_notes(table: Table, first: str = "run") -> str:
    """A table and its notes."""
    notes = "\n".join(f"- {line(note)}" for note in table.notes)
    return f"{table_text(table, first)}\n\n{notes}".rstrip()


def _figure(cell: Cell) -> str:
    return "failed" if cell.error else cell.text


def _samples(runs: Sequence[Run]) -> Iterable[str]:
    texts: list[tuple[str, Sequence[str]]] = [(run.label, run.results.samples) for run in runs if run.results]
    texts += [("held-out text", run.results.real) for run in runs if run.results and run.results.real][:1]
    if not any(shown for _, shown in texts):
        return
    yield "## Samples"
    for label, shown in texts:
        for text in shown[:SAMPLES]:
            yield f"{line(label)}:\n\n{fenced(text.strip())}"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """A table; ``right``: numbers stand to the right."""
    rule = ["---", *(("---:" if right else "---") for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(map(line, cells))} |" for cells in (heads, rule, *rows))


def line(text: Any) -> str:
    """Text as one line of Markdown that means itself: in a table's cell as well."""
    flat = words.visible(" ".join(str(text).split()))
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", flat)


def fenced(text: str) -> str:
    """Text as a code block whose fence is longer than any in it."""
    text = words.visible(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
