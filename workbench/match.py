"""Sizes at which one recipe's backbone costs what another's does: by parameters or by FLOPs, within a tolerance.

Backbones are built on the meta device, where they cost nothing. Width is kept as near as it can be, depth is solved
for: of all sizes within the tolerance the one nearest in shape is taken.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from backbones.base import Backbone
from backbones.cost import count_parameters, flops_per_token
from workbench.core.errors import WorkbenchError
from workbench.core.loading import Resolved
from workbench.core.node import Node
from workbench.core.spec import misfits
from workbench.sketch import sketch

MEASURES: Mapping[str, tuple[str, Callable[[Backbone, int], float]]] = {
    "parameters": ("parameters without embeddings and head", lambda net, length: count_parameters(net).non_embedding),
    "total": ("parameters", lambda net, length: count_parameters(net).total),
    "flops": ("FLOPs per token", flops_per_token),
}
"""What can be matched: its title, and its value of a backbone at a length."""
GRAINS = (64, 32, 16, 8, 4, 2, 1)
"""Widths are tried in multiples of these, coarse ones first: odd widths run slowly."""
PER_GRAIN = 0.04
"""What a finer grain counts for beside the change of shape, |log of the width's factor| + |log of the depth's|."""
REACH = 8
"""How far width and depth may move, as a factor."""


@dataclass(frozen=True)
class Match:
    """``sizes``: the settings found, by their path; ``value`` of them, ``target``, and ``was`` before."""

    sizes: dict[str, int]
    value: float
    target: float
    was: float

    @property
    def error(self) -> float:
        """How far from the target, as a share of it (signed)."""
        return self.value / self.target - 1


def match(recipe: Resolved, to: Resolved, by: str = "parameters", within: float = 0.01) -> Match:
    """The depth and width of ``recipe``'s backbone at which it measures the same as ``to``'s.

    Each is measured at its own recipe's length and vocabulary.

    Raises:
        WorkbenchError: the backbone has no ``depth`` and ``dim``, or no sizes of it come within the tolerance.
    """
    target = measure(to, by)
    node = recipe.node.find("backbone")
    assert node is not None
    absent = [name for name in ("depth", "dim") if not isinstance(node.settings.get(name), int)]
    if absent:
        raise WorkbenchError(f"{node.path}: backbone {node.part.type_name!r} has no setting {absent[0]!r} to solve for")
    depth, dim = node.settings["depth"], node.settings["dim"]
    was = measure(recipe, by)

    @functools.cache
    def value(dim: int, depth: int) -> float:
        return measure(_resized(recipe, dim, depth), by)

    @functools.cache
    def fits(dim: int, depth: int) -> bool:
        return not misfits(_resized(recipe, dim, depth).node)

    deepest = REACH * depth
    narrow, wide = 0, math.inf  # no deepest of that width is as large as the target, no single block as small
    nearest: Match | None = None
    best: tuple[float, Match] | None = None
    for fine, grain in enumerate(GRAINS):
        for width in _widths(dim, grain):
            if not narrow < width < wide or not fits(width, depth):
                continue
            away = fine * PER_GRAIN + abs(math.log(width / dim))
            if best is not None and away >= best[0]:
                break  # widths come nearest first
            deep = _solve(functools.partial(value, width), target, deepest)
            made = Match({"backbone.dim": width, "backbone.depth": deep}, value(width, deep), target, was)
            if deep == 1 and made.value > target:
                wide = min(wide, width)
            elif deep == deepest and made.value < target:
                narrow = max(narrow, width)
            away += abs(math.log(deep / depth))
            if not fits(width, deep):  # a pattern may be longer than so many blocks
                continue
            if abs(made.error) <= within and (best is None or away < best[0]):
                best = away, made
            if nearest is None or abs(made.error) < abs(nearest.error):
                nearest = made
        if best is not None and best[0] <= (fine + 1) * PER_GRAIN:
            break
    if best is not None:
        return best[1]
    sizes = " ".join(f"{name}={size}" for name, size in (nearest.sizes if nearest else {}).items())
    hint = f"; the nearest is {sizes} ({nearest.error:+.1%})" if nearest else ""
    raise WorkbenchError(
        f"no depth up to {deepest} with a width of {math.ceil(dim / REACH)} to {dim * REACH} of {recipe.name} comes "
        f"within {within:.1%} of {to.name}{hint}. Another setting of its size (state, head_dim, mlp_ratio …) may open "
        "the way"
    )


def measure(recipe: Resolved, by: str) -> float:
    """The figure of a recipe's backbone.

    Raises:
        WorkbenchError: no such figure.
    """
    if by not in MEASURES:
        raise WorkbenchError(f"there is no measure {by!r}; known: {', '.join(MEASURES)}")
    made = sketch(recipe)
    return MEASURES[by][1](made.backbone, made.length)


def _resized(recipe: Resolved, dim: int, depth: int) -> Resolved:
    node: Node = recipe.node.settings["backbone"]
    changed = replace(node, settings={**node.settings, "dim": dim, "depth": depth})
    return replace(recipe, node=replace(recipe.node, settings={**recipe.node.settings, "backbone": changed}))


def _widths(dim: int, grain: int) -> Iterator[int]:
    """The width itself, then all multiples of ``grain`` within reach of it, nearest first."""
    yield dim
    first = math.ceil(dim / REACH / grain)
    around = [grain * n for n in range(first, math.floor(dim * REACH / grain) + 1) if grain * n != dim]
    yield from sorted(around, key=lambda width: abs(math.log(width / dim)))


def _solve(value: Callable[[int], float], target: float, deepest: int) -> int:
    """The depth whose value, which grows with depth, is nearest to the target."""
    if value(1) >= target or deepest == 1:
        return 1
    if value(deepest) <= target:
        return deepest
    low, high = 2, deepest
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if value(middle) < target else (low, middle)
    return min((low - 1, low), key=lambda depth: abs(value(depth) - target))
