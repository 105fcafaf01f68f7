"""A corruption that leaves the ends of a block alone: training on answers, given their questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from graphs.base import Noise
from workbench.core.bounds import Natural
from workbench.core.errors import Problem
from workbench.core.rng import Rng
from workbench.processes.corruptions import Corruption, Draw, Ids
from workbench.processes.time_draws import TimeDraw

if TYPE_CHECKING:
    from workbench.core.node import Node

@Corruption.register("kept_ends")
class KeptEnds(Corruption):
    """Positions at the ends of a block stay clean; another corruption noises those between, as if they were all.

    What is trained is the law of the middle given the ends, −log p(middle | ends) in place of −log p(block): for blocks
    that are a question and its answer. Held-out likelihood is still that of whole blocks, which such a network was not
    trained for.

    Settings:
        first: positions kept at the beginning.
        last: positions kept at the end.
        corruption: how the others are noised.
    """

    whole = False
    usual: ClassVar[dict[str, Any]] = {"corruption": {"type": "independent"}}

    def __init__(self, corruption: Corruption, first: Natural = 0, last: Natural = 0) -> None:
        """See Settings."""
        self.corruption, self.first, self.last = corruption, first, last
        self.copies = corruption.copies

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Ends that leave nothing between them."""
        yield from super().misfits(node, root)
        data = root.find("data")
        kept = node.settings["first"] + node.settings["last"]
        if data is not None and kept >= data.settings["length"]:
            length = data.settings["length"]
            yield Problem(node.path, f"{kept} positions of a block of {length} are kept: nothing is left to learn")

    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """The inner draw of a shorter sequence, between positions that are given."""
        drawn = self.corruption.draw(seq_B, length - self.first - self.last, step, rng, noise, times)
        ends = (self.first, self.last)
        given_NL = torch.zeros_like(drawn.u_NL, dtype=torch.bool) if drawn.given_NL is None else drawn.given_NL
        return replace(drawn, u_NL=F.pad(drawn.u_NL, ends), given_NL=F.pad(given_NL, ends, value=True))
