"""Which combinations of its axes a grid has, and the patches of each."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.grid.faults import wanted_labels
from workbench.grid.section import Grid
from workbench.recipe import found

BASELINE = "baseline"
"""The label of row zero."""
MOST_CELLS = 10_000
MOST_PRODUCTS = 1_000_000


@dataclass(frozen=True)
class Arm:
    """One combination: its label on each axis ({} for the baseline), the recipe it starts from, its patches in order.

    An axis that does not vary here (``only``) has no label.
    """

    labels: Mapping[str, str]
    base: Path
    patches: tuple[Mapping[str, Any], ...]
    baseline: bool = False

    @property
    def overrides(self) -> list[str]:
        """The patches as overrides."""
        return [f"{setting}={json.dumps(value)}" for patch in self.patches for setting, value in patch.items()]

    @property
    def name(self) -> str:
        """``mamba2 · 0``, or ``baseline · 0``."""
        return " · ".join([*([BASELINE] if self.baseline else []), *self.labels.values()]) or BASELINE

    def row(self, over: Sequence[str]) -> str:
        """What its row of the table is called: its labels but for those of repetitions (``over``)."""
        kept = [label for axis, label in self.labels.items() if axis not in over]
        return BASELINE if self.baseline else " · ".join(kept) or "all"


def expand(grid: Grid, folder: Path) -> Iterator[Arm]:
    """All combinations of the axes, in the order of the file (the last axis runs fastest), skips left out.

    Raises:
        WorkbenchError: there are more than `MOST_CELLS`.
    """
    axes = {axis: _arms(axis, arms) for axis, arms in grid.axes.items()}
    together = _zipped(axes, grid.zip)
    product = math.prod(len(axes[group[0]]) for group in together)
    if product > MOST_PRODUCTS:
        raise WorkbenchError(f"the axes multiply to {product:,} combinations: take fewer, or `zip` some")
    seen: set[tuple[tuple[str, str], ...]] = set()
    for combination in itertools.product(*(range(len(axes[group[0]])) for group in together)):
        picked = {axis: axes[axis][i] for group, i in zip(together, combination, strict=True) for axis in group}
        chosen = {axis: picked[axis] for axis in axes}  # in the file's order, whatever went together
        labels = {axis: label for axis, (label, _) in chosen.items()}
        kept = {axis: label for axis, label in labels.items() if _matches(labels, grid.only.get(axis, {}))}
        mark = tuple(kept.items())
        if mark in seen or any(_matches(kept, one) for one in grid.skip):
            continue
        seen.add(mark)
        if len(seen) > MOST_CELLS:
            raise WorkbenchError(f"a grid of more than {MOST_CELLS:,} cells: take fewer axes, or `zip` or `skip` some")
        base, patches = grid.base, [grid.set]
        for axis in kept:
            patch = dict(chosen[axis][1])
            base = str(patch.pop("extends", base))
            patches.append(patch)
        yield Arm(kept, folder / base, tuple(_here(patch, folder) for patch in patches))


def baselines(grid: Grid, folder: Path) -> Iterator[Arm]:
    """Row zero, once for every combination of the axes that are repetitions."""
    if grid.baseline is None:
        return
    over = [axis for axis in grid.report.over if axis in grid.axes]
    for picked in itertools.product(*(_arms(axis, grid.axes[axis]) for axis in over)):
        labels = dict(zip(over, (label for label, _ in picked), strict=True))
        patches = tuple(_here(patch, folder) for patch in (grid.set, *(patch for _, patch in picked)))
        yield Arm(labels, folder / grid.baseline, patches, baseline=True)


def _here(patch: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A patch whose files are named relative to the grid's, as a recipe's are relative to the recipe."""

    def placed(name: Any) -> Any:
        if not isinstance(name, str) or (not (folder / name).exists() and found(Path(name)) != Path(name)):
            return name  # no file's name, or that of a shipped recipe
        return str((folder / name).resolve())

    known = dict(patch)
    if isinstance(start := known.get("start"), Mapping) and "recipe" in start:
        known["start"] = {**start, "recipe": placed(start["recipe"])}
    if "start.recipe" in known:
        known["start.recipe"] = placed(known["start.recipe"])
    if isinstance(plugins := known.get("plugins"), list):
        known["plugins"] = [placed(name) for name in plugins]
    return known


def _arms(axis: str, arms: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(arms, list):
        return [(str(value), {axis: value}) for value in arms]
    return [(str(label), patch or {}) for label, patch in arms.items()]


def _zipped(axes: Mapping[str, Any], groups: list[list[str]]) -> list[list[str]]:
    """Axes in groups that go along together, in the order of their first axes; most are alone."""
    of = {axis: group for group in groups for axis in group}
    together: list[list[str]] = []
    for axis in axes:
        group = of.get(axis, [axis])
        if group not in together:
            together.append(group)
    return together


def _matches(labels: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    return all(labels.get(axis) in wanted_labels(these) for axis, these in wanted.items())
