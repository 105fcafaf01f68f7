"""Stacks of one kind of state-space block: norm, recurrence both ways, gate by σ; no attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from backbones.base import Backbone, Mixer
from backbones.conditioning import Conditioning
from backbones.hybrid import Mixed
from backbones.mamba import Mamba
from backbones.mamba2 import Mamba2
from backbones.stack import MLP
from workbench.core.bounds import Count, Natural, NonNegative, Probability
from workbench.core.errors import Problem
from workbench.core.part import Maker

if TYPE_CHECKING:
    from workbench.core.spec import Node


class OneMixer(Mixed):
    """Base of stacks of one kind of mixer, ``only``, without MLPs unless they are asked for.

    Settings:
        mixer: the settings of its mixers (`workbench show mixer` lists them).
    """

    only: ClassVar[type[Mixer]]

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        mixer: Maker[Mixer],
        dim: Count = 768,
        depth: Count = 12,
        cond_dim: Count = 128,
        mlp_ratio: NonNegative = 0.0,
        dropout: Probability = 0.1,
        causal: bool = False,
        blockwise: bool = False,
        conditioning: Conditioning | None = None,
        neighbours: Natural = 0,
        hints: bool = False,
    ) -> None:
        """Supplied: ``states``, ``outputs``, ``length`` (sequences may be longer)."""
        pieces = [
            (mixer(dim=dim, length=length, causal=causal), MLP(dim, mlp_ratio) if mlp_ratio else None)
            for _ in range(depth)
        ]
        rest = (dim, cond_dim, dropout, causal, blockwise, conditioning, neighbours, hints)
        super().__init__(states, outputs, pieces, *rest)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Another mixer than its own."""
        yield from super().misfits(node, root)
        mixer = node.settings["mixer"]
        if not issubclass(mixer.part, cls.only):
            yield Problem(
                mixer.path,
                f"backbone {cls.type_name!r} is made of {cls.only.type_name!r} mixers, not {mixer.part.type_name!r}; "
                "backbone 'hybrid' takes any: its `pattern` and `mixers` say which",
            )


@Backbone.register("mamba")
class MambaStack(OneMixer):
    """Mamba blocks (Gu & Dao 2023), by default with two independent directions added."""

    only = Mamba
    usual = {"mixer": {"type": "mamba"}, "conditioning": {"type": "adaln"}}

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two small blocks."""
        return {"dim": 16, "depth": 2, "cond_dim": 8, "mixer": {"state": 4}, "neighbours": 1}


@Backbone.register("mamba2")
class Mamba2Stack(OneMixer):
    """Mamba-2 blocks (Dao & Gu 2024), by default with two independent directions added.

    Twelve blocks at width 768 have 91.6 M parameters besides embeddings and σ's, where SEDD small has 92.1 M.
    """

    only = Mamba2
    usual = {"mixer": {"type": "mamba2"}, "conditioning": {"type": "adaln"}}

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two small blocks."""
        return {"dim": 16, "depth": 2, "cond_dim": 8, "mixer": {"state": 4, "head_dim": 8}, "neighbours": 1}
