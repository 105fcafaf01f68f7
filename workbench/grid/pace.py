"""How long training takes: from logs of finished runs where there are any, else from a short timed trial.

What is measured is an update of the weights on the machine that made it; every figure says which that was.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench import experiment
from workbench.core.errors import WorkbenchError, in_words
from workbench.core.files import read_json
from workbench.core.reading import read_yaml
from workbench.core.tree import stable_hash
from workbench.grid.cells import Cell
from workbench.grid.fairness import Costed
from workbench.recipe import load, unwatched
from workbench.run import RunFolder, by_hash
from workbench.train.log import read_log

WARM = 2
"""Updates of a trial that do not count."""
TIMELESS = frozenset({
    "steps", "schedule", "log_every", "checkpoint_every", "keep", "best", "tensorboard", "minutes", "clip",
    "skip_nonfinite", "unigram_start", "optimizer", "ema",
})  # fmt: skip
"""Settings of ``train`` that do not move the time of an update, or (``optimizer``: its type counts) hardly."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an update, and who says so; ``seconds``: None where nobody can, ``source`` then says why."""

    seconds: float | None
    source: str


def timed(networks: Sequence[Costed], runs: Path, trial: int = 0, cache: Path | None = None) -> list[Costed]:
    """``networks`` with the seconds that each takes to train, where they are known.

    The log of the very run goes first, then that of one that differs in seed, rates and number of updates alone; then
    a trial of so many updates, where ``trial`` is not 0.
    """
    known = by_hash(runs)
    alike: dict[str, RunFolder] = {}
    for run in known.values():
        if run.finished and (data := _settings(run)) is not None:
            alike.setdefault(likeness(data), run)
    tried: dict[str, Pace] = {}
    found = []
    for one in networks:
        recipe = one.cells[0].training
        key, steps = likeness(recipe.data), int(recipe.data["train"]["steps"])
        given = one.cells[0].run
        own = known.get(recipe.hash) if given is None else RunFolder(given)
        if own is not None and own.finished and ((pace := _logged(own)) is not None or given is not None):
            seconds = None if pace is None else pace * steps  # a run that was imported has no log
            found.append(replace(one, seconds=seconds, source=f"its own log ({_machine(own)})", trained=True))
            continue
        if key not in tried:
            tried[key] = _pace(one.cells[0], alike.get(key), trial, cache)
        told = tried[key]
        found.append(replace(one, seconds=None if told.seconds is None else told.seconds * steps, source=told.source))
    return found


def likeness(data: Mapping[str, Any]) -> str:
    """What two trainings have in common whose updates take the same time."""
    train = {name: value for name, value in data["train"].items() if name not in TIMELESS}
    train["optimizer"] = data["train"]["optimizer"]["type"]
    return stable_hash({**{name: data[name] for name in ("data", "backbone", "process")}, "train": train})


def _pace(cell: Cell, like: RunFolder | None, trial: int, cache: Path | None) -> Pace:
    if like is not None and (seconds := _logged(like)) is not None:
        return Pace(seconds, f"log of {like.path.name} ({_machine(like)})")
    if not trial:
        return Pace(None, "no finished run tells; --trial 10 times ten updates")
    try:
        seconds, machine = trial_of(cell, trial, cache)
        return Pace(seconds, f"trial of {trial} updates ({machine})")
    except Exception as error:  # what a recipe raises while training is told when the grid is run
        reason = in_words(error) or f"{type(error).__name__}: {error}"
        return Pace(None, f"the trial failed: {reason.splitlines()[0]:.120}")


def trial_of(cell: Cell, steps: int, cache: Path | None = None) -> tuple[float, str]:
    """Seconds of an update of a cell's training, the median of ``steps`` in a folder that is removed again; where.

    Raises:
        Exception: whatever training raises.
    """
    changes = [
        f"train.steps={steps + WARM}", "train.log_every=1", "train.checkpoint_every=0", "train.tensorboard=false",
        *unwatched(cell.training.data),
    ]  # fmt: skip
    resolved = load(cell.arm.base, [*cell.arm.overrides, *changes])
    with tempfile.TemporaryDirectory() as place:
        run = experiment.create(resolved, place)
        experiment.train(run, resolved, cache, quiet=True)
        return statistics.median(list(_updates(run))[WARM:]), _machine(run)


def _logged(run: RunFolder) -> float | None:
    """Seconds of an update over all of a run's training, evaluations left out; None where its log does not say."""
    try:
        found = list(_updates(run))
    except (OSError, ValueError, KeyError, TypeError, WorkbenchError):
        return None
    return statistics.median(found) if found else None


def _updates(run: RunFolder) -> Iterator[float]:
    """Seconds of an update at every line of the log."""
    for record in read_log(run.log):
        speed = record["values"].get("train/tokens_per_second")
        if speed and record["step"]:
            yield record["tokens"] / record["step"] / speed


def _settings(run: RunFolder) -> Mapping[str, Any] | None:
    try:
        data = read_yaml(run.resolved)
        likeness(data)
    except (OSError, KeyError, TypeError, ValueError, WorkbenchError):
        return None
    return data if isinstance(data, dict) else None


def _machine(run: RunFolder) -> str:
    """The GPU or processor that a run was trained on, as its folder says."""
    try:
        facts = read_json(run.env)
        return str(next(iter(facts.get("devices") or []), "") or facts.get("cpu") or "unknown machine")
    except (OSError, ValueError, AttributeError, TypeError):
        return "unknown machine"
