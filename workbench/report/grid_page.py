"""The page of a grid: report.html, report.md, report.csv, report.tex, figures.

Made at any time from files alone; cells that are not done, or failed, are told as such.
"""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.files import write_text
from workbench.report import html, latex, markdown, words
from workbench.report.arms import Arm, arms_of
from workbench.report.collect import Run
from workbench.report.curves import Group, all_plots
from workbench.report.differences import Difference, compared, differences_table
from workbench.report.frontiers import SIGNS, frontier
from workbench.report.grid_tables import arms_table, long_rows
from workbench.report.plots import Plot
from workbench.report.scaling import laws, scaling_plot, scaling_table
from workbench.report.tables import Table, significant
from workbench.report.tried import sentence, tried_table

if TYPE_CHECKING:
    from workbench.grid.cells import Planned
    from workbench.grid.status import Standing

SAMPLED = 12
"""Arms whose samples are shown."""
CURVES = 8
"""Lines in a panel of curves: more cannot be told apart."""
FIGURES = "figures"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


NOTHING_TRIED = Table((), ())


@dataclass(frozen=True)
class GridPage:
    """What stands on the page."""

    title: str
    lead: str
    table: Table
    differences: Sequence[Difference]
    plots: Sequence[Plot]
    curves: Sequence[Plot]
    groups: Sequence[Group]
    arms: Sequence[Arm]
    axes: Sequence[str]
    failed: Sequence[str]
    trainings: Sequence[Run]
    tried: Table = NOTHING_TRIED
    scaling: Sequence[Table] = ()


def write_page(page: GridPage, out: Path) -> list[Path]:
    """Write a page into ``out`` (made where absent); returns the files, the HTML first."""
    date = time.strftime("%Y-%m-%d %H:%M")
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    files = {
        "report.html": _html(page, date),
        "report.md": _markdown(page, date),
        "report.csv": csv_of(page),
        "report.tex": latex.table(page.table, page.title),
        **{f"{FIGURES}/{plot.name}.svg": plot.svg + "\n" for plot in (*page.plots, *page.curves)},
    }
    for name, text in files.items():
        write_text(out / name, text, sync=False)
    return [out / name for name in files]


def grid_page(planned: Planned, found: Sequence[Standing]) -> GridPage:
    """Put the page together."""
    settings = planned.report
    arms = arms_of(found, settings.over)
    trainings = list({run.hash: run for arm in arms for run in arm.repeats.values()}.values())
    done = sum(one.state == "done" for one in found)
    drawn = (frontier(arms, wanted, number) for number, wanted in enumerate(settings.frontiers))
    groups = groups_of(arms)
    fitted = [(wanted, laws(arms, wanted)) for wanted in settings.scaling]
    scaled = (scaling_plot(arms, one, wanted, number) for number, (wanted, one) in enumerate(fitted))
    plots = [plot for plot in (*drawn, *scaled) if plot is not None]
    lead = f"{done} of {len(found)} cells measured: {len(arms)} arms"
    lead += f", {len(trainings)} training{'s' * (len(trainings) != 1)}."
    lead = " ".join(text for text in (lead, sentence(found), took(planned, arms), settings.note) if text)
    axes = [axis for axis in planned.grid.axes if axis not in settings.over]
    return GridPage(
        title=planned.name,
        lead=lead,
        table=arms_table(arms, settings.columns),
        differences=compared(arms, settings.compare),
        plots=plots,
        curves=all_plots(groups[:CURVES]),
        groups=groups,
        arms=arms,
        axes=axes,
        failed=[text for arm in arms for text in arm.failed],
        trainings=trainings,
        tried=tried_table(found),
        scaling=[scaling_table(one, wanted) for wanted, one in fitted],
    )


def took(planned: Planned, arms: Sequence[Arm]) -> str:
    """What training took by the logs, where the grid holds its arms to the wall clock; "" elsewhere."""
    bound = planned.grid.fair.seconds
    runs = {run.hash: run for arm in arms if not arm.baseline for run in arm.repeats.values() if run.log}
    logged = [(float(run.log[-1].get("seconds") or 0.0), run) for run in runs.values()]
    if bound is None or len(logged) < 2:
        return ""
    (least, fast), (most, slow) = (end(logged, key=lambda pair: pair[0]) for end in (min, max))
    verdict = "within" if most <= least * (1 + float(bound)) else "NOT within"
    return (
        f"Training took {significant(least)} s ({fast.label}) to {significant(most)} s ({slow.label}), {verdict} the "
        f"{float(bound):.0%} that the grid allows."
    )


