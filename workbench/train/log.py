"""The log of a run: ``log.jsonl`` first, TensorBoard as a view of it.

One JSON object a line::

    {"step": 40, "time": 1790000000.0, "seconds": 12.5, "tokens": 163840,
     "values": {"train/loss_nats_per_token": 5.1, …}, "buckets": {"bound": [[sum, weight], …]},
     "texts": {"samples/text": ["…"]}}

``step`` counts updates done, ``seconds`` and ``tokens`` go on over interruptions; a bucket's mean is sum / weight, a
number that is not finite is ``null``. Resuming cuts the file back to the checkpoint's step and makes the view anew,
so that an interrupted run leaves the log of an uninterrupted one (a checkpoint on a signal adds a line at its step).
No torch is imported here before TensorBoard is asked for: reports read logs with this module.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLUSH_SECONDS = 30


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log in order; a line torn by a crash is left out, an absent file is an empty log."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and isinstance(record.get("values"), dict):
            records.append(record)
    return records


def curve(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of a named value, ascending; of several at one step the last written counts."""
    points = {r["step"]: r["values"][name] for r in records if r.get("values", {}).get(name) is not None}
    return sorted(points.items())


class Log:
    """Writes a run's log. Open it at the step that training goes on from."""

    def __init__(self, path: Path, board: Path | None, step: int) -> None:
        """Cut ``path`` back to ``step`` (0: start anew); ``board``: TensorBoard's folder, or None for no view."""
        kept = [record for record in read_log(path) if step and record["step"] <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open for the run's length)
        self._path, self._board = path, None
        if board:
            self._view(lambda: setattr(self, "_board", _open_board(board, kept)))
        self.last: dict[str, float] = {}
        for record in kept:
            self.last.update({name: value for name, value in record["values"].items() if value is not None})
        now = [record for record in kept if record["step"] == step]
        self._there = {name for record in now for name in (*record["values"], *record.get("texts", ()))}

    def has(self, group: str) -> bool:
        """Whether something called ``<group>/…`` was logged at the step that the log was opened at."""
        return any(name.startswith(f"{group}/") for name in self._there)

    def write(
        self,
        step: int,
        seconds: float,
        tokens: int,
        values: Mapping[str, float],
        buckets: Mapping[str, Sequence[Sequence[float]]] | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Append a record and show it in TensorBoard."""
        record: dict[str, Any] = {
            "step": step,
            "time": round(time.time(), 3),
            "seconds": round(seconds, 3),
            "tokens": tokens,
            "values": {name: _number(value) for name, value in values.items()},
        }
        if buckets:
            record["buckets"] = {n: [[_number(v) for v in pair] for pair in rows] for n, rows in buckets.items()}
        if texts:
            record["texts"] = {name: list(items) for name, items in texts.items()}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.last.update({name: value for name, value in record["values"].items() if value is not None})
        if board := self._board:
            self._view(lambda: _show(board, record))

    def hparams(self, settings: Mapping[str, Any], step: int) -> None:
        """Add the run to TensorBoard's table of hyperparameters, with the last value of every figure."""
        if board := self._board:
            self._view(lambda: show_hparams(Path(board.log_dir), settings, self.last, step))

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        if board := self._board:
            self._view(board.close)

    def _view(self, act: Callable[[], object]) -> None:
        """Do something with TensorBoard, which is a view: where it fails it is left alone, and training goes on."""
        try:
            act()
        except Exception as error:  # its writer is a thread of its own, which dies of anything
            self._board = None
            why = str(error) or type(error).__name__
            print(f"TensorBoard is not written any more ({why}); all is in {self._path}", file=sys.stderr)


class NoLog:
    """Keeps nothing: the log of processes other than the first."""

    last: Mapping[str, float] = {}

    def has(self, group: str) -> bool:
        """Nothing was logged."""
        return False

    def write(self, *record: Any, **more: Any) -> None:
        """Nothing."""

    def hparams(self, settings: Mapping[str, Any], step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names with values that TensorBoard takes (text for lists and None)."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out.update(flat(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value if isinstance(value, (bool, int, float, str)) else json.dumps(value, default=str)
    return out


def show_hparams(board: Path, settings: Mapping[str, Any], figures: Mapping[str, float], step: int) -> None:
    """One row of TensorBoard's HParams: what was set beside what came out (as ``final/…``), in the run's own folder."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(board)) as writer:
        last = {f"final/{name}": value for name, value in figures.items()}
        writer.add_hparams(flat(settings), last, run_name=".", global_step=step)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _open_board(folder: Path, records: Sequence[Mapping[str, Any]]) -> SummaryWriter:
    """A writer on a folder that shows exactly ``records``: what a crash left there may be more, or less."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    board = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
    for record in records:
        _show(board, record)
    return board


def _show(board: SummaryWriter, record: Mapping[str, Any]) -> None:
    step, when = record["step"], record["time"]
    for name, value in record["values"].items():
        if value is not None:
            board.add_scalar(name, value, step, walltime=when)
    for name, rows in record.get("buckets", {}).items():
        for index, (total, weight) in enumerate(rows):
            if weight and total is not None:
                low, high = index / len(rows), (index + 1) / len(rows)
                board.add_scalar(f"{name}_by_noise/t_{low:.1f}-{high:.1f}", total / weight, step, walltime=when)
    for name, texts in record.get("texts", {}).items():
        # Indented by four: Markdown then shows a model's text as it is.
        shown = "\n\n---\n\n".join("    " + text.replace("\n", "\n    ") for text in texts)
        board.add_text(name, shown, step, walltime=when)
