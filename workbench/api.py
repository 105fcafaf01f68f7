"""Runs and grids in a notebook: what a folder holds, as Python, with plots and tables that a notebook shows.

``from workbench import Run, Grid`` gives these. Nothing is trained here; sampling loads a run's weights once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.report import html
from workbench.report.collect import collect
from workbench.report.curves import all_plots, alone
from workbench.report.plots import Plot
from workbench.report.tables import Table, main_table

if TYPE_CHECKING:
    from workbench.report.collect import Run as Read
    from workbench.report.grid_page import GridPage

STYLE = (
    ".workbench .legend { display: flex; flex-wrap: wrap; gap: 0.35rem 1.5rem; padding: 0; list-style: none; }"
    ".workbench .legend svg { width: 38px; height: 10px; margin-right: 0.5rem; }"
    ".workbench .panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1.5rem; }"
    ".workbench figure { margin: 0; max-width: 620px; }"
)
"""The page's style would reach the whole notebook."""
ROW = ("figure", "value", "low", "high", "unit", "real")


class Figures(Mapping[str, float | None]):
    """Figures by name: numbers as a mapping, all that is known of one by `of`, rows for other tools by `rows`."""

    def __init__(self, values: Sequence[Value]) -> None:
        """Of several of one name the first counts."""
        self._values = {value.name: value for value in reversed(values)}
        self._order = list(dict.fromkeys(value.name for value in values))

    def __getitem__(self, name: str) -> float | None:
        """The number; None where it could not be measured (`of` says why)."""
        return self._values[name].value

    def __iter__(self) -> Iterator[str]:
        """Names, in the order measured."""
        return iter(self._order)

    def __len__(self) -> int:
        """How many."""
        return len(self._order)

    def of(self, name: str) -> Value:
        """A figure with its interval, unit, method and the same figure of real text."""
        return self._values[name]

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each figure: what a data frame is made of."""
        found = (self._values[name] for name in self)
        return [
            dict(zip(ROW, (one.name, one.value, one.low, one.high, one.unit, one.real), strict=True)) for one in found
        ]

    def __repr__(self) -> str:
        """A line for each figure."""
        return "\n".join(f"{name}: {'–' if value is None else f'{value:.6g}'}" for name, value in self.items())

    def _repr_html_(self) -> str:
        def shown(entry: Any) -> str:
            return "" if entry is None else f"{entry:.4g}" if isinstance(entry, float) else html.escape(entry)

        head = "".join(f'<th scope="col">{name}</th>' for name in ROW)
        lines = ("".join(f"<td>{shown(entry)}</td>" for entry in row.values()) for row in self.rows())
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


class Texts(Sequence[str]):
    """Texts drawn; a notebook shows what was given underlined. ``spans``: (text, was it given) of each."""

    def __init__(self, spans: Sequence[Sequence[tuple[str, bool]]]) -> None:
        """Keep the spans."""
        self.spans = spans

    def __getitem__(self, at: Any) -> Any:
        """The text at a place, or several."""
        whole = ["".join(piece for piece, _ in spans) for spans in self.spans]
        return whole[at]

    def __len__(self) -> int:
        """How many."""
        return len(self.spans)

    def __repr__(self) -> str:
        """One below the other."""
        return "\n— — —\n".join(self)

    def _repr_html_(self) -> str:
        def marked(piece: str, given: bool) -> str:
            return f"<u>{html.escape(piece)}</u>" if given else html.escape(piece)

        texts = ("".join(marked(*span) for span in spans) for spans in self.spans)
        return "".join(f'<pre style="white-space: pre-wrap">{text}</pre>' for text in texts)


@dataclass(frozen=True)
class Plots:
    """Panels with their legend, shown by a notebook; ``panels`` have each one's SVG."""

    panels: Sequence[Plot]
    labels: Sequence[str]

    def _repr_html_(self) -> str:
        shown = html.legend_of(self.labels) + html.panels(self.panels)
        return f'<div class="workbench"><style>{STYLE}</style>{shown}</div>'


@dataclass(frozen=True)
class Tabled:
    """A table of a report; a notebook shows it."""

    table: Table

    def rows(self) -> list[dict[str, str]]:
        """A dict for each row, figures as the report writes them."""
        heads = [column.key for column in self.table.columns]
        return [
            {"": row.label, **{head: cell.text for head, cell in zip(heads, row.cells, strict=True)}}
            for row in self.table.rows
        ]

    def _repr_html_(self) -> str:
        return html.table_of(self.table, "Figures")