def groups_of(arms: Sequence[Arm]) -> list[Group]:
    """The trainings of arms, their repetitions together; arms that differ only after training share theirs."""
    found: dict[tuple[str, ...], list[Arm]] = {}
    for arm in arms:
        hashes = tuple(dict.fromkeys(run.hash for run in arm.repeats.values()))
        if hashes:
            found.setdefault(hashes, []).append(arm)
    groups = []
    for hashes, sharing in found.items():
        runs = {run.hash: run for arm in sharing for run in arm.repeats.values()}
        more = f" and {len(sharing) - 1} more of the same training" if len(sharing) > 1 else ""
        groups.append(Group(sharing[0].label + more, tuple(runs[one] for one in hashes)))
    return groups


def _html(page: GridPage, date: str) -> str:
    shown = [run for arm in page.arms[:SAMPLED] if (run := arm.run) is not None]
    parts = [
        *(html.section(heading, body) for heading, body in html_parts(page)),
        html.settings_of(shown) if shown else "",
        html.section("Provenance", "".join(html.provenance(run) for run in page.trainings)),
    ]
    return html.filled(page.title, f'<p class="lead">{html.escape(page.lead)}</p>', parts, date)


def html_parts(page: GridPage) -> list[tuple[str, str]]:
    """What a page shows of its figures: (heading, HTML)."""
    shown = [run for arm in page.arms[:SAMPLED] if (run := arm.run) is not None]
    gaps = differences_table(page.differences, page.arms)
    titles = ("Figures of each arm", "Differences to the baseline", "What was tried", "Power laws")
    parts = [("Figures", html.table_of(page.table, titles[0], "arm") + html.notes_of(page.table))]
    if gaps.rows:
        parts.append((titles[1], html.table_of(gaps, titles[1], "arm") + html.notes_of(gaps)))
    parts += [
        ("Power law", html.table_of(law, titles[3], "arms") + html.notes_of(law)) for law in page.scaling if law.rows
    ]
    if page.tried.rows:
        parts.append(("Tried", html.table_of(page.tried, titles[2], "cell") + html.notes_of(page.tried)))
    if page.plots:
        parts.append(("Figures against each other", html.panels(page.plots)))
    if page.curves:
        told = "".join(f'<p class="quiet">{html.escape(text)}</p>' for text in _left_out(page))
        legend = html.legend_of([group.label for group in page.groups[:CURVES]])
        parts.append(("Curves", legend + html.panels(page.curves) + told))
    if page.failed:
        parts.append(("Not measured", html.items(page.failed)))
    if any(run.results and run.results.samples for run in shown):
        parts.append(("Samples", html.samples(shown)))
    return parts


def _left_out(page: GridPage) -> list[str]:
    more = len(page.groups) - CURVES
    return [f"Curves of the first {CURVES} trainings; {more} more are left out."] if more > 0 else []


def _markdown(page: GridPage, date: str) -> str:
    parts = [f"# {markdown.line(page.title)}", markdown.line(page.lead)]
    for heading, body in markdown_parts(page):
        parts += [f"## {heading}", body]
    parts.append(words.made(date))
    return "\n\n".join(parts) + "\n"


def markdown_parts(page: GridPage, figures: str = FIGURES) -> list[tuple[str, str]]:
    """What a page shows of its figures: (heading, Markdown); ``figures``: the folder of the plots."""
    table = differences_table(page.differences, page.arms)
    parts = [("Figures", markdown.with_notes(page.table, "arm"))]
    if table.rows:
        parts.append(("Differences to the baseline", markdown.with_notes(table, "arm")))
    parts += [("Power law", markdown.with_notes(law, "arms")) for law in page.scaling if law.rows]
    if page.tried.rows:
        parts.append(("Tried", markdown.with_notes(page.tried, "cell")))
    drawn = []
    for plot in (*page.plots, *page.curves):  # the SVG has no words beside its axes, and Markdown no legend
        told = ", ".join(f"{mark} {label}" for mark, label in zip(itertools.cycle(SIGNS), plot.legend, strict=False))
        text = f"![{plot.title}]({figures}/{plot.name}.svg)\n\n*{plot.title}.* {plot.caption}"
        drawn.append(text + f" Lines in order, markers as drawn: {markdown.line(told)}." * bool(told))
    if page.curves:
        names = ", ".join(markdown.line(group.label) for group in page.groups[:CURVES])
        drawn.append(" ".join([f"Lines of the curves, in order: {names}.", *_left_out(page)]))
    if drawn:
        parts.append(("Plots", "\n\n".join(drawn)))
    if page.failed:
        parts.append(("Not measured", "\n".join(f"- {markdown.line(text)}" for text in page.failed)))
    return parts


def csv_of(page: GridPage) -> str:
    """Every figure of every repetition."""
    heads, rows = long_rows(page.arms, page.axes)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_inert(text) for text in row] for row in [heads, *rows]])
    return out.getvalue()


def _inert(text: str) -> str:
    """Text that a spreadsheet shows and does not run as a formula; a number, and a sign alone, are left as they are."""
    return f"'{text}" if text[:1] in FORMULA and len(text) > 1 and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
