"""SEDD's own layout: the hub's louaaron/sedd-small and sedd-medium, and the checkpoints of the official training code.

https://github.com/louaaron/Score-Entropy-Discrete-Diffusion: load_model.py, utils.py, configs/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from backbones.weights.base import Layout, Published, differences, named
from backbones.weights.dit import ADALN, DiT, prefix_of
from workbench.core.tree import dump_yaml

GRAPHS: dict[str, dict[str, Any]] = {"absorb": {"type": "absorbing"}, "uniform": {"type": "uniform"}}
READOUTS: dict[bool, dict[str, Any]] = {True: {"type": "scaled"}, False: {"type": "plain"}}
"""By the official setting scale_by_sigma."""
NOISES: dict[str, dict[str, Any]] = {
    "loglinear": {"type": "loglinear", "eps": 1e-3},
    "geometric": {"type": "geometric"},
}
USUAL = {"absorb": ("loglinear", True), "uniform": ("geometric", False)}
"""Noise and scale_by_sigma that were published with a graph."""
RANGE = {"sigma_min": 1e-4, "sigma_max": 20.0}
"""The official range of the geometric noise."""


@Layout.register("sedd")
class Sedd(DiT):
    """The official SEDD (Lou, Meng & Ermon 2024), small and medium: score entropy, absorbing or uniform.

    Without a config the number of ids tells the graph: one more than the tokens is the mask's.
    """

    def recognises(self, found: Published) -> bool:
        """SEDD's layers under their own names, or beside the official config."""
        own = prefix_of(found.state) in ("", "module.") or isinstance(found.told("graph"), Mapping)
        return prefix_of(found.state) is not None and own and not found.model_type

    def uses(self, found: Published) -> tuple[list[dict[str, Any]], list[str]]:
        """The graph that the config names, else both."""
        graph, noise, scaled = found.told("graph"), found.told("noise"), found.told("scale_by_sigma")
        kind = graph.get("type") if isinstance(graph, Mapping) else None
        known = isinstance(kind, str) and kind in GRAPHS
        names = [str(kind)] if known else list(GRAPHS)
        notes = [] if known else ["graph, noise and scale_by_sigma are as published: no config.json tells"]
        pieces = []
        for name in names:
            schedule, scales = USUAL[name]
            given = noise if isinstance(noise, Mapping) and str(noise.get("type")) in NOISES else {"type": schedule}
            scales = scales and scaled is not False  # on the uniform graph the official code refuses to scale
            sigmas = {key: given.get(key, usual) for key, usual in RANGE.items()}  # resolving says what is no number
            fixed = NOISES[str(given["type"])]
            pieces.append(
                {
                    "process": {
                        "type": "diffusion",
                        "graph": GRAPHS[name],
                        "noise": fixed if len(fixed) > 1 else fixed | sigmas,  # the official loglinear has no range
                        "readout": READOUTS[scales],
                        "objective": {"type": "score_entropy"},
                        "times": {"type": "uniform", "eps": 1e-3},
                    }
                }
            )
        return pieces, notes

    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """A conditioning, graph, noise or readout that the official code has not."""
        yield from super().objections(recipe)
        yield from differences({"conditioning": ADALN}, recipe["backbone"], "backbone")
        process = recipe["process"]
        for name, table in (("graph", GRAPHS), ("readout", READOUTS), ("noise", NOISES)):
            if named(table, process.get(name)) is None:
                yield f"process.{name} is {process.get(name)}, the layout knows {list(table.values())}"

    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """The official settings: what ``load_model`` of the official code asks for."""
        process, backbone = recipe["process"], recipe["backbone"]
        noise = process["noise"]
        return {
            "tokens": vocab,
            "graph": {"type": named(GRAPHS, process["graph"]), "file": "data", "report_all": False},
            "noise": {"type": named(NOISES, noise), **{key: noise.get(key, usual) for key, usual in RANGE.items()}},
            "model": {
                "name": recipe["name"],
                "type": "ddit",
                "hidden_size": backbone["dim"],
                "cond_dim": backbone["cond_dim"],
                "length": recipe["data"]["length"],
                "n_blocks": backbone["depth"],
                "n_heads": backbone["heads"],
                "scale_by_sigma": named(READOUTS, process["readout"]),
                "dropout": backbone["dropout"],
            },
        }

    def torch_file(
        self, weights: Mapping[str, Tensor], averaged: Mapping[str, Tensor] | None, step: int
    ) -> tuple[str, Any]:
        """The official checkpoint, which ``load_model_local`` reads: averages are a list in the order of parameters."""
        averages = weights if averaged is None else averaged
        shadow = [averages[name] for name in self.order(Published(averages))]
        ema = {"decay": 0.9999, "num_updates": step, "shadow_params": shadow}
        return "checkpoints-meta/checkpoint.pth", {"optimizer": {}, "model": dict(weights), "ema": ema, "step": step}

    def texts(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The official code reads its settings where Hydra leaves them."""
        return {".hydra/config.yaml": dump_yaml(dict(config))}
