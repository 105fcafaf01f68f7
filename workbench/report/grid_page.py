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
from workbench.report import html, latex, markdown
from workbench.report.arms import Arm, arms_of
from workbench.report.collect import Run
from workbench.report.differences import Difference, compared, differences_table
from workbench.report.frontiers import SIGNS, frontier
from workbench.report.grid_tables import arms_table, long_rows
from workbench.report.plots import Plot, all_plots
from workbench.report.scaling import laws, scaling_plot, scaling_table
from workbench.report.tables import Table, significant
from workbench.report.tried import sentence, tried_table

if TYPE_CHECKING:
    from workbench.grid.cells import Planned
    from workbench.grid.status import Standing

SAMPLED = 12
"""Arms whose samples are shown."""
CURVES = 8
"""Trainings whose curves are drawn: more cannot be told apart."""
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
        "report.csv": _csv(page),
        "report.tex": latex.table(page.table, page.title),
        **{f"{FIGURES}/{plot.name}.svg": plot.svg + "\n" for plot in page.plots},
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
    plots = [plot for plot in drawn if plot is not None]
    fitted = [(wanted, laws(arms, wanted)) for wanted in settings.scaling]
    scaled = (scaling_plot(arms, one, wanted, number) for number, (wanted, one) in enumerate(fitted))
    plots += [plot for plot in scaled if plot is not None]
    if 1 < len(trainings) <= CURVES:
        plots += all_plots(trainings)
    lead = f"{done} of {len(found)} cells measured: {len(arms)} arms"
    lead += f", {len(trainings)} training{'s' * (len(trainings) != 1)}."
    lead = " ".join(text for text in (lead, sentence(found), took(planned, arms), settings.note) if text)
    axes = [axis for axis in planned.grid.axes if axis not in settings.over]
    return GridPage(
        title=planned.grid.name,
        lead=lead,
        table=arms_table(arms, settings.columns),
        differences=compared(arms, settings.compare),
        plots=plots,
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


def _html(page: GridPage, date: str) -> str:
    shown = [run for arm in page.arms[:SAMPLED] if (run := arm.run) is not None]
    legends = "".join(html.legend_of(plot.legend) for plot in page.plots if plot.legend)
    sampled = any(run.results and run.results.samples for run in shown)
    table = differences_table(page.differences, page.arms)
    parts = [
        html.section("Figures", html.table_of(page.table) + html.notes_of(page.table)),
        html.section("Differences to the baseline", html.table_of(table) + html.notes_of(table)) if table.rows else "",
        *(html.section("Power law", html.table_of(one) + html.notes_of(one)) for one in page.scaling if one.rows),
        html.section("Tried", html.table_of(page.tried) + html.notes_of(page.tried)) if page.tried.rows else "",
        html.section("Plots", legends + html.panels(page.plots)) if page.plots else "",
        html.section("Not measured", html.items(page.failed)) if page.failed else "",
        html.section("Samples", html.samples(shown)) if sampled else "",
        html.settings_of(shown) if shown else "",
        html.section("Provenance", "".join(html.provenance(run) for run in page.trainings)),
    ]
    return html.filled(page.title, f'<p class="lead">{html.escape(page.lead)}</p>', parts, date)


def _markdown(page: GridPage, date: str) -> str:
    table = differences_table(page.differences, page.arms)
    parts = [
        f"# {markdown.line(page.title)}",
        markdown.line(page.lead),
        markdown.table_text(page.table, "arm"),
        "\n".join(f"- {markdown.line(note)}" for note in page.table.notes),
    ]
    if table.rows:
        parts += ["## Differences to the baseline", markdown.table_text(table, "arm")]
        parts.append("\n".join(f"- {markdown.line(note)}" for note in table.notes))
    for heading, first, one in (*(("Power law", "arms", law) for law in page.scaling), ("Tried", "cell", page.tried)):
        if one.rows:
            parts += [f"## {heading}", markdown.table_text(one, first)]
            parts.append("\n".join(f"- {markdown.line(note)}" for note in one.notes))
    for plot in page.plots:  # the SVG has no words beside its axes, and Markdown no legend
        told = ", ".join(f"{mark} {label}" for mark, label in zip(itertools.cycle(SIGNS), plot.legend, strict=False))
        text = f"![{plot.title}]({FIGURES}/{plot.name}.svg)\n\n*{plot.title}.* {plot.caption}"
        parts.append(text + f" Lines in order, markers as drawn: {markdown.line(told)}." * bool(told))
    if page.failed:
        parts += ["## Not measured", "\n".join(f"- {markdown.line(text)}" for text in page.failed)]
    parts.append(f"Made {date} from what the run folders hold; nothing was trained or evaluated anew.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _csv(page: GridPage) -> str:
    heads, rows = long_rows(page.arms, page.axes)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_inert(text) for text in row] for row in [heads, *rows]])
    return out.getvalue()


def _inert(text: str) -> str:
    """Text that a spreadsheet shows and does not run as a formula; a number is left as it is."""
    return f"'{text}" if text[:1] in FORMULA and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
