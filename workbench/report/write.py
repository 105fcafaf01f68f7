"""Write a report on finished (or unfinished) runs: report.html, report.md, report.json."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.core.files import write_json, write_text
from workbench.report import html, markdown, words
from workbench.report.collect import Run, collect, differing
from workbench.report.curves import all_plots, alone
from workbench.report.differences import beside
from workbench.report.plots import thinned
from workbench.report.tables import Table, main_table

SCHEMA = 1
"""Version of the layout of report.json."""
FIGURES = "figures"


@dataclass(frozen=True)
class Written:
    """Where the report's files lie."""

    html: Path
    markdown: Path
    data: Path


def write_report(run_dirs: Iterable[Path | str], out_dir: Path | str) -> Written:
    """Report on runs, in the order given, into ``out_dir`` (made where absent; files of these names are
    replaced).

    Reads run folders and nothing else: it never trains or evaluates, and needs no torch.

    Raises:
        RunError: a folder is no run folder.
    """
    runs = collect(run_dirs)
    out = Path(out_dir)
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    table, plots, date = main_table(runs), all_plots(alone(runs)), time.strftime("%Y-%m-%d %H:%M")
    written = Written(out / "report.html", out / "report.md", out / "report.json")
    for plot in plots:
        write_text(out / FIGURES / f"{plot.name}.svg", plot.svg + "\n", sync=False)
    write_text(written.html, html.page(runs, table, plots, date), sync=False)
    write_text(written.markdown, markdown.document(runs, table, plots, FIGURES, date), sync=False)
    write_json(written.data, data(runs, table, date), sync=False)
    return written


def data(runs: Sequence[Run], table: Table, date: str) -> dict[str, Any]:
    """The report as plain data: the table as shown, and each run's values, curves and provenance."""
    return {
        "schema": SCHEMA,
        "date": date,
        "title": words.title(runs),
        "summary": words.summary(runs),
        "table": {
            "columns": [{"key": c.key, "head": c.head, "unit": c.unit} for c in table.columns],
            "rows": [asdict(row) for row in table.rows],
            "notes": list(table.notes),
        },
        "differing": differing(runs),
        "differences": [asdict(row) for row in beside(runs).rows],
        "runs": [_run(run) for run in runs],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "label": run.label,
        "name": run.name,
        "path": str(run.path),
        "recipe": run.hash,
        "state": run.state,
        "settings": dict(run.settings),
        "values": [value.as_data() for value in run.results.values] if run.results else None,
        "samples": list(run.results.samples) if run.results else [],
        "curves": {name: asdict(thinned(run.curve(name))) for name in run.logged()},
        "buckets": {name: run.buckets(name) for name in ("bound", "calibration")},
        "provenance": dict(words.provenance(run)),
    }
