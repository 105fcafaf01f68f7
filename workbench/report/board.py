"""One TensorBoard folder for runs, a grid or a study, made from logs and figures: arms grouped, HParams, a layout.

``<out>/<arm>/<repetition>/`` holds a run's curves and texts, its final figures as ``final/…``, and one row of HParams:
its arm, and the labels of all axes (of runs: the settings that differ). Folders sort as the report does. While runs go
on, `Board.refresh` shows what their logs have gained.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.grid.status import by_grid
from workbench.metrics.value import Value
from workbench.report.collect import Run, differing
from workbench.train.log import read_log
from workbench.train.loggers import as_markdown, show

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from workbench.grid.cells import Plan, Planned
    from workbench.grid.status import Standing

FINAL = "final/"
SHOWN_TEXTS = 8
"""Samples of the last evaluation that are shown."""
COUNTED = {"s", "calls", "tokens", "parameters"}
"""Units of what a figure costs."""
CURVES = {
    "quality": ["train/bits_per_byte", "train/loss_nats_per_token"],
    "cost": ["train/tokens_per_second", "train/memory_mb"],
}
"""What training logs, by the part of the layout that it is shown in; figures find theirs by what they are."""


@dataclass
class Member:
    """A run on the board: its folder there, its arm (numbered, so that a column of them sorts as the report does), what
    was set; ``shown``: records so far."""

    place: str
    arm: str
    settings: Mapping[str, str]
    run: Run
    log: Path
    shown: int = 0
    writer: SummaryWriter | None = field(default=None, repr=False)

    @property
    def hparams(self) -> dict[str, str]:
        """Its row: the arm, and what was set."""
        return {"arm": self.arm, **self.settings}


def of_runs(runs: Sequence[Run]) -> list[Member]:
    """Runs one beside the other; what was set is what differs."""
    found = differing(runs)
    members = []
    for at, run in enumerate(runs):
        settings = {name: str(values[at]) for name, values in found.items()}
        place = _place(at, run.label)
        members.append(Member(place, place, settings, run, run.path / "log.jsonl"))
    return members


def of_plan(planned: Plan, found: Sequence[Standing], runs: Mapping[Path, Run]) -> list[Member]:
    """The cells of a grid; of a study, a folder for each question, which is a column too.

    ``runs``: by folder, with a cell's own figures where it has them.
    """
    members: list[Member] = []
    for at, (question, grid, cells) in enumerate(by_grid(planned, found)):
        for one in of_grid(grid, cells, runs):
            asked = {"question": question, **one.settings}
            place = f"{_place(at, question)}/{one.place}"
            members.append(replace(one, place=place, settings=asked) if question else one)
    return members


def of_grid(planned: Planned, found: Sequence[Standing], runs: Mapping[Path, Run]) -> list[Member]:
    """The cells of a grid that have a run, in the report's order: a folder for each arm, in it one for each repetition.
    """
    over = planned.report.over
    members: list[Member] = []
    arms: dict[str, int] = {}
    for one in found:
        if one.run is None:
            continue
        labels = one.cell.arm.labels
        arm = one.cell.arm.row(over)
        place = _place(arms.setdefault(arm, len(arms)), arm)
        repetition = _plain(" ".join(label for axis, label in labels.items() if axis in over)) or "0"
        settings = {axis: labels.get(axis, "–") for axis in planned.grid.axes}
        run = runs[one.figures or one.run.path]
        members.append(Member(f"{place}/{repetition}", place, settings, run, one.run.log))
    return members


class Board:
    """A folder that TensorBoard is pointed at. Made anew each time: what it shows lies in logs and results."""

    def __init__(self, out: Path, members: Sequence[Member]) -> None:
        """Write all there is."""
        from torch.utils.tensorboard import SummaryWriter

        self.out, self.members = out, members
        shutil.rmtree(out, ignore_errors=True)
        with SummaryWriter(str(out / "layout")) as writer:
            values = (value for member in members for value in _values(member.run))
            curves = dict.fromkeys(name for member in members for name in member.run.logged())
            writer.add_custom_scalars(layout(values, curves))
            _file(writer).add_summary(_columns(members))
        for member in members:
            member.writer = SummaryWriter(str(out / member.place), flush_secs=5)
            _finals(member.writer, member)
        self.refresh()

    def refresh(self) -> int:
        """Show what logs have gained since; how many records that was."""
        gained = 0
        for member in self.members:
            assert member.writer is not None
            new = read_log(member.log)[member.shown :]
            for record in new:
                show(member.writer, record)
            gained, member.shown = gained + len(new), member.shown + len(new)
            member.writer.flush()
        return gained

    def close(self) -> None:
        """Write what waits."""
        for member in self.members:
            if member.writer is not None:
                member.writer.close()


def layout(values: Iterable[Value], curves: Iterable[str] = ()) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom scalars: quality, diversity, cost; a chart for the final value of each figure, and one for
    each of ``curves`` (names in logs) of the same figure: text trained on and held out are never in one chart.

    What is counted in seconds, calls, tokens or parameters is cost; of the rest, what has no direction of its own but a
    real text to match is diversity.
    """
    charts: dict[str, dict[str, list[Any]]] = {"quality": {}, "diversity": {}, "cost": {}}
    for part, names in CURVES.items():
        charts[part] |= {name: _chart(name) for name in names}
    logged: dict[str, list[str]] = {}
    for name in curves:
        logged.setdefault(name.rpartition("/")[2], []).append(name)
    for value in values:
        matched = value.better == "neither" and value.real is not None
        spent = COUNTED & set(re.split("[/ ]", value.unit))
        part = "cost" if spent else "diversity" if matched else "quality"
        for name in (*logged.get(value.name, ()), FINAL + value.name):
            charts[part].setdefault(name, _chart(name))
    return {part: found for part, found in charts.items() if found}


