"""The layout of the official SEDD code (also MDLM's and BD3-LM's, after their prefix): keys in and out.

https://github.com/louaaron/Score-Entropy-Discrete-Diffusion, model/transformer.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from backbones.rotary import BASE
from backbones.transformer import Transformer
from backbones.weights.layout import Entry, to_ours, to_theirs

ROTARY = "rotary_emb.inv_freq"
"""A buffer that the official code saves; here it is computed."""


def entries(depth: int) -> list[Entry]:
    """The two names of every parameter of a transformer of ``depth`` blocks, in the official parameter order.

    The order matters: the official EMA is a list of tensors without names.
    """
    found = [
        Entry("embed.table.weight", "vocab_embed.embedding"),
        *_linear("conditioning.vector.inner", "sigma_map.mlp.0"),
        *_linear("conditioning.vector.outer", "sigma_map.mlp.2"),
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


def load(net: Transformer, state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Load official weights into ``net`` (adaln, no short convolution). ``prefix``: what stands before each key.

    Raises:
        WorkbenchError: lists every tensor that is missing, unknown or of the wrong shape.
    """
    named = {name.removeprefix(prefix): value for name, value in state.items()}
    net.load_state_dict(to_ours(named, entries(len(net.blocks)), net.state_dict(), ignored=(ROTARY,)))


def save(net: Transformer) -> dict[str, Tensor]:
    """The state dict of ``net`` as the official code holds it.

    Raises:
        WorkbenchError: ``net`` has parameters that the official layout has no place for.
    """
    state = to_theirs(net.state_dict(), entries(len(net.blocks)))
    width = net.head_width
    steps = torch.arange(0, width, 2, dtype=torch.float32)
    return state | {ROTARY: 1.0 / BASE ** (steps / width)}


def _linear(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.{name}", f"{theirs}.{name}") for name in ("weight", "bias")]
