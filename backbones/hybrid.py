"""Stacks whose mixers are parts of their own, in any pattern over depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from backbones.base import Backbone, Mixer
from backbones.blockwise import mixer_block_misfits
from backbones.conditioning import ADALN, Conditioning
from backbones.embedding import Hint, Tokens, zero_head
from backbones.sighted import Sighted
from backbones.stack import MLP, FinalNorm, LayerNorm, block
from workbench.core.bounds import Count, Natural, NonNegative, Probability
from workbench.core.errors import Problem
from workbench.core.part import Maker, did_you_mean

if TYPE_CHECKING:
    from workbench.core.spec import Node


class Mixed(Sighted):
    """Base of stacks whose mixers are parts of their own: SEDD's embedding, norms, conditioning and head around them.

    Settings:
        dim: width.
        depth: number of blocks.
        cond_dim: width of the vector that carries σ to the blocks.
        mlp_ratio: hidden width of the MLPs over dim; 0 for none.
        dropout: rate of dropout on what each branch adds; 0.1 in the published recipes.
        causal: each position sees itself and those before, with a cache, for left-to-right use.
        blockwise: each position sees its own block of tokens and, clean, those before it (with a cache), for process
            blocks; the weights are those of a network that sees all.
        conditioning: how σ reaches the blocks: adaln (null is the same), added, step_size, time_free, none.
        neighbours: how many tokens to either side (to the left when causal) also speak to a position through
            embedding tables of their own, 0 for none.
        hints: whether the network hears a hint of what it expects itself, for process self_conditioned.
    """

    def __init__(
        self,
        states: int,
        outputs: int,
        pieces: Sequence[tuple[Mixer, nn.Module | None]],
        dim: int,
        cond_dim: int,
        dropout: float,
        causal: bool,
        blockwise: bool,
        conditioning: Conditioning | None,
        neighbours: int,
        hints: bool,
    ) -> None:
        """``pieces``: each block's mixer and its MLP or None; the same module twice is shared."""
        super().__init__()
        conditioning = conditioning or ADALN
        self.causal, self.blockwise = causal, blockwise
        self.embed = Tokens(states, dim, neighbours, causal)
        self.conditioning = conditioning.embedding(dim, cond_dim)
        self.blocks = nn.ModuleList(block(mixer, dim, mlp, conditioning, cond_dim, dropout) for mixer, mlp in pieces)
        self.final = FinalNorm(LayerNorm(dim), conditioning.modulation(dim, cond_dim, 2))
        self.head = zero_head(dim, outputs)
        self.hint = Hint(dim) if hints else None

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Mixers that do not fit the width or read no blocks."""
        yield from super().misfits(node, root)
        for mixer in cls.mixers(node):
            yield from mixer_misfits(node, mixer)
            yield from mixer_block_misfits(node, mixer)


def mixer_misfits(node: Node, mixer: Node) -> Iterator[Problem]:
    """What a backbone's width has against the settings of one of its mixers."""
    part: Any = mixer.part
    for setting, message in part.unfit(mixer.settings, node.settings["dim"]):
        yield Problem(f"{mixer.path}.{setting}", message)


