"""How likely a continuation is given what stands before it, which stays clean.

Where only masks move, a network is a law of each masked token given the others: with the text before clean and noise on
the n tokens of the continuation alone, −log p(c | p) ≤ mean over k = 1 … n of n/k · E Σ −log p(token | rest) over k
masks, the bound of `estimators` for the order-agnostic model of the continuation (LLaDA, Nie et al. 2025, appendix on
likelihood evaluation; Ou et al. 2024). It equals the mean over orders of the continuation's −log p_π.

The network hears the σ that the masks of the whole text speak for, so that it is told how much is clean; a network
trained with noise on whole texts has seldom seen all of it in one place.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.kernels.rows import gather_features, rows_values
from workbench.processes.base import Bound, Continuation
from workbench.processes.corruptions import counted
from workbench.processes.estimators import CleanRows
from workbench.processes.likelihood import per_block
from workbench.processes.views import device_of, features

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.processes.diffusion import Diffusion
    from workbench.processes.objectives import Context

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Guesses:
    """A row function beside which it is told whether the likeliest token is the true one: aux [R, 1]."""

    def __init__(self, rows: Any, vocab: int | None = None) -> None:
        """``rows``: gives the nats; outputs at ``vocab`` and above are of no token."""
        self.rows, self.vocab = rows, vocab

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, right_R1)."""
        right_R = out_RS[:, : self.vocab].argmax(-1) == context["target"]
        return self.rows.values(out_RS, context)[0], right_R.unsqueeze(-1)

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Never trained on."""
        raise NotImplementedError("guesses are evaluated, not trained on")


def guessed(
    net: Backbone, rows: Any, x_BL: Tensor, sigma_B: Tensor | None, told_R: Tensor, target_R: Tensor, chunk: int,
    vocab: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(nats_R, right_R) of rows ``told_R`` from one call of the network; the order of outputs is that of the law."""
    told_R = told_R.to(x_BL.device)
    h_RD = gather_features(features(net, x_BL, sigma_B), told_R)
    context = {"x": x_BL.reshape(-1)[told_R], "target": target_R}
    if sigma_B is not None:
        context["sigma"] = sigma_B[told_R // x_BL.shape[1]]
    nats_R, right_R1 = rows_values(net.head, h_RD, Guesses(rows, vocab), context, chunk)
    return nats_R, right_R1[:, 0]


@torch.no_grad()
def masked_continuation(
    process: Diffusion, shell: nn.Module, x0_BL: Ids, given: int, seq_B: Ids, rng: Rng, draws: int
) -> Continuation:
    """A bound of each continuation by masks on it alone, and the guesses of one look at all of it masked.

    Numbers of masks are drawn from strata of 1 … n, [B, draws]; where the 2^n − 1 sets of masks are no more than
    ``draws``, all are looked at, and the bound has no spread, [B, 1]. Parts: any_order.

    Raises:
        WorkbenchError: tokens of the graph move other than into a mask; nothing is to be continued.
    """
    if not (process.graph.mask and process.graph.blind):
        raise WorkbenchError(
            f"graph {process.graph.type_name!r} has no masks to put on a continuation alone: score whole "
            "texts (scoring full)"
        )
    length = x0_BL.shape[1]
    n = length - given
    if n < 1:
        raise WorkbenchError(f"{given} of {length} tokens are given: nothing is left to continue")
    right_Bn = _guesses(process, shell, x0_BL, given)
    if 2**n - 1 <= draws:
        nats_BK = _every_set(process, shell, x0_BL, given)
    else:
        nats_BK = _drawn_sets(process, shell, x0_BL, given, seq_B, rng, draws)
    parts = {"any_order": nats_BK.mean(1)} if draws else {}
    return Continuation(Bound(nats_BK, "upper", parts), right_Bn)


def _drawn_sets(
    process: Diffusion, shell: nn.Module, x0_BL: Ids, given: int, seq_B: Ids, rng: Rng, draws: int
) -> Floats:
    """Nats by draw, [B, draws]: counts from strata, which tokens by keyed ranks."""
    batch, length = x0_BL.shape
    n = length - given
    shift_B = rng.uniform("continuation/count", 0, seq_B, 1)[:, 0]
    nats_BK = np.empty((batch, draws))
    for k in range(draws):
        count_B = np.minimum(1 + np.floor((k + shift_B) / draws * n), n)
        rank_Bn = rng.uniform("continuation/masks", k, seq_B, n).argsort(1).argsort(1)
        nats_BK[:, k] = _nats(process, shell, x0_BL, given, count_B, rank_Bn, n / count_B)
    return nats_BK


def _every_set(process: Diffusion, shell: nn.Module, x0_BL: Ids, given: int) -> Floats:
    """The bound from every set of masks, [B, 1]: the mean over k of n/k times the mean over the sets of k."""
    batch, length = x0_BL.shape
    n = length - given
    nats_B = np.zeros(batch)
    for count in range(1, n + 1):
        for chosen in itertools.combinations(range(n), count):
            rest = [i for i in range(n) if i not in chosen]
            rank_Bn = np.tile(np.argsort([*chosen, *rest]), (batch, 1))
            weight_B = np.full(batch, 1 / (count * math.comb(n, count)))
            nats_B += _nats(process, shell, x0_BL, given, np.full(batch, float(count)), rank_Bn, weight_B)
    return nats_B[:, None]


def _nats(
    process: Diffusion, shell: nn.Module, x0_BL: Ids, given: int, count_B: Floats, rank_Bn: Ids, weight_B: Floats
) -> Floats:
    """weight · Σ −log p over the masks of ranks below ``count``, [B]; what is given ranks above all."""
    batch, length = x0_BL.shape
    drawn = counted(count_B, _ranks(rank_Bn, given), process.noise)
    noised = process.noised_by(x0_BL, replace(drawn, weight_N=torch.from_numpy(weight_B)))
    return per_block(shell, CleanRows(process), noised, process.chunk, batch, length)


def _ranks(rank_Bn: Ids, given: int) -> Ids:
    batch, n = rank_Bn.shape
    return np.concatenate([np.tile(np.arange(n, n + given), (batch, 1)), rank_Bn], axis=1)


def _guesses(process: Diffusion, shell: nn.Module, x0_BL: Ids, given: int) -> npt.NDArray[np.bool_]:
    """Whether the likeliest token is the true one, by position of the continuation, all of it masked."""
    batch, length = x0_BL.shape
    n = length - given
    rank_BL = _ranks(np.tile(np.arange(n), (batch, 1)), given)
    noised = process.noised_by(x0_BL, counted(np.full(batch, float(n)), rank_BL, process.noise)).to(device_of(shell))
    told_R = (torch.arange(batch)[:, None] * length + torch.arange(given, length)).reshape(-1)
    target_R = torch.from_numpy(x0_BL[:, given:].reshape(-1)).to(noised.x_BL.device)
    # a mask's score of a token is its clean law times a number of σ alone: the outputs order the tokens as the law does
    _, right_R = shell(
        guessed, CleanRows(process), noised.x_BL, noised.sigma_B, told_R, target_R, process.chunk, process.vocab
    )
    return right_R.reshape(batch, n).cpu().numpy()
