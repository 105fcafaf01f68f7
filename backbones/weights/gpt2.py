"""The layout of GPT-2 as Hugging Face's ``GPT2LMHeadModel`` holds it: keys in and out; its maps are transposed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from backbones.gpt2 import GPT2
from backbones.weights.layout import Entry, to_ours, to_theirs

PREFIX = "transformer."
HEAD = "lm_head.weight"
"""The tied head, stored a second time in some files."""


def entries(depth: int) -> list[Entry]:
    """The two names of every parameter of a GPT-2 of ``depth`` blocks."""
    found = [
        Entry("embed.tokens.weight", "wte.weight"),
        Entry("embed.positions.weight", "wpe.weight"),
    ]
    maps = {"mixer.qkv": "attn.c_attn", "mixer.out": "attn.c_proj", "mlp.inner": "mlp.c_fc", "mlp.outer": "mlp.c_proj"}
    for i in range(depth):
        for ours, theirs in {"norm1": "ln_1", "norm2": "ln_2", **maps}.items():
            found += [
                Entry(f"blocks.{i}.{ours}.weight", f"h.{i}.{theirs}.weight", transposed=ours in maps),
                Entry(f"blocks.{i}.{ours}.bias", f"h.{i}.{theirs}.bias"),
            ]
    return [*found, Entry("final.norm.weight", "ln_f.weight"), Entry("final.norm.bias", "ln_f.bias")]


def load(net: GPT2, state: Mapping[str, Tensor]) -> None:
    """Load weights saved by ``GPT2Model`` or ``GPT2LMHeadModel`` (causal-mask buffers of old files are skipped).

    Raises:
        WorkbenchError: lists every tensor that is missing, unknown or of the wrong shape.
    """
    named = {name.removeprefix(PREFIX): value for name, value in state.items()}
    masks = [f"h.{i}.attn.{name}" for i in range(len(net.blocks)) for name in ("bias", "masked_bias")]
    net.load_state_dict(to_ours(named, entries(len(net.blocks)), net.state_dict(), ignored=(HEAD, *masks)))


def save(net: GPT2) -> dict[str, Tensor]:
    """The state dict of ``net`` as ``GPT2LMHeadModel`` holds it, the tied head included."""
    state = {PREFIX + name: value for name, value in to_theirs(net.state_dict(), entries(len(net.blocks))).items()}
    return state | {HEAD: state[PREFIX + "wte.weight"]}
