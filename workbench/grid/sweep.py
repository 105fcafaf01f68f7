"""One setting swept for every arm and seed: what is tried, and which of it is compared.

Each value is a run of its own, found by content as any other, and judged by its bound on the first quarter of the
held-out text. The figures that are compared are of the other three quarters alone.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.files import read_json
from workbench.core.loading import Resolved
from workbench.grid.cells import Cell, Option
from workbench.grid.folder import GridFolder
from workbench.grid.section import FACTORS, Grid, Select
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.recipe import load
from workbench.run import RunFolder, slug

FIGURE = "bits_per_byte"
"""What values are chosen by: the lowest."""


@dataclass(frozen=True)
class Tried:
    """How one option of a cell stands.

    ``state``: "due", "failed" or "done"; ``figure``: on the part that serves to select; ``detail``: why it failed.
    """

    option: Option
    state: Literal["due", "failed", "done"]
    figure: Value | None = None
    detail: str = ""


def options_of(cell: Cell, grid: Grid, trials: dict[str, Cell]) -> Cell:
    """The cell with what is tried for it; ``trials`` by the hash of their training, those of earlier cells among them.

    Raises:
        RecipeError: a value that the recipe cannot have, or that moves no weights.
    """
    if cell.run is not None:
        raise RecipeError([Problem("sweep", f"{cell.run} is a trained run: nothing is swept of it")])
    options: list[Option] = []
    for values in _combinations(cell.resolved, grid.sweep):
        compared = _load(cell, values, _parts(cell.resolved, "comparison"))
        if any(compared.hash == other.resolved.hash for other in options):
            why = f"two values of {' and '.join(values)} train the same run: sweep a setting of training"
            raise RecipeError([Problem("sweep", why)])
        if compared.hash not in trials:
            labels = {setting: _label(value) for setting, value in values.items()}
            arm = replace(cell.arm, labels={**cell.arm.labels, **labels}, patches=(*cell.arm.patches, values))
            measured = _load(cell, values, _selecting(compared, grid.select))
            key = f"{cell.key}-try-{slug('-'.join(labels.values()))[:30]}-{len(options)}"
            trials[compared.hash] = Cell(key, arm, measured, trained_by=compared)
        options.append(Option(values, compared, trials[compared.hash]))
    return replace(cell, resolved=options[0].resolved, options=tuple(options))


def tried(cell: Cell, folder: GridFolder, find: Callable[[str], RunFolder | None]) -> list[Tried]:
    """How a cell's options stand. ``find``: the furthest run of a training's hash."""
    return [_tried(option, folder, find(option.resolved.hash)) for option in cell.options]


def best(found: Sequence[Tried]) -> Tried | None:
    """The option with the lowest figure (the first of several), None while one is due.

    Raises:
        WorkbenchError: every one has failed.
    """
    if any(one.state == "due" for one in found):
        return None
    done = [one for one in found if one.state == "done"]
    if not done:
        causes = "; ".join(f"{told(one.option.values)}: {one.detail}" for one in found)
        raise WorkbenchError(f"all that was tried failed: {causes}")
    return min(done, key=lambda one: float(_number(one)))


def chosen(cell: Cell, found: Sequence[Tried]) -> Cell | None:
    """The cell with the recipe that is compared; itself where nothing is swept, None while a trial is due.

    Raises:
        WorkbenchError: every trial has failed.
    """
    if not cell.options:
        return cell
    winner = best(found)
    return None if winner is None else replace(cell, resolved=winner.option.resolved)


def edges(found: Sequence[Tried]) -> list[str]:
    """Settings whose chosen value is the smallest or the largest that was tried, in words; [] before one is chosen."""
    if any(one.state == "due" for one in found) or not any(one.state == "done" for one in found):
        return []
    winner = best(found)
    assert winner is not None
    words = []
    for setting, value in winner.option.values.items():
        values = [one.option.values[setting] for one in found]
        if len(set(map(_label, values))) < 2 or not all(isinstance(one, (int, float)) for one in values):
            continue
        if value in (min(values), max(values)):
            words.append(f"{setting} {_label(value)}, the {'smallest' if value == min(values) else 'largest'} tried")
    return words


def told(values: Mapping[str, Any]) -> str:
    """Values in words: ``train.optimizer.lr 0.003``."""
    return ", ".join(f"{setting} {_label(value)}" for setting, value in values.items())


def _tried(option: Option, folder: GridFolder, run: RunFolder | None) -> Tried:
    figures = None if run is None else run.figures(option.trial.resolved.measured)
    if figures is None:
        failure = folder.failure(option.trial)
        return Tried(option, "due") if failure is None else Tried(option, "failed", None, failure["cause"])
    value = Results.from_data(read_json(figures), str(figures)).value(FIGURE)
    if value is None or value.value is None:
        return Tried(option, "failed", None, "not measured" if value is None else value.error or "no number")
    return Tried(option, "done", value)


def _number(one: Tried) -> float:
    assert one.figure is not None
    return one.figure.number


def _combinations(resolved: Resolved, sweep: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of values, the last setting fastest; factors are of the value that the recipe has.

    Raises:
        RecipeError: a factor of a setting that is no number.
    """
    each = []
    for setting, wanted in sweep.items():
        if isinstance(wanted, Mapping):
            own: Any = resolved.data
            for name in setting.split("."):
                own = own.get(name) if isinstance(own, Mapping) else None
            if not isinstance(own, (int, float)) or isinstance(own, bool):
                raise RecipeError([Problem(f"sweep.{setting}", f"factors are of a number; the recipe has {own!r:.60}")])
            wanted = [float(f"{own * factor:.12g}") for factor in wanted[FACTORS]]
        each.append(wanted)
    for values in itertools.product(*each):
        yield dict(zip(sweep, values, strict=True))


def _load(cell: Cell, values: Mapping[str, Any], evaluations: Mapping[str, Any]) -> Resolved:
    more = [f"{name}={json.dumps(data)}" for name, data in {**values, **evaluations}.items()]
    return load(cell.arm.base, [*cell.arm.overrides, *more])


def _parts(resolved: Resolved, part: str) -> dict[str, Any]:
    return {f"evaluations.{name}.part": part for name, one in resolved.data["evaluations"].items() if one is not None}


def _selecting(resolved: Resolved, select: Select) -> dict[str, Any]:
    """The recipe's evaluations replaced by the one that trials are judged by."""
    names = list(resolved.data["evaluations"])
    name = "selection"
    while name in names:  # what it says would be merged with ours
        name += "_"
    own = {"part": "selection", "metrics": [FIGURE], "blocks": select.blocks, "draws": select.draws}
    return {**{f"evaluations.{other}": None for other in names}, f"evaluations.{name}": own | {"batch": select.batch}}


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
