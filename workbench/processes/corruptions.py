"""How the text of a training batch is noised: at which noise, by which numbers, with which weight.

A training loss is an expectation over noise and masks; the same expectation can be drawn in several ways that differ
in spread alone. With λ = 1 − e^−σ the share of tokens that have moved, the absorbing bound is ∫ dλ/λ E Σ −log p over
masks: RADD's t-DCE draws a time, λ-DCE a share, k-DCE a number of masks (Ou et al. 2024, §3.3 and appendix).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphs.base import Noise
from workbench.core.build import build
from workbench.core.errors import Problem
from workbench.core.part import Part
from workbench.core.rng import Rng
from workbench.processes.fits import needs_masks_only
from workbench.processes.time_draws import TimeDraw

if TYPE_CHECKING:
    from workbench.core.node import Node

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """The random part of N noised sequences, made of B: float64 on the host.

    ``item_N`` which of the batch each is (int64); ``t_N`` its time; ``sigma_N`` its noise; ``weight_N`` of the
    objective's nats, which are per unit of σ; ``u_NL`` the numbers in [0, 1) that decide what moves. ``given_NL``
    (bool) positions that stay clean whatever their number and that nothing is learnt of; ``told_N`` the noise that the
    network hears, where it is not ``sigma_N``. None: no position; the same noise.
    """

    item_N: Ids
    t_N: Tensor
    sigma_N: Tensor
    weight_N: Tensor
    u_NL: Tensor
    given_NL: Tensor | None = None
    told_N: Tensor | None = None


class Corruption(Part, ABC, kind="corruption"):
    """A way to draw noise for training.

    Contract: the mean over N of weight · f(x_σ, σ) is, in expectation, ∫ E f dσ over (nearly) the noise between t = eps
    and t = 1, for every f that is 1/(e^σ − 1) times a function of the masks where only masks move (``masked_only``
    ones), for every f at all elsewhere. Where positions are given, f is of the others. A sequence's draw does not
    depend on how the batch is cut. N = ``copies`` · B.
    """

    masked_only: ClassVar[bool] = False
    copies: int = 1
    whole: ClassVar[bool] = True
    """Whether no position is given, so that a loss is nats of whole blocks."""

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A graph on which not only masks move, where this counts masks."""
        yield from super().misfits(node, root)
        if cls.masked_only:
            yield from needs_masks_only(node, root)

    @abstractmethod
    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """Numbers for the sequences ``seq_B`` of ``length`` positions."""


@Corruption.register("independent")
class Independent(Corruption):
    """Each position by itself, at the noise of a time drawn by ``times``: as published for SEDD and MDLM."""

    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """Numbers for the sequences."""
        t_B, weight_B = (torch.from_numpy(drawn) for drawn in times.draw(seq_B, step, rng))
        u_BL = torch.from_numpy(rng.uniform("corrupt", step, seq_B, length))
        return Draw(np.arange(len(seq_B)), t_B, noise.total(t_B), weight_B * noise.rate(t_B), u_BL)


@Corruption.register("even_share")
class EvenShare(Corruption):
    """The share of moved tokens spread evenly, whatever the schedule: RADD's λ-DCE, between the schedule's ends.

    λ takes the place of t in ``times``, which draw it from one end of the schedule to the other; σ = −ln(1 − λ).
    """

    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """Numbers for the sequences."""
        low, high = share_range(noise, times)
        place_B, weight_B = places(seq_B, step, rng, times)
        u_BL = torch.from_numpy(rng.uniform("corrupt", step, seq_B, length))
        share_B = low + (high - low) * place_B
        return at_share(np.arange(len(seq_B)), share_B, weight_B * (high - low), u_BL, noise)


