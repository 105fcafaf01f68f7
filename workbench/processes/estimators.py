"""Ways to estimate the likelihood of a diffusion process, beside the bound over times (`likelihood`).

On a graph where only masks move, a network is a law of each masked token given the others, in any order: an order-
agnostic model whose network hears how many masks are left. −log p_π(x) of one order π takes L network calls and is
exact for the sampler that writes in that order; its mean over orders is the bound that counts of masks estimate
(Uria et al. 2014; Ou et al. 2024), and −log of the mean of p_π over several orders is tighter (Burda et al. 2016).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from graphs.base import gather_own
from workbench.core.part import Part
from workbench.core.rng import Rng
from workbench.kernels.rows import padded_rows
from workbench.processes.base import Bound
from workbench.processes.corruptions import counted
from workbench.processes.fits import needs_masks_only
from workbench.processes.likelihood import diffusion_bound, per_block

if TYPE_CHECKING:
    from workbench.core.errors import Problem
    from workbench.core.node import Node
    from workbench.processes.base import Noised
    from workbench.processes.diffusion import Diffusion
    from workbench.processes.objectives import Context

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Estimator(Part, ABC, kind="estimator"):
    """A way to estimate −log p of whole blocks under a diffusion process.

    Numbers are keyed by (draw, sequence), so that two models see the same noise, masks and orders and their
    difference spreads less than either. ``masked_only``: for graphs on which only masks move.
    """

    masked_only: ClassVar[bool] = False

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A graph on which not only masks move, where this counts or orders masks."""
        yield from super().misfits(node, root)
        if cls.masked_only:
            yield from needs_masks_only(node, root)

    @abstractmethod
    def bound(self, process: Diffusion, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """Nats of each block by ``draws`` draws, without gradient."""


@Estimator.register("monte_carlo")
class MonteCarlo(Estimator):
    """Times drawn from strata, noise by positions: SEDD's bound with every term kept, on any graph (`likelihood`)."""

    def bound(self, process: Diffusion, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """[B, draws]; parts: diffusion, clean-up, prior."""
        return diffusion_bound(process, shell, x0_BL, seq_B, rng, draws)


@Estimator.register("mask_counts")
class MaskCounts(Estimator):
    """Numbers of masks k drawn from strata of 1 … L, each draw L/k · Σ −log p(x_0 | x) over exactly k masks.

    The mean over orders of −log p_π: no spikes of 1/t at little noise, no ends to mend; ``draws`` = L takes each k
    once. The network's law is normalised whatever its readout, so a raw score's slack does not count against it.
    """

    masked_only = True

    @torch.no_grad()
    def bound(self, process: Diffusion, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """[B, draws]; parts: any_order."""
        batch, length = x0_BL.shape
        shift_B = rng.uniform("bound/count", 0, seq_B, 1)[:, 0]
        nats_BK = np.empty((batch, draws))
        for k in range(draws):
            count_B = np.minimum(1 + np.floor((k + shift_B) / draws * length), length)
            rank_BL = ranks(rng, "bound/masks", k, seq_B, length)
            drawn = counted(count_B, rank_BL, process.noise)
            noised = process.noised_by(x0_BL, replace(drawn, weight_N=torch.from_numpy(length / count_B)))
            nats_BK[:, k] = per_block(shell, CleanRows(process), noised, process.chunk, batch, length)
        return Bound(nats_BK, "upper", {"any_order": nats_BK.mean(1)})


@Estimator.register("orders")
class Orders(Estimator):
    """−log p of whole random orders, L network calls each: exact for the sampler that writes in that order.

    Their mean is the bound of ``mask_counts``; it is told how far orders lie apart by the spread of the draws.

    Settings:
        left_to_right: one order, the reading order; exact, whatever the draws.
    """

    masked_only = True

    def __init__(self, left_to_right: bool = False) -> None:
        """``left_to_right``: no random order."""
        self.left_to_right = left_to_right

    def bound(self, process: Diffusion, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """[B, draws], or [B, 1] exact; parts: orders."""
        if self.left_to_right:
            rank_BL = np.tile(np.arange(x0_BL.shape[1])[::-1], (len(x0_BL), 1))
            nats_BK = order_nats(process, shell, x0_BL, rank_BL)[:, None]
            return Bound(nats_BK, "exact", {"orders": nats_BK[:, 0]})
        nats_BK = random_orders(process, shell, x0_BL, seq_B, rng, draws)
        return Bound(nats_BK, "upper", {"orders": nats_BK.mean(1)})


@Estimator.register("importance_orders")
class ImportanceOrders(Estimator):
    """−log of the mean of p_π over ``draws`` random orders: the more, the tighter (IWAE, orders drawn evenly).

    In expectation at most the mean of ``orders`` and at least −log p of the model that draws its order.
    """

    masked_only = True

    def bound(self, process: Diffusion, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """[B, 1]; parts: orders (their mean) and what importance takes off."""
        nats_BK = random_orders(process, shell, x0_BL, seq_B, rng, draws)
        low_B1 = nats_BK.min(1, keepdims=True)
        mean_B1 = low_B1 - np.log(np.exp(low_B1 - nats_BK).mean(1, keepdims=True))
        orders_B = nats_BK.mean(1)
        return Bound(mean_B1, "upper", {"orders": orders_B, "importance": mean_B1[:, 0] - orders_B})


class CleanRows:
    """−log p(x_0 | the rest) of a row under the network's normalised law, as a row function without gradient."""

    def __init__(self, process: Diffusion) -> None:
        """``process``: whose graph and readout read the outputs."""
        self.graph, self.readout = process.graph, process.readout

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, no diagnostics)."""
        sigma_R = context["sigma"].to(out_RS.dtype)
        log_score_RS = self.readout.log_score(out_RS, context["x"], sigma_R)
        nats_R = -gather_own(self.graph.clean_from_score(log_score_RS, context["x"], sigma_R), context["target"])
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0)

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Never trained on."""
        raise NotImplementedError("the law of orders is evaluated, not trained on")


def ranks(rng: Rng, stream: str, draw: int, seq_B: Ids, length: int) -> Ids:
    """A random order a sequence, [B, L]: ranks 0 … L − 1; where k masks are left they are the ranks below k."""
    return rng.uniform(stream, draw, seq_B, length).argsort(1).argsort(1)


def random_orders(process: Diffusion, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Floats:
    """−log p_π of ``draws`` random orders, [B, draws]."""
    drawn = (ranks(rng, "bound/order", k, seq_B, x0_BL.shape[1]) for k in range(draws))
    return np.stack([order_nats(process, shell, x0_BL, rank_BL) for rank_BL in drawn], axis=1)


@torch.no_grad()
def order_nats(process: Diffusion, shell: nn.Module, x0_BL: Ids, rank_BL: Ids) -> Floats:
    """−log p_π(x_0), [B]: with k masks left (ranks below k) the token of rank k − 1 is told, for k = L … 1."""
    batch, length = x0_BL.shape
    nats_B = np.zeros(batch)
    for k in range(length, 0, -1):
        noised = process.noised_by(x0_BL, counted(np.full(batch, float(k)), rank_BL, process.noise))
        told = _only(process, noised, x0_BL, np.arange(batch) * length + (rank_BL == k - 1).argmax(1))
        nats_B += per_block(shell, CleanRows(process), told, process.chunk, batch, length)
    return nats_B


def _only(process: Diffusion, noised: Noised, x0_BL: Ids, chosen_B: Ids) -> Noised:
    """The batch with one row a sequence, weighted 1: the head is asked for no others."""
    rows_R = torch.zeros(padded_rows(len(chosen_B), process.device), dtype=torch.long)
    rows_R[: len(chosen_B)] = torch.from_numpy(chosen_B)
    weight_R = torch.zeros(len(rows_R))
    weight_R[: len(chosen_B)] = 1.0
    assert noised.sigma_B is not None
    return replace(
        noised,
        rows_R=rows_R,
        x_R=noised.x_BL.reshape(-1)[rows_R],
        target_R=torch.from_numpy(x0_BL.reshape(-1))[rows_R],
        sigma_R=noised.sigma_B[rows_R // x0_BL.shape[1]],
        weight_R=weight_R,
        bucket_R=torch.zeros_like(rows_R),
    )
