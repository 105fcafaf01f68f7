"""BD3-LM's layout: kuleshov-group/bd3lm-owt-… on the hub.

https://github.com/kuleshov-group/bd3lms (Arriola et al. 2025): MDLM's, with attention that is causal over blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backbones.weights.base import Layout, Published
from backbones.weights.dit import prefix_of
from backbones.weights.mdlm import Mdlm


@Layout.register("bd3lm")
class Bd3lm(Mdlm):
    """BD3-LM (Arriola et al. 2025): MDLM's network, trained to write block by block.

    With blocks as long as the text (bd3lm-owt-block_size1024-pretrain) it is MDLM and can be used; shorter ones are not
    imported yet, and can be loaded into a backbone only.
    """

    model_types = frozenset({"bd3lm"})
    chosen = "asked"
    ignored = ("sampling_eps_min", "sampling_eps_max")

    def recognises(self, found: Published) -> bool:
        """Its name in config.json, or the two numbers that only it keeps."""
        if found.model_type:
            return prefix_of(found.state) is not None and found.model_type in self.model_types
        return prefix_of(found.state) is not None and any(name in found.state for name in self.ignored)

    def refusal(self, found: Published) -> str:
        """Blocks shorter than the text."""
        block, length = found.number("block_size"), found.number("model_length", "length")
        if block is not None and block == length:
            return ""
        size = f"blocks of {block}" if block is not None else "blocks of a length that no config.json tells"
        return (
            f"these weights write {size} tokens after clean blocks, which the import does not lay out for process "
            "blocks yet. Import weights whose block is the whole text "
            "(kuleshov-group/bd3lm-owt-block_size1024-pretrain), or load them into a blockwise backbone by "
            "backbones.weights.bd3lm.Bd3lm().load(net, state)"
        )

    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """MDLM's config.json and one block."""
        length = recipe["data"]["length"]
        return super().config(recipe, vocab, eos) | {"block_size": length, "cross_attn": False, "adaln": True}
