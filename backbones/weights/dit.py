"""What the layouts of SEDD, MDLM, DUO and BD3-LM share: the layer code of the official SEDD, keys in and out.

https://github.com/louaaron/Score-Entropy-Discrete-Diffusion, model/transformer.py; the others put a prefix before it.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from backbones.base import Backbone
from backbones.rotary import BASE
from backbones.transformer import Transformer
from backbones.weights.base import Layout, Published, Reading, depth_of, differences, heads_of
from backbones.weights.layout import Entry, to_ours, to_theirs
from workbench.core.errors import WorkbenchError

TABLE = "vocab_embed.embedding"
ROTARY = "rotary_emb.inv_freq"
"""A buffer that the official code saves; here it is computed."""
ADALN = {"type": "adaln"}
TIME_FREE = {"type": "time_free", "inner": ADALN}


def entries(depth: int, conditioning: str = "conditioning") -> list[Entry]:
    """The two names of every parameter of a transformer of ``depth`` blocks, in the official parameter order.

    The order matters: the official EMA is a list of tensors without names. ``conditioning``: where ours is held.
    """
    found = [
        Entry("embed.table.weight", TABLE),
        *_linear(f"{conditioning}.vector.inner", "sigma_map.mlp.0"),
        *_linear(f"{conditioning}.vector.outer", "sigma_map.mlp.2"),
    ]
    for i in range(depth):
        ours, theirs = f"blocks.{i}.", f"blocks.{i}."
        found += [
            Entry(ours + "norm1.weight", theirs + "norm1.weight"),
            Entry(ours + "mixer.qkv.weight", theirs + "attn_qkv.weight"),
            Entry(ours + "mixer.out.weight", theirs + "attn_out.weight"),
            Entry(ours + "norm2.weight", theirs + "norm2.weight"),
            *_linear(ours + "mlp.inner", theirs + "mlp.0"),
            *_linear(ours + "mlp.outer", theirs + "mlp.2"),
            *_linear(ours + "modulation.linear", theirs + "adaLN_modulation"),
        ]
    return [
        *found,
        Entry("final.norm.weight", "output_layer.norm_final.weight"),
        *_linear("head", "output_layer.linear"),
        *_linear("final.modulation.linear", "output_layer.adaLN_modulation"),
    ]


def load(net: Transformer, state: Mapping[str, Tensor], prefix: str = "", ignored: Collection[str] = ()) -> None:
    """Load official weights into ``net`` (adaln, no short convolution). ``prefix``: what stands before each key.

    Raises:
        WorkbenchError: lists every tensor that is missing, unknown or of the wrong shape.
    """
    net.load_state_dict(to_ours(state, _entries_of(net), net.state_dict(), (ROTARY, *ignored), prefix))


def save(net: Transformer) -> dict[str, Tensor]:
    """The state dict of ``net`` as the official code holds it.

    Raises:
        WorkbenchError: ``net`` has parameters that the official layout has no place for.
    """
    state = to_theirs(net.state_dict(), _entries_of(net))
    width = net.head_width
    steps = torch.arange(0, width, 2, dtype=torch.float32)
    return state | {ROTARY: 1.0 / BASE ** (steps / width)}


class DiT(Layout):
    """Base of the layouts that keep SEDD's transformer.

    ``prefix``: before each key on the way out (on the way in it is read from the keys); ``ignored``: further buffers.
    """

    prefix: ClassVar[str] = ""
    ignored: ClassVar[tuple[str, ...]] = ()
    base: ClassVar[str] = "sedd-small.yaml"
    backbone: ClassVar[Mapping[str, Any]] = {
        "type": "transformer", "mlp_ratio": 4.0, "causal": False, "shortconv": 0, "neighbours": 0
    }  # fmt: skip
    """What the published code has no setting for."""
    toy: ClassVar[Mapping[str, Any]] = {"type": "transformer", "dim": 16, "depth": 2, "heads": 2, "cond_dim": 8}

    def load(self, net: Backbone, state: Mapping[str, Tensor]) -> None:
        """By the prefix that the keys have."""
        load(_transformer(net, self.type_name), state, prefix_of(state) or "", self.ignored)

    def save(self, net: Backbone) -> dict[str, Tensor]:
        """With the layout's prefix."""
        return {self.prefix + name: value for name, value in save(_transformer(net, self.type_name)).items()}

    def order(self, found: Published) -> list[str]:
        """The order in which the official modules are made."""
        prefix = prefix_of(found.state) or ""
        return [prefix + entry.theirs for entry in entries(_depth(found.state, prefix))]

    def read(self, found: Published) -> Reading:
        """Sizes from shapes and the rotary buffer, the rest from the config."""
        prefix = prefix_of(found.state) or ""
        table = found.shape(prefix + TABLE, 2)
        if table is None:
            raise WorkbenchError(f"{prefix}{TABLE} is missing or no table [tokens, width]: sizes are read from it")
        states, dim = table
        settings, unknown, notes = self.sizes(found, prefix, dim)
        process, more = self.uses(found)
        length = found.number("model_length", "length")
        if length is None:
            notes.append("data.length is the recipe's: weights with rotary positions do not tell it")
        data = {} if length is None else {"length": length}
        conditioned = settings | {"conditioning": self.conditioning(found)}
        recipes = tuple({**piece, "backbone": conditioned, "data": piece.get("data", {}) | data} for piece in process)
        return Reading(recipes, self.base, states, (*notes, *more), unknown, self.refusal(found))

    def sizes(self, found: Published, prefix: str, dim: int) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """(backbone settings, those that nothing tells, notes)."""
        inner = found.shape(prefix + "blocks.0.mlp.0.weight", 2)
        width = found.shape(prefix + "sigma_map.mlp.0.bias", 1)
        turns = found.shape(prefix + ROTARY, 1)
        dropout = found.told("dropout")
        settings: dict[str, Any] = {
            "type": "transformer",
            "dim": dim,
            "depth": _depth(found.state, prefix),
            "cond_dim": width[0] if width else 128,
            "mlp_ratio": inner[0] / dim if inner else 4.0,
            "dropout": float(dropout) if isinstance(dropout, (int, float)) else 0.1,
        }
        unknown: dict[str, str] = {}
        heads = None
        if turns and dim % (2 * turns[0]) == 0:
            heads = dim // (2 * turns[0])
        note = heads_of(dim, heads or found.number("n_heads"), settings, unknown)
        return settings, unknown, [note] if note else []

    @abstractmethod
    def uses(self, found: Published) -> tuple[list[dict[str, Any]], list[str]]:
        """(recipe pieces beside the backbone, the likeliest first; notes)."""

    def conditioning(self, found: Published) -> Mapping[str, Any]:
        """How σ reaches the blocks."""
        return ADALN

    def refusal(self, found: Published) -> str:
        """Why no process here can use these weights; "" where one can."""
        return ""

    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """A backbone that is not the published one."""
        other = list(differences({"type": self.backbone["type"]}, recipe["backbone"], "backbone"))
        yield from other or differences(self.backbone, recipe["backbone"], "backbone")

    def flat_config(self, recipe: Mapping[str, Any], states: int) -> dict[str, Any]:
        """The config.json of MDLM's relatives."""
        backbone = recipe["backbone"]
        return {
            "model_type": self.type_name,
            "vocab_size": states,
            "model_length": recipe["data"]["length"],
            "hidden_dim": backbone["dim"],
            "cond_dim": backbone["cond_dim"],
            "n_blocks": backbone["depth"],
            "n_heads": backbone["heads"],
            "dropout": backbone["dropout"],
        }


def prefix_of(state: Mapping[str, Tensor]) -> str | None:
    """What stands before the keys of SEDD's layers; None where they are not there."""
    return next((name.removesuffix(TABLE) for name in state if name.endswith(TABLE)), None)


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return depth_of(state, re.escape(prefix) + r"blocks\.")


def _entries_of(net: Transformer) -> list[Entry]:
    held = "conditioning.inner.vector.inner.weight" in net.state_dict()
    return entries(len(net.blocks), "conditioning.inner" if held else "conditioning")


def _transformer(net: Backbone, layout: str) -> Transformer:
    if not isinstance(net, Transformer):
        raise WorkbenchError(f"layout {layout!r} has no place for backbone {net.type_name!r}: it keeps transformers")
    return net


def _linear(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.{name}", f"{theirs}.{name}") for name in ("weight", "bias")]
