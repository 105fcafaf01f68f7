"""SEDD's transformer (Lou, Meng & Ermon 2024): bidirectional, rotary, adaLN on σ; causal by a setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from backbones.attention import Attention, head_misfits
from backbones.base import Backbone, Mixer
from backbones.conditioning import ADALN, Conditioning
from backbones.embedding import Hint, Tokens, zero_head
from backbones.shortconv import ShortConv
from backbones.sighted import Sighted
from backbones.stack import MLP, FinalNorm, LayerNorm, block
from workbench.core.bounds import Count, Natural, Positive, Probability
from workbench.core.errors import Problem
from workbench.kernels.attention import Kernel

if TYPE_CHECKING:
    from workbench.core.spec import Node


@Backbone.register("transformer")
class Transformer(Sighted):
    """Transformer with rotary positions and adaptive layer norm on σ, laid out as the official SEDD code.

    Settings:
        dim: width; divisible by heads, with an even width per head.
        depth: number of blocks.
        heads: attention heads.
        cond_dim: width of the vector that carries σ to the blocks.
        mlp_ratio: hidden width of the MLPs over dim.
        dropout: rate of dropout on what each branch adds; 0.1 in the published recipes.
        causal: each position sees itself and those before (with a cache of keys and values), for left-to-right use.
        blockwise: each position sees its own block of tokens and, clean, those before it (with a cache), for process
            blocks; the weights are those of a network that sees all.
        conditioning: how σ reaches the blocks: adaln (null is the same), added or none.
        shortconv: odd width of a depthwise convolution before each attention, 0 for none; small networks find
            their neighbours much sooner with one.
        neighbours: how many tokens to either side (to the left when causal) also speak to a position through
            embedding tables of their own, 0 for none; another, cheaper way to see neighbours at once.
        kernel: implementation of attention (auto, sdpa, matmul, flex, xformers, reference).
        hints: whether the network hears a hint of what it expects itself, for process self_conditioned.
    """

    usual = {"conditioning": {"type": "adaln"}}

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        dim: Count = 768,
        depth: Count = 12,
        heads: Count = 12,
        cond_dim: Count = 128,
        mlp_ratio: Positive = 4.0,
        dropout: Probability = 0.1,
        causal: bool = False,
        blockwise: bool = False,
        conditioning: Conditioning | None = None,
        shortconv: Natural = 0,
        neighbours: Natural = 0,
        kernel: Kernel = "auto",
        hints: bool = False,
    ) -> None:
        """Supplied: ``states``, ``outputs``, ``length`` (sequences may be longer: rotary tables extend)."""
        super().__init__()
        conditioning = conditioning or ADALN
        self.causal, self.blockwise = causal, blockwise
        self.head_width = dim // heads
        self.embed = Tokens(states, dim, neighbours, causal)
        self.conditioning = conditioning.embedding(dim, cond_dim)

        def mixer() -> Mixer:
            attention = Attention(dim, length, causal, heads, kernel=kernel)
            return ShortConv(attention, dim, shortconv, causal) if shortconv else attention

        self.blocks = nn.ModuleList(
            block(mixer(), dim, MLP(dim, mlp_ratio), conditioning, cond_dim, dropout) for _ in range(depth)
        )
        self.final = FinalNorm(LayerNorm(dim), conditioning.modulation(dim, cond_dim, 2))
        self.head = zero_head(dim, outputs)
        self.hint = Hint(dim) if hints else None

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Heads that do not share the width; an even short convolution."""
        yield from super().misfits(node, root)
        yield from head_misfits(node)
        width = node.settings["shortconv"]
        if width and width % 2 == 0:
            yield Problem(f"{node.path}.shortconv", f"{width} has no centre; take an odd width, or 0 for none")

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two small blocks."""
        return {"dim": 16, "depth": 2, "heads": 2, "cond_dim": 8, "shortconv": 3, "neighbours": 1}
