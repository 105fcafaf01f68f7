"""Views of a run's log: TensorBoard, and services by the same interface. The log itself is ``log.jsonl``.

Packages are imported when a view is opened, not before: recipes name loggers on machines that have none.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.core.bounds import Count
from workbench.core.errors import WorkbenchError
from workbench.core.files import write_text
from workbench.core.part import Part
from workbench.train.log import flat

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = Mapping[str, Any]
"""A line of the log: step, time, seconds, tokens, values, and buckets and texts where there are any."""


class Logger(Part, ABC, kind="logger"):
    """Shows a run's log to somebody while it is written.

    Whatever one of its methods raises ends the view, not the training.
    """

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any], records: Sequence[Record]) -> None:
        """Begin, or go on: ``records`` are what the log of the run in ``folder`` holds already."""

    @abstractmethod
    def show(self, record: Record) -> None:
        """A record has been written."""

    @abstractmethod
    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float], step: int) -> None:
        """Training has ended after ``step`` updates; ``figures``: the last value of every name."""

    @abstractmethod
    def close(self) -> None:
        """Flush and end, after `finish` or without it."""


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """(name, number) of a record: its values, and the mean of each noise bucket that was hit."""
    for name, value in record["values"].items():
        if value is not None:
            yield name, value
    for name, rows in record.get("buckets", {}).items():
        for index, (total, weight) in enumerate(rows):
            if weight and total is not None:
                low, high = index / len(rows), (index + 1) / len(rows)
                yield f"{name}_by_noise/t_{low:.1f}-{high:.1f}", total / weight


def as_markdown(texts: Sequence[str]) -> str:
    """Texts of a model as Markdown that shows them as they are: each line indented by four."""
    return "\n\n---\n\n".join("    " + text.replace("\n", "\n    ") for text in texts)


def needed(package: str) -> Any:
    """An optional package.

    Raises:
        WorkbenchError: it is not installed; says how to add it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise WorkbenchError(f"it needs its package: pip install {package} ({error})") from error


@Logger.register("tensorboard")
class TensorBoard(Logger):
    """TensorBoard's event files in the run's folder ``tb``, made anew from the log whenever the run goes on.

    Settings:
        flush_seconds: how long a figure may wait before it is in the file.
    """

    def __init__(self, flush_seconds: Count = 30) -> None:
        """Nothing is written yet."""
        self.flush_seconds = flush_seconds

    def open(self, folder: Path, settings: Mapping[str, Any], records: Sequence[Record]) -> None:
        """A board that shows exactly ``records``: what a crash left there may be more, or less."""
        from torch.utils.tensorboard import SummaryWriter

        threading.excepthook = _once
        self.folder = folder / "tb"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.writer = SummaryWriter(str(self.folder), flush_secs=self.flush_seconds)
        for record in records:
            self.show(record)

    def show(self, record: Record) -> None:
        """Scalars, noise buckets, texts."""
        show(self.writer, record)

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float], step: int) -> None:
        """A row of HParams: what was set beside what came out (as ``final/…``), in the run's own folder."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.folder)) as writer:
            last = {f"final/{name}": value for name, value in figures.items()}
            writer.add_hparams(flat(settings), last, run_name=".", global_step=step)

    def close(self) -> None:
        """Write what waits."""
        self.writer.close()


_LOUD = threading.excepthook


def _once(args: threading.ExceptHookArgs) -> None:
    """Tell of an error that ended a thread, but not of one that the thread keeps, as TensorBoard's do.

    The writer's next call raises it: it would be told twice, by a traceback in the midst of a progress line.
    """
    if args.exc_value is None or getattr(args.thread, "exception", None) is not args.exc_value:
        _LOUD(args)


def show(writer: SummaryWriter, record: Record) -> None:
    """A record in TensorBoard."""
    step, when = record["step"], record["time"]
    for name, value in scalars(record):
        writer.add_scalar(name, value, step, walltime=when)
    for name, texts in record.get("texts", {}).items():
        writer.add_text(name, as_markdown(texts), step, walltime=when)


@Logger.register("wandb")
class WandB(Logger):
    """Weights & Biases (https://docs.wandb.ai): a run of the same name, taken up again where training goes on.

    Settings:
        project: its project there.
        entity: the user or the team; the account's own where left out.
        group: runs that are shown together.
        mode: offline keeps it all on this machine, for `wandb sync`.
    """

    @classmethod
    def example(cls) -> dict[str, Any]:
        """On this machine alone."""
        return {"mode": "offline"}

    def __init__(
        self,
        project: str = "sedd-workbench",
        entity: str | None = None,
        group: str | None = None,
        mode: Literal["online", "offline"] = "online",
    ) -> None:
        """Keep the settings."""
        self.project, self.entity, self.group, self.mode = project, entity, group, mode

    def open(self, folder: Path, settings: Mapping[str, Any], records: Sequence[Record]) -> None:
        """The run of this folder's name: begun with what the log holds, or taken up."""
        self.wandb = needed("wandb")
        self.run = self.wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            mode=self.mode,
            id=folder.name,
            name=folder.name,
            dir=str(folder),
            resume="allow",
            config=flat(settings),
        )
        for record in () if self.run.resumed else records:
            self.show(record)

    def show(self, record: Record) -> None:
        """Scalars and noise buckets; texts as a table."""
        data: dict[str, Any] = dict(scalars(record))
        for name, texts in record.get("texts", {}).items():
            data[name] = self.wandb.Table(columns=["text"], data=[[text] for text in texts])
        self.run.log(data, step=record["step"])

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float], step: int) -> None:
        """The last values as the run's summary."""
        self.run.summary.update({f"final/{name}": value for name, value in figures.items()})

    def close(self) -> None:
        """Send what waits."""
        self.run.finish()


