"""Whether the arms of a grid may be compared: what each costs, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from workbench.check import Estimate, estimate
from workbench.core.errors import WorkbenchError
from workbench.core.loading import Resolved
from workbench.grid.cells import Cell, Planned
from workbench.match import MEASURES as SIZES
from workbench.match import match


@dataclass(frozen=True)
class Costed:
    """What training one distinct network takes.

    ``cells``: those that use it; ``tokens``: that it is trained on; ``seconds``: of training, None where nobody knows;
    ``source``: who says so; ``trained``: it has been.
    """

    cells: tuple[Cell, ...]
    cost: Estimate
    tokens: int
    seconds: float | None = None
    source: str = ""
    trained: bool = False

    @property
    def name(self) -> str:
        """The first cell's name."""
        return self.cells[0].name


MEASURES: Mapping[str, tuple[str, Callable[[Costed], float | None]]] = {
    "parameters": ("parameters without embeddings and head", lambda one: one.cost.non_embedding),
    "total": ("parameters", lambda one: one.cost.parameters),
    "flops": ("FLOPs of training per token", lambda one: one.cost.training_flops),
    "tokens": ("tokens trained on", lambda one: one.tokens),
    "memory": ("bytes of memory in training", lambda one: one.cost.training_bytes),
    "seconds": ("seconds of training", lambda one: one.seconds),
}
"""Setting of `Fair` → its title, its value."""


def costed(cells: Sequence[Cell], known: Sequence[Costed] = ()) -> list[Costed]:
    """Each distinct training among ``cells``, costed once, in their order; those that are ``known`` not again."""
    before = {one.cells[0].training.hash: one for one in known}
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.training.hash, []).append(cell)
    found = []
    for digest, group in groups.items():
        if digest in before:
            found.append(replace(before[digest], cells=tuple(group)))
            continue
        cost = estimate(group[0].training)
        found.append(Costed(tuple(group), cost, cost.tokens_per_step * _steps(group[0].training)))
    return found


def unfair(planned: Planned, networks: Sequence[Costed]) -> list[str]:
    """What differs by more than the grid allows, a sentence each: the numbers, and how to make them match.

    The baseline is another kind of model and is shown, not held to the bounds. Seconds are held to before anything is
    trained: what was begun may always go on.
    """
    sentences = []
    for name, (title, value) in MEASURES.items():
        bound = getattr(planned.grid.fair, name)
        known = [(number, one) for one in _arms(networks) if (number := value(one)) is not None]
        begun = name == "seconds" and any(one.trained for one in _arms(networks))  # the page says what was taken
        if bound is None or len(known) < 2 or begun:
            continue
        allowed = 0.0 if isinstance(bound, str) else float(bound)
        (least, low), (most, high) = (end(known, key=lambda pair: pair[0]) for end in (min, max))
        gap, digits = most / max(least, 1e-300) - 1, 0 if least >= 100 else 2
        if gap > allowed:
            sentences.append(
                f"{title}: {low.name} has {least:,.{digits}f}, {high.name} {most:,.{digits}f}, {gap:.1%} more; "
                f"`fair.{name}` allows {'none' if allowed == 0 else f'{allowed:.1%}'}. "
                + _remedy(name, low, high, allowed)
            )
    return sentences


def unchecked(planned: Planned, networks: Sequence[Costed]) -> list[str]:
    """What the grid holds its arms to and nobody can tell of some of them yet, a sentence each."""
    if planned.grid.fair.seconds is None:
        return []
    unknown = [one for one in _arms(networks) if one.seconds is None]
    if not unknown:
        return []
    names = ", ".join(one.name for one in unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    return [f"`fair.seconds` is not checked of {names}: {unknown[0].source}. The page says what training took."]


def _arms(networks: Sequence[Costed]) -> list[Costed]:
    return [one for one in networks if not all(cell.arm.baseline for cell in one.cells)]


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
    if name == "seconds" and low.seconds and high.seconds:
        steps = max(1, round(_steps(low.cells[0].training) * high.seconds / low.seconds))
        sources = dict.fromkeys(f"{one.name} by {one.source}" for one in (low, high))
        return f"{low.name} would match with {{train.steps: {steps}}}, on more tokens then ({'; '.join(sources)})."
    if name == "memory":
        return "A larger train.accumulate takes less of it, a larger train.batch more."
    if name == "flops" and _passes(low) != _passes(high):
        return (
            f"An update of {low.name} takes {_passes(low):g} times its forward pass, one of {high.name} "
            f"{_passes(high):g} times: set other train.steps and hold the arms to seconds, or to parameters."
        )
    if name not in SIZES:
        return "Give both the same train.steps, train.batch and data.length."
    try:
        found = match(low.cells[0].training, high.cells[0].training, name, within)
    except WorkbenchError as error:
        return f"(No sizes of {low.name} match: {error}.)"
    sizes = ", ".join(f"{setting}: {value}" for setting, value in found.sizes.items())
    return f"{low.name} would match with {{{sizes}}} ({found.value:,.0f})."


def _passes(one: Costed) -> float:
    """Training of a token in forward passes: more where a process reads its text twice or learns of another."""
    return round(one.cost.training_flops / one.cost.flops_per_token, 6)


def _steps(resolved: Resolved) -> int:
    return int(resolved.data["train"]["steps"])
