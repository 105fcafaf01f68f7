"""DUO's layout: s-sahoo/duo on the hub.

https://github.com/s-sahoo/duo (Sahoo et al. 2025), as UDLM before it: SEDD's layers behind ``backbone.``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backbones.weights.base import Layout, Published, differences
from backbones.weights.dit import ADALN, DiT, prefix_of
from backbones.weights.mdlm import MILLION, PREFIX, STEPWISE

UNIFORM: dict[str, Any] = {
    "type": "diffusion",
    "graph": {"type": "uniform"},
    "noise": {"type": "loglinear", "eps": 1e-3},
    "readout": {"type": "leave_one_out"},
    "objective": {"type": "score_entropy"},
    "times": {"type": "stratified", "eps": 1e-3},
}
"""DUO's bound is score entropy on the uniform graph, its outputs a law of the clean token given the other positions."""


@Layout.register("duo")
class Duo(DiT):
    """DUO (Sahoo et al. 2025): uniform, outputs are a law of the clean token given the others.

    Its table has a padding token behind GPT-2's ids (``spare: 1`` of the tokenizer). Keys are MDLM's: only config.json,
    or ``--layout``, tells the two apart.
    """

    model_types = frozenset({"duo"})
    prefix = PREFIX

    def recognises(self, found: Published) -> bool:
        """By its name in config.json."""
        return prefix_of(found.state) is not None and found.model_type in self.model_types

    def uses(self, found: Published) -> tuple[list[dict[str, Any]], list[str]]:
        """One process, on GPT-2's ids with their padding token or without."""
        piece = {"process": UNIFORM, "sampler": STEPWISE, "train": MILLION}
        return [{**piece, "data": {"tokenizer": {"type": "gpt2", "spare": spare}}} for spare in (1, 0)], []

    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """Another process, another conditioning."""
        yield from super().objections(recipe)
        yield from differences({"conditioning": ADALN}, recipe["backbone"], "backbone")
        wanted = {name: UNIFORM[name] for name in ("type", "graph", "noise", "readout")}
        yield from differences(wanted, recipe["process"], "process")

    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """DUO's config.json."""
        return self.flat_config(recipe, vocab) | {"causal": False, "time_conditioning": True}
