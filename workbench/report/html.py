"""A report as one HTML page that opens without a network: inline style and SVG, all text escaped.

The one script makes tables sortable; the page's policy names it by its hash and lets no other run. Without it, and in
print, the page is the same but for the order of rows.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any

from workbench.report import words
from workbench.report.collect import Run, differing
from workbench.report.differences import beside
from workbench.report.grid_tables import BEST
from workbench.report.plots import Plot, colour, dashes
from workbench.report.tables import Cell, Row, Table
from workbench.train.log import flat

SHOWN = 3
"""Samples shown before "more"."""
SAMPLES = 24
"""Samples on the page at most."""
NUMBER = re.compile(r"([+−-]?)([\d,]*\.?\d+(?:e[+-]?\d+)?) ?([kMB]?)\b")
SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}


def page(runs: Sequence[Run], table: Table, plots: Sequence[Plot], date: str) -> str:
    """The page's text."""
    gaps = beside(runs)
    title = f"Differences to {runs[0].label}" if runs else ""
    parts = [
        section("Figures", table_of(table, "Figures of each run") + notes_of(table)) if table.columns else "",
        section(title, table_of(gaps, title) + notes_of(gaps)) if gaps.rows else "",
        section("Curves", legend_of([run.label for run in runs]) + panels(plots)) if plots else "",
        section("Samples", samples(runs)) if any(run.results and run.results.samples for run in runs) else "",
        settings_of(runs),
        section("Provenance", "".join(provenance(run) for run in runs)),
    ]
    remarks = "".join(
        f"<p class='quiet'>{escape(row.label)}: {escape(row.remark)}</p>"
        for row in table.rows
        if row.remark and not table.columns
    )
    lead = f'<p class="lead">{escape(words.summary(runs)).replace(" ± ", "&nbsp;± ")}</p>{remarks}'
    return filled(words.title(runs), lead, parts, date)