@Corruption.register("complementary")
class Complementary(Corruption):
    """Each sequence twice, what moves in one staying in the other (cf. complementary masks, PGM): twice the batch.

    The share λ is spread evenly as by ``even_share``, its partner's is 1 − λ; both lie in the part of the schedule's
    range that is symmetric about ½. Each token of the batch is a target exactly once where only masks move.
    """

    copies = 2

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A schedule whose shares lie to one side of ½: partners would have none to share."""
        yield from super().misfits(node, root)
        noise, times = root.under("process", "noise"), root.under("process", "time_draw")
        if noise is None or times is None:
            return
        low, high = share_range(build(noise), build(times))
        if max(low, 1 - high) >= 0.5:
            yield Problem(
                node.path,
                f"partners have shares λ and 1 − λ, and this schedule's lie between {low:.3g} and {high:.3g}: it needs "
                "some on both sides of ½. Take corruption even_share, or another range of noise and times",
            )

    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """Numbers for the sequences, each beside its partner."""
        low, high = share_range(noise, times)
        edge = max(low, 1 - high)
        place_B, weight_B = places(seq_B, step, rng, times)
        share_B = edge + (1 - 2 * edge) * place_B
        u_BL = torch.from_numpy(rng.uniform("corrupt", step, seq_B, length))
        item_N = np.arange(len(seq_B)).repeat(2)
        share_N = torch.stack([share_B, 1 - share_B], 1).reshape(-1)
        u_NL = torch.stack([u_BL, (1 - u_BL).clamp_max(1 - 2.0**-53)], 1).reshape(-1, length)
        return at_share(item_N, share_N, weight_B[item_N] * (1 - 2 * edge), u_NL, noise)


@Corruption.register("exact_count")
class ExactCount(Corruption):
    """Exactly k masks, k = 1 … L equally often, weighted L/k: RADD's k-DCE, free of the binomial spread of counts.

    Covers all noise from 0 to ∞, whatever the schedule and ``times``' eps; the network hears the σ of the share
    k/(L + 1), the mean of the shares that k masks speak for.
    """

    masked_only = True

    def draw(self, seq_B: Ids, length: int, step: int, rng: Rng, noise: Noise, times: TimeDraw) -> Draw:
        """Numbers for the sequences: ranks in place of uniform numbers, so that a share decides a count."""
        place_B, weight_B = places(seq_B, step, rng, times)
        count_B = (1 + (place_B * length).floor()).clamp_max(length)
        rank_BL = rng.uniform("corrupt", step, seq_B, length).argsort(1).argsort(1)
        drawn = counted(count_B.numpy(), rank_BL, noise)
        return replace(drawn, weight_N=weight_B * (length / count_B) * torch.expm1(drawn.sigma_N))


def counted(count_B: npt.NDArray[np.float64], rank_BL: Ids, noise: Noise) -> Draw:
    """A draw that masks exactly the positions of rank below ``count_B``, at the noise that speaks for so many masks.

    Its weights are 1.
    """
    length = rank_BL.shape[1]
    # k of the L numbers (rank + ½)/(L + 1) lie below k/(L + 1), half a step away from it
    u_BL = torch.from_numpy((rank_BL + 0.5) / (length + 1))
    share_B = torch.from_numpy(count_B / (length + 1))
    drawn = at_share(np.arange(len(rank_BL)), share_B, torch.ones_like(share_B), u_BL, noise)
    return replace(drawn, weight_N=torch.ones_like(share_B))


def places(seq_B: Ids, step: int, rng: Rng, times: TimeDraw) -> tuple[Tensor, Tensor]:
    """(place_B in [0, 1], weight_B): where in their range ``times`` fall, E[weight · f(place)] = ∫_0^1 f."""
    t_B, weight_B = (torch.from_numpy(drawn) for drawn in times.draw(seq_B, step, rng))
    return (t_B - times.eps) / (1 - times.eps), weight_B / (1 - times.eps)


def share_range(noise: Noise, times: TimeDraw) -> tuple[float, float]:
    """1 − e^−σ at the shortest time and at t = 1."""
    low, high = (-torch.expm1(-noise.total(torch.tensor([times.eps, 1.0], dtype=torch.float64)))).tolist()
    return low, high


def at_share(item_N: Ids, share_N: Tensor, weight_N: Tensor, u_NL: Tensor, noise: Noise) -> Draw:
    """A draw at given shares, ``weight_N`` that of dλ: dσ = dλ/(1 − λ)."""
    sigma_N = -torch.log1p(-share_N)
    t_N = noise.time_at(sigma_N).clamp(0, 1)
    return Draw(item_N, t_N, sigma_N, weight_N / (1 - share_N), u_NL)
