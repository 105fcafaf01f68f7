"""The layout of GPT-2 as Hugging Face's ``GPT2LMHeadModel`` holds it: keys in and out; its maps are transposed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from backbones.base import Backbone
from backbones.gpt2 import GPT2
from backbones.weights.base import Layout, Published, Reading, depth_of, differences, heads_of
from backbones.weights.layout import Entry, to_ours, to_theirs
from workbench.core.errors import WorkbenchError

PREFIX = "transformer."
HEAD = "lm_head.weight"
"""The tied head, stored a second time in some files."""
TABLE, POSITIONS = "wte.weight", "wpe.weight"
PROCESS = {"type": "autoregressive"}
FIXED = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}
"""Settings of ``transformers`` that the published GPT-2 has at these values, and this backbone always."""


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
    prefix = PREFIX if PREFIX + TABLE in state else ""
    masks = [f"h.{i}.attn.{name}" for i in range(len(net.blocks)) for name in ("bias", "masked_bias")]
    net.load_state_dict(to_ours(state, entries(len(net.blocks)), net.state_dict(), (HEAD, *masks), prefix))


def save(net: GPT2) -> dict[str, Tensor]:
    """The state dict of ``net`` as ``GPT2LMHeadModel`` holds it, the tied head included."""
    state = {PREFIX + name: value for name, value in to_theirs(net.state_dict(), entries(len(net.blocks))).items()}
    return state | {HEAD: state[PREFIX + "wte.weight"]}


@Layout.register("gpt2")
class Gpt2Layout(Layout):
    """GPT-2 (Radford et al. 2019), small to XL, as Hugging Face's ``transformers`` keeps it."""

    model_types = frozenset({"gpt2"})
    toy = {"type": "gpt2", "dim": 16, "depth": 2, "heads": 2}

    def recognises(self, found: Published) -> bool:
        """Its keys, with or without ``transformer.``."""
        names = {name.removeprefix(PREFIX) for name in found.state}
        return {TABLE, POSITIONS} <= names and (not found.model_type or found.model_type in self.model_types)

    def read(self, found: Published) -> Reading:
        """Sizes from the two tables; heads from the config."""
        prefix = PREFIX if PREFIX + TABLE in found.state else ""
        tokens, positions = (found.shape(prefix + name, 2) for name in (TABLE, POSITIONS))
        if tokens is None or positions is None:
            raise WorkbenchError(f"{TABLE} or {POSITIONS} is missing or no table: sizes are read from them")
        states, dim = tokens
        dropout = found.told("resid_pdrop")
        settings: dict[str, Any] = {
            "type": "gpt2",
            "dim": dim,
            "depth": depth_of(found.state, r"(?:transformer\.)?h\."),
            "dropout": float(dropout) if isinstance(dropout, (int, float)) else 0.1,
        }
        unknown: dict[str, str] = {}
        note = heads_of(dim, found.number("n_head"), settings, unknown)
        other = list(differences({key: FIXED[key] for key in FIXED if key in found.config}, dict(found.config)))
        refusal = f"this is a GPT-2 of another make: {'; '.join(other)}" if other else ""
        recipe = {
            "backbone": settings,
            "process": PROCESS,
            "data": {"length": positions[0]},
            "train": {"ema": 0},
        }
        notes = ("the training settings are this recipe's: OpenAI published none", *([note] if note else []))
        return Reading((recipe,), "gpt2-small.yaml", states, notes, unknown, refusal)

    def load(self, net: Backbone, state: Mapping[str, Tensor]) -> None:
        """The head must be the table, where both are stored."""
        head, table = state.get(HEAD), state.get(PREFIX + TABLE, state.get(TABLE))
        if head is not None and table is not None and not (head.shape == table.shape and bool((head == table).all())):
            raise WorkbenchError(f"{HEAD} is not {TABLE}: a head of its own, which this backbone has not (it is tied)")
        load(_gpt2(net), state)

    def save(self, net: Backbone) -> dict[str, Tensor]:
        """As ``GPT2LMHeadModel`` holds it."""
        return save(_gpt2(net))

    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """Another backbone or process."""
        yield from differences({"backbone": {"type": "gpt2"}, "process": PROCESS}, recipe)

    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """The config.json of ``transformers``."""
        backbone = recipe["backbone"]
        dropout, length = backbone["dropout"], recipe["data"]["length"]
        return FIXED | {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": vocab,
            "n_positions": length,
            "n_ctx": length,
            "n_embd": backbone["dim"],
            "n_layer": backbone["depth"],
            "n_head": backbone["heads"],
            "resid_pdrop": dropout,
            "embd_pdrop": dropout,
            "attn_pdrop": dropout,
            "bos_token_id": eos,
            "eos_token_id": eos,
        }


def _gpt2(net: Backbone) -> GPT2:
    if not isinstance(net, GPT2):
        raise WorkbenchError(f"layout 'gpt2' has no place for backbone {net.type_name!r}: it keeps GPT-2s")
    return net
