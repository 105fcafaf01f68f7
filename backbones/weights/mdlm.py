"""MDLM's layout: kuleshov-group/mdlm-owt on the hub, and the state dicts of its Lightning checkpoints.

https://github.com/kuleshov-group/mdlm (Sahoo et al. 2024). SEDD's layers behind ``backbone.``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backbones.weights.base import Layout, Published, differences
from backbones.weights.dit import ADALN, TIME_FREE, DiT, prefix_of

PREFIX = "backbone."
MASKED: dict[str, Any] = {
    "type": "diffusion",
    "graph": {"type": "absorbing"},
    "noise": {"type": "loglinear", "eps": 1e-3},
    "readout": {"type": "normalised"},
    "objective": {"type": "score_entropy"},
    "times": {"type": "stratified", "eps": 1e-3},
}
"""MDLM's bound is score entropy with a normalised readout."""
STEPWISE: dict[str, Any] = {
    "type": "reverse", "predictor": {"type": "normalised"}, "times": {"type": "uniform", "eps": 1e-5}, "steps": 1024
}  # fmt: skip
MILLION = {"steps": 1_000_000}


@Layout.register("mdlm")
class Mdlm(DiT):
    """MDLM (Sahoo et al. 2024): absorbing, outputs are a law of the clean token, time-free as published."""

    model_types = frozenset({"mdlm"})
    prefix = PREFIX
    toy = {**DiT.toy, "conditioning": TIME_FREE}

    def recognises(self, found: Published) -> bool:
        """Its name in config.json; without one SEDD's layers behind ``backbone.``, whatever else Lightning keeps."""
        layers = prefix_of(found.state) is not None
        if found.model_type:
            return layers and found.model_type in self.model_types
        buffers = any(name.startswith("sampling_eps_m") for name in found.state)
        return layers and prefix_of(found.state) == self.prefix and not buffers and found.told("graph") is None

    def uses(self, found: Published) -> tuple[list[dict[str, Any]], list[str]]:
        """One process."""
        notes = [] if found.told("time_conditioning") is not None else ["time-free, as published: no config.json tells"]
        return [{"process": MASKED, "sampler": STEPWISE, "train": MILLION}], notes

    def conditioning(self, found: Published) -> Mapping[str, Any]:
        """Deaf to time, unless the config says it hears."""
        return ADALN if found.told("time_conditioning") is True else TIME_FREE

    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """Another process, or a conditioning other than adaln, deaf or not."""
        yield from super().objections(recipe)
        how = recipe["backbone"].get("conditioning")
        if how not in (ADALN, TIME_FREE):
            yield f"backbone.conditioning is {how}, the layout knows {ADALN} and {TIME_FREE}"
        yield from differences(_core(MASKED), recipe["process"], "process")

    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """MDLM's config.json."""
        hears = recipe["backbone"]["conditioning"] == ADALN
        return self.flat_config(recipe, vocab + 1) | {"time_conditioning": hears, "return_dict": False}


def _core(process: Mapping[str, Any]) -> dict[str, Any]:
    """What of a process the weights depend on: not how it was trained."""
    return {name: value for name, value in process.items() if name not in ("objective", "times")}
