"""Whether the arms of a grid may be compared: what each costs, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from workbench.check import Estimate, estimate
from workbench.core.errors import WorkbenchError
from workbench.core.loading import Resolved
from workbench.grid.cells import Cell, Planned
from workbench.match import MEASURES as SIZES
from workbench.match import match


@dataclass(frozen=True)
class Costed:
    """What training one distinct network takes. ``cells``: those that use it; ``tokens``: that it is trained on."""

    cells: tuple[Cell, ...]
    cost: Estimate
    tokens: int

    @property
    def name(self) -> str:
        """The first cell's name."""
        return self.cells[0].name


MEASURES: Mapping[str, tuple[str, Callable[[Costed], float]]] = {
    "parameters": ("parameters without embeddings and head", lambda one: one.cost.non_embedding),
    "total": ("parameters", lambda one: one.cost.parameters),
    "flops": ("FLOPs per token", lambda one: one.cost.flops_per_token),
    "tokens": ("tokens trained on", lambda one: one.tokens),
}
"""Setting of `Fair` → its title, its value."""


def costed(cells: Sequence[Cell]) -> list[Costed]:
    """Each distinct training among ``cells``, costed once, in their order."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.training.hash, []).append(cell)
    found = []
    for group in groups.values():
        cost = estimate(group[0].training)
        found.append(Costed(tuple(group), cost, cost.tokens_per_step * _steps(group[0].training)))
    return found


def unfair(planned: Planned, networks: Sequence[Costed]) -> list[str]:
    """What differs by more than the grid allows, a sentence each: the numbers, and how to make them match.

    The baseline is another kind of model and is shown, not held to the bounds.
    """
    arms = [one for one in networks if not all(cell.arm.baseline for cell in one.cells)]
    sentences = []
    for name, (title, value) in MEASURES.items():
        bound = getattr(planned.grid.fair, name)
        if bound is None or len(arms) < 2:
            continue
        allowed = 0.0 if isinstance(bound, str) else float(bound)
        low, high = min(arms, key=value), max(arms, key=value)
        gap = value(high) / max(value(low), 1e-300) - 1
        if gap > allowed:
            sentences.append(
                f"{title}: {low.name} has {value(low):,.0f}, {high.name} {value(high):,.0f}, {gap:.1%} more; "
                f"`fair.{name}` allows {'none' if allowed == 0 else f'{allowed:.1%}'}. "
                + _remedy(name, low, high, allowed)
            )
    return sentences


def require_fair(planned: Planned, networks: Sequence[Costed]) -> None:
    """Refuse a grid whose arms differ by more than it allows.

    Raises:
        WorkbenchError: with the numbers, and the settings that would match.
    """
    found = unfair(planned, networks)
    if found:
        raise WorkbenchError(f"{planned.source} is not fair by its own bounds:\n  " + "\n  ".join(found))


def _remedy(name: str, low: Costed, high: Costed, within: float) -> str:
    """The sizes at which the smaller one matches the larger, where they can be solved for."""
    if name not in SIZES:
        return "Give both the same train.steps, train.batch and data.length."
    try:
        found = match(low.cells[0].resolved, high.cells[0].resolved, name, within)
    except WorkbenchError as error:
        return f"(No sizes of {low.name} match: {error}.)"
    sizes = ", ".join(f"{setting}: {value}" for setting, value in found.sizes.items())
    return f"{low.name} would match with {{{sizes}}} ({found.value:,.0f})."


def _steps(resolved: Resolved) -> int:
    return int(resolved.data["train"]["steps"])
