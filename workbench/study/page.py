"""The page of a study: claims first, then a section for each question; made at any time from files alone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.files import write_text
from workbench.grid.status import Standing, by_grid
from workbench.report import html, latex, markdown, words
from workbench.report.collect import Run
from workbench.report.grid_page import FIGURES, GridPage, csv_of, grid_page, html_parts, markdown_parts
from workbench.report.tables import Table
from workbench.study.base import Verdict, together
from workbench.study.plan import PlannedStudy
from workbench.study.section import Claimed

SIGNS = {"holds": "✔", "does not hold": "✘", "open": "?", "not measured": "–"}
"""A sign beside the word: read without colour."""
HEADS = ("claim", "claimed", "here", "measured", "how")


@dataclass(frozen=True)
class Told:
    """A claim and what this run's figures say of it."""

    name: str
    claim: Claimed
    verdict: Verdict

    @property
    def answer(self) -> str:
        """With its sign."""
        return f"{SIGNS[self.verdict.answer]} {self.verdict.answer}"

    @property
    def claimed(self) -> str:
        """What was claimed, and where."""
        return self.claim.says + f" ({self.claim.source})" * bool(self.claim.source)

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        verdict = self.verdict
        facts = {"answer": verdict.answer, "measured": verdict.measured, "how": verdict.how}
        return {"claim": self.name, "says": self.claim.says, "source": self.claim.source, **facts}


@dataclass(frozen=True)
class StudyPage:
    """What stands on the page. ``asks``: each question in words."""

    title: str
    lead: str
    told: Sequence[Told]
    questions: Mapping[str, GridPage]
    asks: Mapping[str, str]

    @property
    def tables(self) -> list[Table]:
        """The questions' tables."""
        return [page.table for page in self.questions.values()]

    @property
    def trainings(self) -> list[Run]:
        """Each run once."""
        return list({run.hash: run for page in self.questions.values() for run in page.trainings}.values())


def study_page(planned: PlannedStudy, found: Sequence[Standing]) -> StudyPage:
    """Put the page together."""
    pages = {name: grid_page(grid, cells) for name, grid, cells in by_grid(planned, found)}
    told = [
        Told(name, claim, together([test(pages[claim.question].arms) for test in claim.tests]))
        for name, claim in planned.study.claims.items()
    ]
    done = sum(one.state == "done" for one in found)
    counts = ", ".join(
        f"{number} {answer}" for answer in SIGNS if (number := sum(one.verdict.answer == answer for one in told))
    )
    lead = (
        f"{done} of {len(found)} cells measured. {len(told)} claims: {counts or 'none'}. {planned.study.note}".rstrip()
    )
    asks = {name: str(asked.get("asks") or name) for name, asked in planned.study.questions.items()}
    return StudyPage(planned.name, lead, told, pages, asks)


def write_study(page: StudyPage, out: Path) -> list[Path]:
    """Write a page into ``out`` (made where absent); returns the files, the HTML first."""
    date = time.strftime("%Y-%m-%d %H:%M")
    claims = json.dumps([one.as_data() for one in page.told], indent=1, ensure_ascii=False) + "\n"
    files = {"report.html": _html(page, date), "report.md": _markdown(page, date), "claims.json": claims}
    for name, question in page.questions.items():
        files |= {f"{name}.csv": csv_of(question), f"{name}.tex": latex.table(question.table, question.title)}
        plots = (*question.plots, *question.curves)
        files |= {f"{FIGURES}/{name}/{plot.name}.svg": plot.svg + "\n" for plot in plots}
    for file, text in files.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        write_text(out / file, text, sync=False)
    return [out / file for file in files]


def _html(page: StudyPage, date: str) -> str:
    parts = [html.section("Claims", _claims(page.told))] if page.told else []
    for name, question in page.questions.items():
        lead = f'<p class="quiet">{html.escape(question.lead)}</p>'
        inner = "".join(f"<h3>{html.escape(heading)}</h3>\n{body}\n" for heading, body in html_parts(question))
        parts.append(html.section(page.asks[name], lead + inner))
    runs = page.trainings
    parts.append(html.settings_of(runs) if runs else "")
    parts.append(html.section("Provenance", "".join(html.provenance(run) for run in runs)))
    return html.filled(page.title, f'<p class="lead">{html.escape(page.lead)}</p>', parts, date)


def _claims(told: Sequence[Told]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADS)
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(one.name)}</th><td>{html.escape(one.claimed)}</td>'
        f"<td><b>{html.escape(one.answer)}</b></td><td>{html.escape(one.verdict.measured)}</td>"
        f'<td class="quiet">{html.escape(one.verdict.how)}</td></tr>'
        for one in told
    )
    body = f"<caption>Claims</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>"
    return html.scrolled(f'<table class="settings claims">{body}</table>', "Claims")


def _markdown(page: StudyPage, date: str) -> str:
    parts = [f"# {markdown.line(page.title)}", markdown.line(page.lead)]
    rows = [[one.name, one.claimed, one.answer, one.verdict.measured, one.verdict.how] for one in page.told]
    parts += ["## Claims", markdown.grid(HEADS, rows)] if rows else []
    for name, question in page.questions.items():
        parts += [f"## {markdown.line(page.asks[name])}", markdown.line(question.lead)]
        for heading, body in markdown_parts(question, f"{FIGURES}/{name}"):
            parts += [f"### {heading}", body]
    parts.append(words.made(date))
    return "\n\n".join(parts) + "\n"
