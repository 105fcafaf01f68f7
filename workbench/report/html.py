"""A report as one HTML page that opens without a network: inline style and SVG, no script, all text escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any

from workbench.report import words
from workbench.report.collect import Run, differing
from workbench.report.plots import Plot, colour, dashes
from workbench.report.tables import Cell, Row, Table
from workbench.train.log import flat

SHOWN = 3
"""Samples shown before "more"."""
SAMPLES = 24
"""Samples on the page at most."""


def page(runs: Sequence[Run], table: Table, plots: Sequence[Plot], date: str) -> str:
    """The page's text."""
    parts = [
        _section("Figures", _table(table) + _notes(table)) if table.columns else "",
        _section("Curves", _legend(runs) + _panels(plots)) if plots else "",
        _section("Samples", _samples(runs)) if any(run.results and run.results.samples for run in runs) else "",
        _settings(runs),
        _section("Provenance", "".join(_provenance(run) for run in runs)),
    ]
    remarks = "".join(
        f"<p class='quiet'>{escape(row.label)}: {escape(row.remark)}</p>"
        for row in table.rows
        if row.remark and not table.columns
    )
    return _template("page.html").substitute(
        title=escape(words.title(runs)),
        style=_text("style.css"),
        lead=f'<p class="lead">{escape(words.summary(runs)).replace(" ± ", "&nbsp;± ")}</p>{remarks}',
        body="\n".join(part for part in parts if part),
        footer=f"Made {escape(date)} from what the run folders hold; nothing was trained or evaluated anew.",
    )


def escape(text: object) -> str:
    """Text as HTML that shows it, in an attribute as well."""
    return html.escape(words.visible(text))


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col">{escape(column.head)}<small>{escape(column.unit) or "&nbsp;"}</small></th>'
        for column in table.columns
    )
    rows = "\n".join(_row(row) for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">run</th>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(row: Row) -> str:
    remark = f'<span class="remark">{escape(row.remark)}</span>' if row.remark else ""
    kind = ' class="real"' if row.real else ""
    cells = "".join(_cell(cell) for cell in row.cells)
    return f'<tr{kind}><th scope="row">{escape(row.label)}{remark}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    if cell.error:
        return f'<td class="error" title="{escape(cell.error)}">failed</td>'
    # A figure keeps together, so that ± never starts a line.
    detail = f' title="{escape(cell.detail)}"' if cell.detail else ""
    return f"<td{detail}>{escape(cell.text)}</td>"


def _notes(table: Table) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _legend(runs: Sequence[Run]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 38 10" aria-hidden="true"><line x1="1" y1="5" x2="37" y2="5" stroke="{colour(i)}" '
        f'stroke-width="2.5" stroke-dasharray="{dashes(i)}"/></svg>{escape(run.label)}</li>'
        for i, run in enumerate(runs)
    )
    return f'<ul class="legend">{items}</ul>\n'


def _panels(plots: Sequence[Plot]) -> str:
    figures = "\n".join(
        f"<figure><h3>{escape(plot.title)}</h3>\n{plot.svg}\n<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    )
    return f'<div class="panels">\n{figures}\n</div>'


def _samples(runs: Sequence[Run]) -> str:
    columns = [(run.label, list(run.results.samples)) for run in runs if run.results]
    real = next((run.results.real for run in runs if run.results and run.results.real), ())
    columns += [("held-out text", list(real))] if real else []
    sections = "\n".join(
        f"<section><h3>{escape(label)}</h3>{_texts(texts)}</section>" for label, texts in columns if texts
    )
    said = '<p class="quiet">Unconditional, in the order drawn, not picked; each starts and ends mid-text.</p>\n'
    return f'{said}<div class="samples">\n{sections}\n</div>'


def _texts(texts: Sequence[str]) -> str:
    shown = [f"<pre>{escape(text.strip())}</pre>" for text in texts[:SAMPLES]]
    more = shown[SHOWN:]
    hidden = f"<details><summary>{len(more)} more</summary>{''.join(more)}</details>" if more else ""
    return "".join(shown[:SHOWN]) + hidden


def _settings(runs: Sequence[Run]) -> str:
    parts = []
    if len(runs) > 1 and (found := differing(runs)):
        head = "".join(f"<th>{escape(run.label)}</th>" for run in runs)
        rows = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(f'<td>{_setting(value)}</td>' for value in values)}</tr>"
            for name, values in found.items()
        )
        table = f'<table class="settings"><thead><tr><th>setting</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        parts.append(f'<div class="scroll" tabindex="0">{table}</div>')
    for run in runs:
        lines = "".join(
            f"<tr><th>{escape(name)}</th><td>{_setting(value)}</td></tr>" for name, value in flat(run.settings).items()
        )
        if lines:
            table = f'<table class="settings"><tbody>{lines}</tbody></table>'
            parts.append(f"<details><summary>all settings of {escape(run.label)}</summary>{table}</details>")
    if not parts:
        return ""
    return _section("Settings that differ" if len(runs) > 1 else "Settings", "\n".join(parts))


def _setting(value: Any) -> str:
    return "–" if value is None else escape(value)


def _provenance(run: Run) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in words.provenance(run))
    return f"<h3>{escape(run.label)}</h3>\n<dl>{facts}</dl>\n"


def _text(name: str) -> str:
    return resources.files("workbench.report").joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    return Template(_text(name))