def _chart(name: str) -> list[Any]:
    """One scalar, of all runs."""
    return ["Multiline", [f"^{re.escape(name)}$"]]


def _columns(members: Sequence[Member]) -> Any:
    """What HParams shows of every run: the arm, the axes with their labels, all final figures."""
    from tensorboard.plugins.hparams import summary_v2 as hparams

    labels: dict[str, dict[str, None]] = {}
    for member in members:
        for name, label in member.hparams.items():
            labels.setdefault(name, {})[label] = None
    figures = dict.fromkeys(value.name for member in members for value in _values(member.run))
    return hparams.hparams_config_pb(
        hparams=[hparams.HParam(name, hparams.Discrete(list(found))) for name, found in labels.items()],
        metrics=[hparams.Metric(FINAL + name, display_name=name) for name in figures],
    )


def _finals(writer: SummaryWriter, member: Member) -> None:
    """Final figures, samples, and the row of HParams."""
    from tensorboard.plugins.hparams import summary_v2 as hparams

    step = int(member.run.status.get("step") or 0)
    for value in _values(member.run):
        if value.value is not None:
            writer.add_scalar(FINAL + value.name, value.value, step)
    if member.run.results and member.run.results.samples:
        writer.add_text("samples", as_markdown(member.run.results.samples[:SHOWN_TEXTS]), step)
        writer.add_text("held-out text", as_markdown(member.run.results.real[:SHOWN_TEXTS]), step)
    _file(writer).add_summary(hparams.hparams_pb(member.hparams, trial_id=member.place))


def _file(writer: SummaryWriter) -> Any:
    """What takes summaries that the writer has no words for."""
    return writer._get_file_writer()


def _values(run: Run) -> Iterator[Value]:
    yield from run.results.values if run.results else ()


def _place(at: int, label: str) -> str:
    """A folder's name that sorts as the report does."""
    return f"{at:02d} {_plain(label)}"


def _plain(label: str) -> str:
    return re.sub(r"[^\w .,=+·-]+", "-", label).strip(" .-")[:80]
