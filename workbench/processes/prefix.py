"""Training on continuations: a sequence keeps a clean beginning, as it does when a prompt is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphs.base import Noise
from workbench.core.bounds import Probability
from workbench.core.errors import Problem
from workbench.core.rng import Rng
from workbench.processes.corruptions import Corruption, Draw, Ids
from workbench.processes.fits import needs_masks_only
from workbench.processes.time_draws import TimeDraw

if TYPE_CHECKING:
    from workbench.core.node import Node


@Corruption.register("prefix")
class Prefix(Corruption):
    """A share of the sequences keep a clean beginning of k tokens; what follows is noised as ``within`` says.

    k is even on 1 … max(1, ⌊``longest`` · L⌋), at most L − 1. Such a sequence is trained on −log p(what follows | the
    beginning): the same bound on the other positions, with the beginning known at every noise. A network that never
    saw so much clean text beside so much noise continues short prompts badly; training on both mends it.

    Settings:
        share: of the sequences that keep a beginning; the others are noised as ever
        longest: longest beginning, as a share of the block
        sigma_hat: such sequences say the noise of the masks they hold, σ̂ = −ln(1 − masks/L), at most that of t = 1, as
            the lens of that name does in sampling; without it they say the clock's
        within: how the rest is noised
    """

    whole = False
    usual = {"within": {"type": "independent"}}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A noise counted from masks where there are none; a prefix in a prefix."""
        yield from super().misfits(node, root)
        if node.settings["sigma_hat"]:
            yield from needs_masks_only(node, root)
        within = node.settings["within"]
        if issubclass(within.part, cls):
            yield Problem(within.path, "a beginning is kept once: what 'prefix' wraps cannot be 'prefix' again")

    def __init__(
        self, within: Corruption, share: Probability = 0.5, longest: Probability = 0.5, sigma_hat: bool = False
    ) -> None:
        """``within``: noise for whole sequences; what it draws for a beginning is not used."""
        self.within, self.share, self.longest, self.sigma_hat = within, share, longest, sigma_hat
        self.copies = within.copies

    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """Numbers for the sequences; those of the rest are as without a beginning."""
        drawn = self.within.draw(seq_B, length, step, rng, noise, times)
        kept_N = torch.from_numpy(self.kept(seq_B, length, step, rng)[drawn.item_N])
        given_NL = torch.arange(length) < kept_N.unsqueeze(-1)
        if not self.sigma_hat:
            return replace(drawn, given_NL=given_NL)
        told_N = torch.where(kept_N > 0, sigma_hat(drawn, given_NL, noise), drawn.sigma_N)
        return replace(drawn, given_NL=given_NL, told_N=told_N)

    def kept(self, seq_B: Ids, length: int, step: int, rng: Rng) -> Ids:
        """How many tokens each sequence keeps, [B], 0 … L − 1."""
        whether_B, how_many_B = rng.uniform("prefix", step, seq_B, 2).T
        longest = min(max(1, int(self.longest * length)), length - 1)
        kept_B = np.minimum(1 + np.floor(how_many_B * longest), longest).astype(np.int64)
        return np.where(whether_B < self.share, kept_B, 0)


def sigma_hat(drawn: Draw, given_NL: Tensor, noise: Noise) -> Tensor:
    """σ̂ = −ln(1 − masks/L) of what a draw masks beside the positions given, [N], at most σ at t = 1."""
    moved_NL = (drawn.u_NL < -torch.expm1(-drawn.sigma_N).unsqueeze(-1)) & ~given_NL
    last = noise.total(torch.ones(1, dtype=torch.float64))
    share_N = moved_NL.double().mean(-1).clamp_min(1e-4)  # where nothing is masked nothing is asked
    return torch.minimum(-torch.log1p(-share_N), last)
