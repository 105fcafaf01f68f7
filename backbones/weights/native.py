"""The workbench's own layout: any backbone, plug-ins too, under its own names, with the recipe beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from backbones.base import Backbone
from backbones.weights.base import Layout, Published, Reading
from backbones.weights.layout import Entry, to_ours, to_theirs
from workbench.core.errors import WorkbenchError

RECIPE = "recipe"


@Layout.register("native")
class Native(Layout):
    """The workbench's own: every run can be written so, and comes back with its recipe whole."""

    model_types = frozenset({"sedd-workbench"})
    chosen = "last"
    toy = {"type": "transformer", "dim": 16, "depth": 1, "heads": 2, "cond_dim": 8, "shortconv": 3, "neighbours": 1}

    def recognises(self, found: Published) -> bool:
        """By its name in config.json."""
        return found.model_type in self.model_types

    def read(self, found: Published) -> Reading:
        """The recipe in the config."""
        recipe = found.config.get(RECIPE)
        if not isinstance(recipe, Mapping):
            raise WorkbenchError("config.json holds no `recipe`: export the run again")
        return Reading(({str(name): value for name, value in recipe.items()},))

    def load(self, net: Backbone, state: Mapping[str, Tensor]) -> None:
        """Name by name."""
        own = net.state_dict()
        net.load_state_dict(to_ours(state, [Entry(name, name) for name in own], own))

    def save(self, net: Backbone) -> dict[str, Tensor]:
        """Parameters and kept buffers."""
        own = net.state_dict()
        return to_theirs(own, [Entry(name, name) for name in own])

    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """None."""
        yield from ()

    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """The recipe."""
        return {"model_type": next(iter(self.model_types)), RECIPE: dict(recipe)}
