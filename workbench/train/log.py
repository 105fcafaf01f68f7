"""The log of a run: ``log.jsonl`` first, TensorBoard and other loggers as views of it.

One JSON object a line::

    {"step": 40, "time": 1790000000.0, "seconds": 12.5, "tokens": 163840,
     "values": {"train/loss_nats_per_token": 5.1, …}, "buckets": {"bound": [[sum, weight], …]},
     "texts": {"samples/text": ["…"]}}

``step`` counts updates done, ``seconds`` and ``tokens`` go on over interruptions; a bucket's mean is sum / weight, a
number that is not finite is ``null``. Resuming cuts the file back to the checkpoint's step and opens the views anew,
so that an interrupted run leaves the log of an uninterrupted one (a checkpoint on a signal adds a line at its step).
No torch is imported here: reports read logs with this module.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.files import write_text

if TYPE_CHECKING:
    from workbench.train.loggers import Logger


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

    def __init__(
        self, path: Path, step: int, views: Iterable[Logger] = (), settings: Mapping[str, Any] | None = None
    ) -> None:
        """Cut ``path`` back to ``step`` (0: start anew); ``views``: what else shows it; ``settings``: the run's."""
        kept = [record for record in read_log(path) if step and record["step"] <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open for the run's length)
        self._views, self._settings = list(views), settings or {}
        self._tell(lambda view: view.open(path.parent, self._settings, kept))
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
        """Append a record and show it in every view."""
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
        self._tell(lambda view: view.show(record))

    def finish(self, step: int) -> None:
        """Training has come to its end: views show what was set beside the last value of every figure."""
        self._tell(lambda view: view.finish(self._settings, self.last, step))

    def close(self) -> None:
        """Flush and close all."""
        self._file.close()
        self._tell(lambda view: view.close())

    def _tell(self, act: Callable[[Logger], None]) -> None:
        """Have every view do something. One that fails is told once and left aside: training goes on without it."""
        for view in tuple(self._views):
            try:
                act(view)
            except Exception as error:  # a service, a package, a full disk: nothing of it is worth a run
                self._views.remove(view)
                told = f"{str(error) or type(error).__name__:.300}; it is left aside, {self._file.name} goes on"
                print(f"logger {view.type_name}: {told}", file=sys.stderr)


class NoLog:
    """Keeps nothing: the log of processes other than the first."""

    last: Mapping[str, float] = {}

    def has(self, group: str) -> bool:
        """Nothing was logged."""
        return False

    def write(self, *record: Any, **more: Any) -> None:
        """Nothing."""

    def finish(self, step: int) -> None:
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


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

