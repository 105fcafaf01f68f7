"""What a grid's file may say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, MinLen

from workbench.core.bounds import Count, Natural, NonNegative
from workbench.core.errors import Problem
from workbench.core.loading import Resolved, resolve_as
from workbench.core.node import Node
from workbench.core.part import Section
from workbench.core.tree import load_tree, override
from workbench.grid.faults import faults
from workbench.recipe import Name, found

Share = Annotated[float, Gt(0)]
FACTORS = "times"
"""The word before factors of a sweep."""


class Fair(Section):
    """What must be alike in all arms that are trained; a grid whose arms differ by more is refused.

    Settings:
        parameters: largest difference, as a share, in parameters without embeddings and head.
        total: the same of all parameters.
        flops: the same of FLOPs of training per token.
        tokens: the same of the tokens trained on; ``equal`` for no difference.
        memory: the same of memory in training, as estimated.
        seconds: the same of the wall-clock time of training: of finished runs of the same recipe but for seed, rates
            and number of updates, or of a trial (``--trial``). Arms of which nobody knows it are told, not refused.
    """

    def __init__(
        self,
        parameters: Share | None = None,
        total: Share | None = None,
        flops: Share | None = None,
        tokens: Literal["equal"] | Share | None = None,
        memory: Share | None = None,
        seconds: Share | None = None,
    ) -> None:
        """Keep the bounds."""
        self.parameters, self.total, self.flops, self.tokens = parameters, total, flops, tokens
        self.memory, self.seconds = memory, seconds


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


class Scaling(Section):
    """A power law with a floor, fitted to a figure over sizes for every arm of the other axes: a plot and a table.

    Settings:
        along: the axis of sizes.
        x: the figure that is the size.
        y: the figure that falls with it.
    """

    def __init__(self, along: str, x: str = "parameters_non_embedding", y: str = "bits_per_byte") -> None:
        """Keep the names."""
        self.along, self.x, self.y = along, x, y


class Reported(Section):
    """How the page puts cells together.

    Settings:
        over: axes that are repetitions (seeds): figures are averaged over them, differences paired along them.
        columns: figures of the table, by name, in order; all that were measured where left out.
        compare: figures whose differences to the baseline are tested; one family each, adjusted after Holm.
        frontiers: plots of two figures.
        scaling: power laws over sizes.
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
        scaling: list[Scaling] | None = None,
    ) -> None:
        """Keep the settings."""
        self.over, self.columns, self.compare = tuple(over), columns, tuple(compare)
        self.frontiers, self.scaling, self.note = frontiers or [], scaling or [], note


class Select(Section):
    """What values of a sweep are chosen by: bits per byte of the first quarter of the held-out text.

    Settings:
        blocks: of that quarter; 0 takes all of them.
        draws: noise draws a block, where the likelihood is a bound.
        batch: blocks handled at a time.
    """

    def __init__(self, blocks: Natural = 0, draws: Count = 4, batch: Count = 64) -> None:
        """Keep the settings."""
        self.blocks, self.draws, self.batch = blocks, draws, batch


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
        only: axis → {other axis: labels}: the axis varies only where the other one, varied itself or not, has such a
            label.
        skip: combinations left out, each {axis: labels}.
        sweep: settings of training tried anew for every arm and seed, the baseline's too: each a list of values, or
            ``{times: factors}`` of the value that the recipe has. The best by ``select`` is compared, on the other
            three quarters of the held-out text.
        select: what values of a sweep are chosen by.
        hourly: price of an hour of one worker, in a currency of your choice: the dry run says what the grid costs.
        fair: what must be alike in arms that are trained.
        report: how the page puts cells together.
    """

    usual: ClassVar[Mapping[str, Any]] = {"fair": {}, "report": {}, "select": {}}

    def __init__(
        self,
        name: Name,
        base: str,
        axes: Annotated[dict[str, Any], MinLen(1)],
        fair: Fair,
        report: Reported,
        select: Select,
        baseline: str | None = None,
        set: dict[str, Any] | None = None,
        zip: list[list[str]] | None = None,
        only: dict[str, dict[str, Any]] | None = None,
        skip: list[dict[str, Any]] | None = None,
        sweep: dict[str, Any] | None = None,
        hourly: NonNegative = 0.0,
    ) -> None:
        """Keep the settings."""
        self.name, self.base, self.axes, self.baseline = name, base, axes, baseline
        self.set, self.zip, self.only, self.skip = set or {}, zip or [], only or {}, skip or []
        self.hourly = hourly
        self.fair, self.report, self.sweep, self.select = fair, report, sweep or {}, select

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Axes that are no axes, patches that are no maps, names of axes that the file does not have."""
        yield from super().misfits(node, root)
        yield from faults(node.settings)


def load_grid(source: Path | str | Mapping[str, Any], overrides: Iterable[str] = ()) -> Resolved:
    """Read a grid's file, or its settings as data; ``overrides`` are of the grid (``set.train.steps=10``).

    Raises:
        RecipeError: with every problem of the file.
        WorkbenchError: it cannot be read.
    """
    if isinstance(source, Mapping):
        return resolve_as(Grid, override({"name": "grid", **source}, overrides))
    place = found(Path(source))
    tree = override({"name": place.stem, **load_tree(place)}, overrides)
    return resolve_as(Grid, tree, place)
