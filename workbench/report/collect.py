"""Read run folders into one structure. What is missing or damaged becomes a remark, never a stop, never a re-
run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.core.tree import read_yaml
from workbench.metrics.results import Results
from workbench.run import RunFolder, status_line
from workbench.train.log import flat, read_log


@dataclass(frozen=True)
class Curve:
    """A logged value over training: equally long lists, ascending in steps."""

    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    ``label``: the recipe's name, with as much of the hash as tells runs apart. ``state``: status in a few
    words. ``settings``: the resolved recipe; ``log``: training's records; ``results``: None where not
    evaluated yet. ``remarks``: what could not be read, and why.
    """

    path: Path
    name: str
    label: str
    hash: str
    state: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    results: Results | None = None
    env: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def curve(self, name: str) -> Curve:
        """A logged value over training; of several at one step the last written counts."""
        points: dict[int, tuple[float, float]] = {}
        for record in self.log:
            value: Any = _mapping(record.get("values")).get(name)
            if _is_number(value):
                points[int(record["step"])] = (_seconds(record), float(value))
        steps = sorted(points)
        return Curve(steps, [points[s][0] for s in steps], [points[s][1] for s in steps])

    def logged(self) -> list[str]:
        """Names of all logged values."""
        return sorted({name for record in self.log for name in _mapping(record.get("values"))})

    def buckets(self, name: str, last: float = 0.25) -> list[float | None]:
        """Means by noise bucket over the last part of training; None where a bucket was never hit."""
        records = [r for r in self.log if name in _mapping(r.get("buckets"))]
        sums: list[list[float]] = []
        for record in records[-max(1, round(len(records) * last)) :]:
            rows = record["buckets"][name]
            sums = sums or [[0.0, 0.0] for _ in rows]
            for total, row in zip(sums, rows, strict=False):
                if len(row) == 2 and _is_number(row[0]) and _is_number(row[1]):
                    total[0] += row[0]
                    total[1] += row[1]
        return [total / weight if weight > 0 else None for total, weight in sums]

    def setting(self, dotted: str) -> Any:
        """A resolved setting by its dotted name; None where there is none."""
        found: Any = self.settings
        for key in dotted.split("."):
            found = _mapping(found).get(key)
        return found


def collect(folders: Iterable[Path | str]) -> list[Run]:
    """Read runs, in the order given.

    Raises:
        RunError: a folder is no run folder.
    """
    runs = [_read(Path(folder)) for folder in folders]
    names = Counter(run.name for run in runs)
    named = [replace(r, label=r.name if names[r.name] == 1 else f"{r.name}-{r.hash[:8]}") for r in runs]
    labels = Counter(run.label for run in named)
    return [replace(r, label=r.label if labels[r.label] == 1 else str(r.path)) for r in named]


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted settings that are not the same in all runs, with each run's value (None: not set there)."""
    flats = [flat(run.settings) for run in runs]
    names = list(dict.fromkeys(name for settings in flats for name in settings))
    found = {name: [settings.get(name) for settings in flats] for name in names if name != "name"}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _read(path: Path) -> Run:
    folder = RunFolder(path)
    remarks: list[str] = []

    def attempt(what: str, read: Callable[[], Any], default: Any) -> Any:
        try:
            return read()
        except FileNotFoundError:
            return default
        except (WorkbenchError, OSError, ValueError) as error:
            text = str(error) if isinstance(error, WorkbenchError) else f"{what} cannot be read: {error}"
            remarks.append(text)
            return default

    status = folder.read_status()
    settings = attempt("resolved.yaml", lambda: _yaml(folder.resolved), {})
    results = attempt("results.json", lambda: read_results(folder.results), None)
    if status.get("error"):
        remarks.append(f"{status['state']}: {status['error']}")
    return Run(
        path=path,
        name=folder.name,
        label=folder.name,
        hash=folder.hash,
        state=status_line({**status, "state": folder.state, "error": None}),
        settings=_mapping(settings),
        log=attempt("log.jsonl", lambda: read_log(folder.log), []),
        results=results,
        env=_mapping(attempt("env.json", lambda: json.loads(folder.env.read_text(encoding="utf-8")), {})),
        status=status,
        remarks=tuple(remarks),
    )


def _yaml(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(path)
    return read_yaml(path) or {}


def read_results(path: Path) -> Results:
    """A file of figures.

    Raises:
        OSError, ValueError, ResultsError: it cannot be read, or holds none.
    """
    text = path.read_text(encoding="utf-8")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{error}; evaluate the run again") from error
    return Results.from_data(data, str(path))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _seconds(record: Mapping[str, Any]) -> float:
    seconds = record.get("seconds")
    return float(seconds) if isinstance(seconds, (int, float)) else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