@Logger.register("mlflow")
class MLflow(Logger):
    """MLflow (https://mlflow.org/docs/latest/tracking.html): a run of the same name, taken up where training goes on.

    Settings:
        experiment: its experiment there.
        uri: the tracking server or folder; MLflow's own default where left out.
    """

    note = "mlflow-run"
    """The file in a run's folder that holds its id there."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        """On this machine alone."""
        return {"uri": f"file://{tempfile.gettempdir()}/workbench-mlflow"}

    def __init__(self, experiment: str = "sedd-workbench", uri: str | None = None) -> None:
        """Keep the settings."""
        self.experiment, self.uri = experiment, uri

    def open(self, folder: Path, settings: Mapping[str, Any], records: Sequence[Record]) -> None:
        """The run that the folder's note names, or a new one with what the log holds."""
        self.mlflow = needed("mlflow")
        if self.uri is not None:
            self.mlflow.set_tracking_uri(self.uri)
        self.mlflow.set_experiment(self.experiment)
        note = folder / self.note
        if records and note.is_file():
            self.mlflow.start_run(run_id=note.read_text(encoding="utf-8").strip())
            return
        begun = self.mlflow.start_run(run_name=folder.name)
        write_text(note, begun.info.run_id + "\n")
        self.mlflow.log_params({name: str(value)[:500] for name, value in flat(settings).items()})
        for record in records:
            self.show(record)

    def show(self, record: Record) -> None:
        """Scalars and noise buckets; texts as files."""
        self.mlflow.log_metrics({_plain(name): value for name, value in scalars(record)}, step=record["step"])
        for name, texts in record.get("texts", {}).items():
            self.mlflow.log_text("\n\n---\n\n".join(texts), f"{_plain(name)}/{record['step']:08d}.txt")

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float], step: int) -> None:
        """The last values once more, as what came out."""
        self.mlflow.log_metrics({_plain(f"final/{name}"): value for name, value in figures.items()}, step=step)

    def close(self) -> None:
        """End it."""
        self.mlflow.end_run()


def _plain(name: str) -> str:
    """A name in the letters that MLflow takes."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