class Run:
    """A run, from its folder."""

    def __init__(self, path: Path | str) -> None:
        """Read what the folder holds.

        Raises:
            RunError: there is no run.
        """
        self.path = Path(path)
        self._read: Read = collect([self.path])[0]
        self.name, self.hash, self.state = self._read.name, self._read.hash, self._read.state

    def __repr__(self) -> str:
        """Name, state, folder."""
        return f"Run({self.name}, {self.state}, {str(self.path)!r})"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved recipe."""
        return self._read.settings

    @property
    def log(self) -> Sequence[Mapping[str, Any]]:
        """Training's records."""
        return self._read.log

    @property
    def results(self) -> Figures:
        """Its figures.

        Raises:
            WorkbenchError: it has not been evaluated.
        """
        if self._read.results is None:
            raise WorkbenchError(f"{self.path} has not been evaluated: workbench eval {self.path}")
        return Figures(list(self._read.results.values))

    @property
    def samples(self) -> Texts:
        """The texts that the evaluation drew; none where there was none."""
        texts = self._read.results.samples if self._read.results else ()
        return Texts([[(text, False)] for text in texts])

    def sample(
        self,
        *changes: str,
        prefix: str | None = None,
        infill: str | None = None,
        count: int = 4,
        length: int | None = None,
        first: int = 0,
        checkpoint: str = "last",
    ) -> Texts:
        """Draw texts, freely, after ``prefix`` or into the gaps of ``infill``; ``changes``: ``sampler.steps=32``.

        Raises:
            WorkbenchError: as `workbench sample`.
        """
        from workbench.drawing import draw_texts, template

        opened, canvas = template(self.path, changes, prefix, infill, (), length, checkpoint)
        return Texts(draw_texts(opened, canvas, count, first).spans)

    def measure(self, *changes: str, cache: Path | str | None = None) -> Figures:
        """Measure by another sampler or other evaluations (``sampler.steps=32``); kept beside the run's own figures."""
        from workbench.experiment import evaluate_as

        found: Results = evaluate_as(self.path, changes, cache)
        return Figures(list(found.values))

    def plot(self, *others: Run) -> Plots:
        """Its curves, and those of other runs in the same panels."""
        runs = [self._read, *(other._read for other in others)]
        return Plots(all_plots(alone(runs)), [run.label for run in runs])

    def beside(self, *others: Run) -> Tabled:
        """The report's table of this run and others."""
        return Tabled(main_table(collect([self.path, *(other.path for other in others)])))


class Grid:
    """A grid, from its file or its folder."""

    def __init__(
        self, path: Path | str, *changes: str, runs: Path | str = "runs", grids: Path | str = "grids"
    ) -> None:
        """``changes``: the settings that it was run with, as ``set.train.steps=100``.

        Raises:
            WorkbenchError: there is no grid; its file has changed since the folder was made.
        """
        from workbench.grid.cells import plan
        from workbench.grid.folder import GridFolder

        place = Path(path)
        note = place / "grid.json"
        kept = read_json(note) if note.is_file() else None
        self.planned = plan(kept["file"] if kept else place, changes)
        if kept and kept["hash"] != self.planned.hash:
            raise WorkbenchError(f"{kept['file']} is not what {place} was made of: give the settings it was run with")
        self.folder = GridFolder.open(self.planned, place.parent if kept else grids)
        self._runs = Path(runs)

    def __repr__(self) -> str:
        """Name, and how its cells stand."""
        from workbench.grid.status import standings, tally

        counts = tally(standings(self.planned, self.folder, self._runs))
        return f"Grid({self.planned.grid.name}, {', '.join(f'{n} {state}' for state, n in counts.items())})"

    @functools.cached_property
    def _page(self) -> GridPage:
        from workbench.grid.status import standings
        from workbench.report.grid_page import grid_page

        return grid_page(self.planned, standings(self.planned, self.folder, self._runs))

    @property
    def runs(self) -> dict[str, list[Run]]:
        """The runs of each arm, by its label; arms that differ only after training share theirs."""
        return {arm.label: [Run(run.path) for run in arm.repeats.values()] for arm in self._page.arms}

    @property
    def results(self) -> Tabled:
        """The report's table, the baseline first."""
        return Tabled(self._page.table)

    @property
    def differences(self) -> Tabled:
        """Each arm against the baseline."""
        from workbench.report.differences import differences_table

        return Tabled(differences_table(self._page.differences, self._page.arms))

    def plot(self) -> Plots:
        """Curves by arm, repetitions in bands."""
        return Plots(self._page.curves, [group.label for group in self._page.groups])