def filled(title: str, lead: str, parts: Sequence[str], date: str) -> str:
    """The page with a title, a lead and parts, which are HTML."""
    script = asset("sort.js")
    return template("page.html").substitute(
        title=escape(title),
        style=asset("style.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lead=lead,
        body="\n".join(part for part in parts if part),
        footer=escape(words.made(date)),
    )


def escape(text: object) -> str:
    """Text as HTML that shows it, in an attribute as well."""
    return html.escape(words.visible(text))


def section(heading: str, body: str) -> str:
    """A part of the page under a heading; ``body`` is HTML."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>"


def table_of(table: Table, caption: str, first: str = "run") -> str:
    """A table as HTML; ``caption``: what a screen reader says of it; ``first``: the heading of its rows' names."""
    head = "".join(
        f'<th scope="col">{escape(column.head)}<small>{escape(column.unit) or "&nbsp;"}</small></th>'
        for column in table.columns
    )
    rows = "\n".join(_row(row) for row in table.rows)
    body = (
        f'<table class="sortable"><caption>{escape(caption)}</caption>\n'
        f'<thead><tr><th scope="col">{escape(first)}</th>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'
    )
    return scrolled(body, caption) + _details(table, caption, first)


def _details(table: Table, caption: str, first: str) -> str:
    """What a pointer shows of each figure, for those who have none: intervals, and how it was measured."""
    rows = "".join(
        f'<tr><th scope="row">{escape(row.label)}</th><td>{escape(column.line)}</td><td>{escape(cell.text)}</td>'
        f"<td>{escape(cell.error or cell.detail)}</td></tr>"
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.detail or cell.error
    )
    if not rows:
        return ""
    what = f"{caption}: intervals and methods"
    head = "".join(f'<th scope="col">{word}</th>' for word in (escape(first), "figure", "value", "how"))
    body = f"<caption>{escape(what)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    shown = scrolled(f'<table class="settings">{body}</table>', what)
    return f"<details><summary>intervals and methods</summary>{shown}</details>"


def scrolled(body: str, what: str) -> str:
    """HTML in a place that scrolls where the screen is narrower, by keys as well."""
    return f'<div class="scroll" role="region" aria-label="{escape(what)}" tabindex="0">{body}</div>'


def _row(row: Row) -> str:
    remark = f'<span class="remark">{escape(row.remark)}</span>' if row.remark else ""
    kind = ' class="real"' if row.real else ""
    cells = "".join(_cell(cell) for cell in row.cells)
    label = escape(row.label)
    return f'<tr{kind}><th scope="row" data-sort="{label}">{label}{remark}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    if cell.error:
        return f'<td class="error" title="{escape(cell.error)}">failed</td>'
    # A figure keeps together, so that ± never starts a line.
    detail = f' title="{escape(cell.detail)}"' if cell.detail else ""
    best = ' class="best"' if cell.text.startswith(BEST) else ""
    return f'<td{best}{detail} data-sort="{number_in(cell.text)}">{escape(cell.text)}</td>'


def number_in(text: str) -> str:
    """The number by which a cell sorts: the first in it, its size (k, M, B) counted; "" where there is none."""
    found = NUMBER.search(text)
    if found is None:
        return ""
    sign, digits, size = found.groups()
    return f"{(-1.0 if sign in ('−', '-') else 1.0) * float(digits.replace(',', '')) * SIZES[size]:.10g}"


def notes_of(table: Table) -> str:
    """Its notes as a list; where figures have details, that a pointer shows them."""
    hover = ["Hover over a figure for its interval."] * any(cell.detail for row in table.rows for cell in row.cells)
    items = "".join(f"<li>{escape(note)}</li>" for note in (*table.notes, *hover))
    return f'<ul class="notes">{items}</ul>' if items else ""


def legend_of(labels: Sequence[str], signs: str = "") -> str:
    """Colours and dashes, or markers (``signs``), beside what they stand for, in the order of the plots."""
    items = "".join(f"<li>{_mark(i, signs)}{escape(label)}</li>" for i, label in enumerate(labels))
    return f'<ul class="legend">{items}</ul>\n'


def _mark(index: int, signs: str) -> str:
    if signs:
        return f'<span style="color:{colour(index)}" aria-hidden="true">{signs[index % len(signs)]}</span>'
    return (
        f'<svg viewBox="0 0 38 10" aria-hidden="true"><line x1="1" y1="5" x2="37" y2="5" stroke="{colour(index)}" '
        f'stroke-width="2.5" stroke-dasharray="{dashes(index)}"/></svg>'
    )


def items(texts: Sequence[str]) -> str:
    """Texts as a list."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def panels(plots: Sequence[Plot]) -> str:
    """Plots with their captions, and legends of their own, side by side where they fit."""
    figures = "\n".join(
        f"<figure><h3>{escape(plot.title)}</h3>\n{legend_of(plot.legend, plot.signs) if plot.legend else ''}"
        f"{_named(plot)}\n<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    )
    return f'<div class="panels">\n{figures}\n</div>'


def _named(plot: Plot) -> str:
    """The SVG with a name for those who do not see it."""
    return plot.svg.replace('role="img"', f'role="img" aria-label="{escape(plot.title)}"', 1)


def samples(runs: Sequence[Run]) -> str:
    """Texts of runs, and held-out text, side by side."""
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


def settings_of(runs: Sequence[Run]) -> str:
    """What differs between runs, and all their settings."""
    parts = []
    title = "Settings that differ" if len(runs) > 1 else "Settings"
    if len(runs) > 1 and (found := differing(runs)):
        head = "".join(f'<th scope="col">{escape(run.label)}</th>' for run in runs)
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{_setting(value)}</td>" for value in values)}</tr>'
            for name, values in found.items()
        )
        head = f'<thead><tr><th scope="col">setting</th>{head}</tr></thead>'
        table = f'<table class="settings"><caption>{title}</caption>{head}<tbody>{rows}</tbody></table>'
        parts.append(scrolled(table, title))
    for run in runs:
        lines = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{_setting(value)}</td></tr>'
            for name, value in flat(run.settings).items()
        )
        if lines:
            what = f"all settings of {escape(run.label)}"
            table = f'<table class="settings"><caption>{what}</caption><tbody>{lines}</tbody></table>'
            parts.append(f"<details><summary>{what}</summary>{table}</details>")
    if not parts:
        return ""
    return section(title, "\n".join(parts))


def _setting(value: Any) -> str:
    return "–" if value is None else escape(value)


def provenance(run: Run) -> str:
    """Where a run's figures come from."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in words.provenance(run))
    return f"<h3>{escape(run.label)}</h3>\n<dl>{facts}</dl>\n"


def asset(name: str) -> str:
    """A text file of this package."""
    return resources.files("workbench.report").joinpath(name).read_text(encoding="utf-8")


def template(name: str) -> Template:
    """A template of this package."""
    return Template(asset(name))
