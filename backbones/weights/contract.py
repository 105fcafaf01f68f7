"""What every layout must do, as a check that returns what it found wrong (nothing: all is well).

A small network goes out and comes back, bit by bit; its config tells its sizes again; faults are listed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from backbones.base import Backbone
from backbones.weights.base import Layout, Published
from workbench.core.checks import run_checks
from workbench.core.errors import WorkbenchError
from workbench.core.part import Part
from workbench.core.spec import build, resolve

STATES, LENGTH = 9, 6


def check_layout(part: type[Part]) -> list[str]:
    """Problems of a layout, in words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return run_checks(Layout, part, (_round_trip, _sizes, _faults))


CHECKS: dict[str, Callable[[Any], list[str]]] = {"layout": check_layout}
"""Kind → contract check."""


def _toy(layout: Layout) -> tuple[dict[str, Any], Backbone]:
    """The settings of a small backbone and the backbone, its parameters moved away from where they begin."""
    node, problems = resolve(Backbone, dict(layout.toy))
    if node is None or problems:
        raise ValueError(f"toy does not resolve: {'; '.join(map(str, problems))}")
    net: Backbone = build(node, {"states": STATES, "outputs": STATES, "length": LENGTH})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
    return node.as_data(), net


def _round_trip(layout: Layout) -> Iterator[str]:
    """Saved and loaded again, every tensor has the same bits."""
    _, net = _toy(layout)
    _, other = _toy(layout)
    layout.load(other, layout.save(net))
    before, after = net.state_dict(), other.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    if moved:
        yield f"other bits after saving and loading: {', '.join(moved)}"


def _sizes(layout: Layout) -> Iterator[str]:
    """What was saved is recognised; its own config and shapes tell the backbone it was."""
    settings, net = _toy(layout)
    for recipe in _recipes(layout, settings):
        found = Published(layout.save(net), layout.config(recipe, STATES, STATES - 1))
        if not layout.recognises(found):
            yield "does not recognise what it saved beside its own config"
        reading = layout.read(found)
        if reading.states not in (STATES, None) or not reading.recipes or reading.unknown:
            yield f"reads {reading.states} states and {len(reading.recipes)} recipes; unknown: {dict(reading.unknown)}"
        for piece in reading.recipes:
            told = {name: piece["backbone"][name] for name in settings if name in piece["backbone"]}
            if told != {name: settings[name] for name in told} or len(told) < 4:
                yield f"a backbone {settings} was saved, {told} is read"
            if list(layout.objections(recipe | {"process": piece["process"]})):
                yield "objects to the very recipe that it reads from its own weights"


def _recipes(layout: Layout, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Recipes of the small backbone by each process that the layout reads from bare weights."""
    sides: dict[str, Any] = {"name": "toy", "data": {"length": LENGTH}, "backbone": settings}
    shapes = {"vocab_embed.embedding": STATES, "wte.weight": STATES, "wpe.weight": LENGTH}
    bare = {name: torch.zeros(rows, settings["dim"]) for name, rows in shapes.items()}
    for piece in layout.read(Published(bare, {"recipe": {**sides, "process": {}}})).recipes:
        yield sides | {"process": piece["process"]}


def _faults(layout: Layout) -> Iterator[str]:
    """A missing, a surplus and a misshapen tensor are one error that names all three, and nothing is loaded."""
    _, net = _toy(layout)
    state = layout.save(net)
    plain = [name for name, value in state.items() if value.dim() == 2]
    gone, bent = plain[1], plain[2]
    damaged = {**state, "mystery.weight": torch.zeros(2), bent: torch.zeros(3, 3)}
    del damaged[gone]
    _, other = _toy(layout)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    try:
        layout.load(other, damaged)
        yield "loads weights with a missing, a surplus and a misshapen tensor"
    except WorkbenchError as error:
        untold = [name for name in (gone, bent, "mystery.weight") if name not in str(error)]
        if untold:
            yield f"does not name {', '.join(untold)} among the faults"
    if any(not torch.equal(before[name], value) for name, value in other.state_dict().items()):
        yield "loads a part of faulty weights"
