"""What fits what, found by asking: each pair of parts is put into a recipe, which is resolved and not built."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.cli.reference import code, spoken, table
from workbench.core.part import KINDS, REQUIRED, Part, settings
from workbench.core.places import recipes_folder
from workbench.core.spec import misfits, resolve
from workbench.core.tree import load_tree, override
from workbench.recipe import Recipe, load

BASE = "smoke/sedd.yaml"
"""The recipe that pairs are put into."""
YES, NO, UNTRIED = "yes", "–", "not tried"


@dataclass(frozen=True)
class Pair:
    """Parts of one kind down, of another across, where each stands in a recipe, and what else may make them fit.

    ``otherwise``: lists of overrides by what they are called, tried in turn where a pair does not fit as it is.
    """

    down: str
    down_at: str
    across: str
    across_at: str
    otherwise: Mapping[str, Sequence[str]] = field(default_factory=dict)


CAUSAL, BLOCKWISE, HINTS = (
    {f"backbone.{name}": [f"backbone.{name}=true"]} for name in ("causal", "blockwise", "hints")
)
BEGUN = {"start": ["start.run=0123456789abcdef"]}
HOLLOW = {"backbone: hollow": ["backbone=hollow"]}
LAWS = {f"readout: {name}": [f"process.readout={name}"] for name in ("normalised", "leave_one_out")}
PAIRS = {
    "Backbones under processes": Pair(
        "backbone", "backbone", "process", "process", CAUSAL | BLOCKWISE | HINTS | BEGUN
    ),
    "Samplers of processes": Pair("sampler", "sampler", "process", "process", CAUSAL | BLOCKWISE | HINTS | BEGUN),
    "Predictors on graphs": Pair("predictor", "sampler.predictor", "graph", "process.graph", HOLLOW),
    "Correctors on graphs": Pair(
        "predictor", "sampler.correctors[0]", "graph", "process.graph", HOLLOW
    ),
    "Lenses on graphs": Pair("lens", "sampler.lenses[0]", "graph", "process.graph"),
    "Lenses under processes": Pair("lens", "sampler.lenses[0]", "process", "process", HINTS | BEGUN),
    "Objectives on graphs": Pair(
        "objective", "process.objective", "graph", "process.graph", LAWS
    ),
    "Readouts on graphs": Pair("readout", "process.readout", "graph", "process.graph"),
    "Readouts under objectives": Pair("readout", "process.readout", "objective", "process.objective"),
    "Corruptions on graphs": Pair("corruption", "process.corruption", "graph", "process.graph"),
    "Estimators on graphs": Pair("estimator", "process.estimator", "graph", "process.graph"),
}  # fmt: skip
"""What is shown, by its heading."""
HEAD = f"""# What fits what

Each pair of parts in `recipes/{BASE}`, all else as there, found by resolving that recipe: {YES}, {NO} (it does not
fit; `workbench check` says why and what would), or what has to be set beside it. *{UNTRIED}*: it does not stand in a
recipe without settings of its own. Parts that fit nothing here, as predictors that do not correct, are left out.
"""


def fits_page() -> str:
    """A table for each of `PAIRS`. All parts must have been imported."""
    return "\n".join(
        [HEAD, *(line for heading, pair in PAIRS.items() for line in (f"## {heading}", "", *_table(pair)))]
    )


def fits(pair: Pair, down: str, across: str) -> str:
    """`YES`, `NO`, `UNTRIED` where the recipe cannot be resolved, or the overrides with which the two fit."""
    found = _asked(pair, down, across, ())
    if found == NO:
        for called, changes in pair.otherwise.items():
            if _asked(pair, down, across, changes) == YES:
                return f"with {code(called)}"
    return found


def _asked(pair: Pair, down: str, across: str, changes: Sequence[str]) -> str:
    tree = override(load_tree(recipes_folder() / BASE), ())
    for kind, name, at in ((pair.across, across, pair.across_at), (pair.down, down, pair.down_at)):
        part = KINDS[kind].lookup(name)
        _put(tree, at, {"type": name, **_lent(part), **part.example()})
    node, problems = resolve(Recipe, override(tree, changes))
    if node is None or problems:
        return UNTRIED
    apart = [one for one in misfits(node, ()) if one.path.startswith((pair.down_at, pair.across_at))]
    return NO if apart else YES


def _lent(part: type[Part]) -> dict[str, Any]:
    """Parts that a constructor cannot do without, lent by the recipe."""
    asked = [one for one in settings(part).values() if one.part is not None]
    siblings = [other for one in asked if one.part for other in one.part.registered.values()]
    usual, lenders = {name for other in siblings for name in other.usual} - set(part.usual), _lenders()
    return {
        one.name: lenders[one.part.kind]
        for one in asked
        if one.part and one.default is REQUIRED and one.name not in usual and one.part.kind in lenders
    }


@functools.cache
def _lenders() -> dict[str, Any]:
    """The recipe's own parts by their kinds."""
    nodes = [node for node in load(recipes_folder() / BASE).node.walk() if node.part.kind]
    return {node.part.kind: node.as_data() for node in reversed(nodes)}


def _table(pair: Pair) -> Iterator[str]:
    names = KINDS[pair.across].names()
    found = {one: [fits(pair, one, name) for name in names] for one in KINDS[pair.down].names()}
    cells = [(code(one), *row) for one, row in found.items() if set(row) != {NO}]
    yield from table((spoken(pair.down).lower(), *map(code, names)), cells)


def _put(tree: dict[str, Any], at: str, value: Any) -> None:
    """Set a dotted path; ``name[0]`` is a list of one."""
    *above, last = at.split(".")
    for name in above:
        below = tree[name]
        tree[name] = below = {"type": below} if isinstance(below, str) else below
        tree = below
    name, listed, _ = last.partition("[")
    tree[name] = [value] if listed else value
