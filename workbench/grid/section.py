"""What a grid's file may say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, MinLen

from workbench.core.errors import Problem
from workbench.core.loading import Resolved, resolve_as
from workbench.core.node import Node
from workbench.core.part import Section, did_you_mean
from workbench.core.tree import load_tree, override
from workbench.recipe import Name, found

Share = Annotated[float, Gt(0)]


class Fair(Section):
    """What must be alike in all arms that are trained; a grid whose arms differ by more is refused.

    Settings:
        parameters: largest difference, as a share, in parameters without embeddings and head.
        total: the same of all parameters.
        flops: the same of FLOPs per token.
        tokens: the same of the tokens trained on; ``equal`` for no difference.
    """

    def __init__(
        self,
        parameters: Share | None = None,
        total: Share | None = None,
        flops: Share | None = None,
        tokens: Literal["equal"] | Share | None = None,
    ) -> None:
        """Keep the bounds."""
        self.parameters, self.total, self.flops, self.tokens = parameters, total, flops, tokens


class Frontier(Section):
    """A plot of two figures against each other, a line for each arm of the other axes.

    Settings:
        x: the figure along, by its column's name.
        y: the figure up.
        along: the axis whose arms a line goes through, in the order of the file; without one, points stand alone.
    """

    def __init__(self, x: str, y: str, along: str | None = None) -> None:
        """Keep the names."""
        self.x, self.y, self.along = x, y, along


class Reported(Section):
    """How the page puts cells together.

    Settings:
        over: axes that are repetitions (seeds): figures are averaged over them, differences paired along them.
        columns: figures of the table, by name, in order; all that were measured where left out.
        compare: figures whose differences to the baseline are tested; one family each, adjusted after Holm.
        frontiers: plots of two figures.
        note: a sentence for the head of the page: what it shows and what it does not.
    """

    usual: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        over: list[str] = ("seed",),  # type: ignore[assignment]
        columns: list[str] | None = None,
        compare: list[str] = ("bits_per_byte",),  # type: ignore[assignment]
        frontiers: list[Frontier] | None = None,
        note: str = "",
    ) -> None:
        """Keep the settings."""
        self.over, self.columns, self.compare = tuple(over), columns, tuple(compare)
        self.frontiers, self.note = frontiers or [], note


class Grid(Section):
    """Cells made of a recipe by named patches along axes, beside a baseline.

    A patch maps dotted settings to values, as overrides do; ``extends`` in it names another recipe to start from. An
    axis may also be a list of values of the setting that it is called after.

    Settings:
        name: what the grid is called; its file's name where left out.
        base: the recipe, relative to this file; or a run folder, whose weights are taken as they are.
        axes: by name: patches by their labels, or a list of values.
        baseline: the recipe of row zero, relative to this file.
        set: a patch of every cell and of the baseline.
        zip: lists of axes that go along together instead of being multiplied.
        only: axis → {other axis: labels}: the axis varies only where the other one has such a label.
        skip: combinations left out, each {axis: labels}.
        fair: what must be alike in arms that are trained.
        report: how the page puts cells together.
    """

    usual: ClassVar[Mapping[str, Any]] = {"fair": {}, "report": {}}

    def __init__(
        self,
        name: Name,
        base: str,
        axes: Annotated[dict[str, Any], MinLen(1)],
        fair: Fair,
        report: Reported,
        baseline: str | None = None,
        set: dict[str, Any] | None = None,
        zip: list[list[str]] | None = None,
        only: dict[str, dict[str, Any]] | None = None,
        skip: list[dict[str, Any]] | None = None,
    ) -> None:
        """Keep the settings."""
        self.name, self.base, self.axes, self.baseline = name, base, axes, baseline
        self.set, self.zip, self.only, self.skip = set or {}, zip or [], only or {}, skip or []
        self.fair, self.report = fair, report

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Axes that are no axes, patches that are no maps, names of axes that the file does not have."""
        yield from super().misfits(node, root)
        axes: dict[str, Any] = node.settings["axes"]
        for axis, arms in axes.items():
            yield from _faults(axis, arms)
        labels = {axis: [str(one) for one in arms] for axis, arms in axes.items() if isinstance(arms, (dict, list))}
        named: list[tuple[str, str, Any]] = [
            (f"zip[{i}]", axis, None) for i, group in enumerate(node.settings["zip"] or []) for axis in group
        ]
        named += [
            (f"skip[{i}]", axis, wanted)
            for i, one in enumerate(node.settings["skip"] or [])
            for axis, wanted in one.items()
        ]
        for axis, where in (node.settings["only"] or {}).items():
            named += [(f"only.{axis}", axis, None)]
            named += [(f"only.{axis}", other, wanted) for other, wanted in where.items()]
        for path, axis, wanted in named:
            if axis in axes and axis not in labels:
                continue  # told above
            if axis not in axes:
                yield Problem(path, f"there is no axis {axis!r}.{did_you_mean(axis, axes)}")
                continue
            for label in wanted_labels(wanted):
                if label not in labels.get(axis, []):
                    yield Problem(path, f"axis {axis!r} has no {label!r}.{did_you_mean(label, labels.get(axis, []))}")
        zipped = [axis for group in node.settings["zip"] or [] for axis in group]
        for axis in sorted({axis for axis in zipped if zipped.count(axis) > 1}):
            yield Problem("zip", f"axis {axis!r} stands in it twice: it can go along with one group")
        for i, group in enumerate(node.settings["zip"] or []):
            sizes = {axis: len(axes[axis]) for axis in group if axis in labels}
            if len(set(sizes.values())) > 1:
                told = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
                yield Problem(f"zip[{i}]", f"axes that go together have as many arms; found {told}")


def wanted_labels(wanted: Any) -> list[str]:
    """Labels as ``skip`` and ``only`` name them: one, or a list; None names none."""
    if wanted is None:
        return []
    return [str(one) for one in wanted] if isinstance(wanted, list) else [str(wanted)]


def load_grid(path: Path | str, overrides: Iterator[str] | tuple[str, ...] = ()) -> Resolved:
    """Read a grid's file; ``overrides`` are of the grid (``set.train.steps=10``, ``report.over=[]``).

    Raises:
        RecipeError: with every problem of the file.
        WorkbenchError: it cannot be read.
    """
    place = found(Path(path))
    tree = override({"name": place.stem, **load_tree(place)}, overrides)
    return resolve_as(Grid, tree, place)


def _faults(axis: str, arms: Any) -> Iterator[Problem]:
    if not isinstance(arms, (dict, list)) or not arms:
        yield Problem(f"axes.{axis}", "an axis is a map of patches by their labels, or a list of values; neither empty")
    elif isinstance(arms, list):
        if len({str(one) for one in arms}) < len(arms):
            yield Problem(f"axes.{axis}", "lists a value twice")
    else:
        if len({str(label) for label in arms}) < len(arms):
            yield Problem(f"axes.{axis}", "has two labels that read the same")
        for label, patch in arms.items():
            if not str(label).isprintable() or not str(label):
                yield Problem(f"axes.{axis}", f"the label {str(label)!r:.60} cannot be printed on one line")
            if patch is not None and not isinstance(patch, dict):
                message = f"a patch is a map of settings, as in {{train.steps: 100}}; found {patch!r:.60}"
                yield Problem(f"axes.{axis}.{label}", message)