@Backbone.register("hybrid")
class Hybrid(Mixed):
    """Blocks of different mixers in a pattern over depth: the stack for any registered mixer, plug-ins included.

    A block has an MLP where its mixer is not wider inside than outside (attention); so a hybrid of ``A`` alone is a
    transformer, one of ``M`` alone a Mamba-2 stack. Attention wants to stand in the middle or evenly, not first.

    Settings:
        pattern: mixers from the first block up, repeated (and cut) to the depth: letters as in "MMMMMA", or a list
            as in [mamba2, mamba2, attention]; each is a name in `mixers`, or the type of just one of them.
        mixers: mixers by name; an entry changes or adds to the usual M (mamba2), S (mamba) and A (attention).
        shared: names of mixers of which there is one, its mixer and MLP used at each place of the pattern (Zamba).
        mlps: names of mixers whose blocks have an MLP; null for those that are not wider inside than outside.
    """

    usual = {
        "mixers": {"M": {"type": "mamba2"}, "S": {"type": "mamba"}, "A": {"type": "attention"}},
        "conditioning": {"type": "adaln"},
    }

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        mixers: dict[str, Maker[Mixer]],
        pattern: str | list[str] = "MMMMMA",
        shared: list[str] | None = None,
        mlps: list[str] | None = None,
        dim: Count = 768,
        depth: Count = 12,
        cond_dim: Count = 128,
        mlp_ratio: NonNegative = 4.0,
        dropout: Probability = 0.1,
        causal: bool = False,
        blockwise: bool = False,
        conditioning: Conditioning | None = None,
        neighbours: Natural = 0,
        hints: bool = False,
    ) -> None:
        """Supplied: ``states``, ``outputs``, ``length`` (sequences may be longer)."""
        named = {name: maker.part for name, maker in mixers.items()}
        places = [_name(item, named) or item for item in pattern]
        once = {_name(item, named) for item in shared or ()}
        with_mlp = _with_mlp(mlps, named)
        made: dict[str, tuple[Mixer, nn.Module | None]] = {}

        def piece(name: str) -> tuple[Mixer, nn.Module | None]:
            if name in made:
                return made[name]
            mixer = mixers[name](dim=dim, length=length, causal=causal)
            both = mixer, MLP(dim, mlp_ratio) if name in with_mlp and mlp_ratio else None
            if name in once:
                made[name] = both
            return both

        pieces = [piece(places[i % len(places)]) for i in range(depth)]
        rest = (dim, cond_dim, dropout, causal, blockwise, conditioning, neighbours, hints)
        super().__init__(states, outputs, pieces, *rest)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Names that are no mixers, and widths that a mixer of the pattern cannot have."""
        yield from super().misfits(node, root)
        mixers = _kept(node)
        named: dict[str, Any] = {name: inner.part for name, inner in mixers.items()}
        pattern, depth = node.settings["pattern"], node.settings["depth"]
        if not pattern:
            yield Problem(f"{node.path}.pattern", 'needs at least one mixer, as in "MMA"')
        if isinstance(pattern, str) and _name(pattern, named) not in (None, pattern):
            yield Problem(f"{node.path}.pattern", f"text is letters; write a list: [{pattern}]")
            return
        for setting in ("pattern", "shared", "mlps"):
            for item in dict.fromkeys(node.settings[setting] or ()):
                if _name(item, named) is None:
                    yield Problem(f"{node.path}.{setting}", _unknown(item, named))
        used = {_name(item, named) for item in pattern}
        for setting in ("shared", "mlps"):
            for item in node.settings[setting] or ():
                if _name(item, named) in set(named) - used:
                    yield Problem(f"{node.path}.{setting}", f"{item!r} does not occur in the pattern")
        for item in dict.fromkeys(pattern[depth:]):
            if _name(item, named) not in {_name(place, named) for place in pattern[:depth]}:
                yield Problem(f"{node.path}.depth", f"{depth} blocks end before {item!r} of the pattern comes")

    @classmethod
    def mixers(cls, node: Node) -> list[Node]:
        """Those that the pattern names."""
        kept = _kept(node)
        named: dict[str, Any] = {name: inner.part for name, inner in kept.items()}
        used = {_name(item, named) for item in node.settings["pattern"]}
        return [inner for name, inner in kept.items() if name in used]

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Three small blocks, the attention shared."""
        mixers = {"M": {"type": "mamba2", "state": 4, "head_dim": 8}, "A": {"type": "attention", "heads": 2}}
        return {"dim": 16, "depth": 4, "cond_dim": 8, "mixers": mixers, "pattern": "MA", "shared": ["A"]}


def _name(item: str, named: Mapping[str, type[Mixer]]) -> str | None:
    """The name in the map that an item of a pattern means: itself, or that of the one mixer of this type."""
    if item in named:
        return item
    of_type = [name for name, part in named.items() if part.type_name == item]
    return of_type[0] if len(of_type) == 1 else None


def _kept(node: Node) -> dict[str, Node]:
    """The entries of ``mixers`` that were not dropped."""
    return {name: inner for name, inner in node.settings["mixers"].items() if inner is not None}


def _unknown(item: str, named: Mapping[str, type[Mixer]]) -> str:
    several = [name for name, part in named.items() if part.type_name == item]
    if several:
        return f"{item!r} may be any of {', '.join(several)}: name the one that is meant"
    return f"there is no {item!r} among the mixers.{did_you_mean(item, named)}"


def _with_mlp(asked: list[str] | None, named: Mapping[str, type[Mixer]]) -> set[str]:
    if asked is None:
        return {name for name, part in named.items() if not part.widens}
    return {found for item in asked if (found := _name(item, named)) is not None}
