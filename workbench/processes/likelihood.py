"""The likelihood bound of a diffusion process, with every term kept.

−log p(x_0) ≤ ∫_eps^1 (dσ/dt) E[score entropy] dt  +  E[−log p(x_0 | x_eps)]  +  KL(q(x_1 | x_0) ‖ start law)

(SEDD eq. 16, split at the shortest time eps.) The published evaluation drops the last two terms and does not scale
the first by the length of the time range; here the range [eps, 1] is integrated as it is, what lies below eps is the
reconstruction by one clean-up step, what lies beyond t = 1 is the KL to the graph's start law (`Graph.prior_kl`).
The integrand is the score entropy whatever objective a network was trained by: another would be no bound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from graphs.base import gather_own
from workbench.core.rng import Rng
from workbench.kernels.rows import gather_features, rows_values
from workbench.processes.base import Bound
from workbench.processes.reading import Through
from workbench.processes.views import device_of, features

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.processes.base import Noised
    from workbench.processes.diffusion import Diffusion
    from workbench.processes.objectives import Context


EVEN = 1e-6
"""Share of an even law mixed into the clean-up law that the bound is of: a score that gives the true token no mass at
all (clamped, on graphs without a mask) costs a finite number of nats, and the bound stays one."""


class CleanUpRows:
    """−log p(x_0 | x_eps) of a row under the clean-up step from σ(eps) to 0, as a row function without gradient."""

    def __init__(self, process: Diffusion) -> None:
        """``process``: whose graph and readout read the outputs."""
        self.graph, self.readout = process.graph, process.readout

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, no diagnostics)."""
        sigma = context["sigma"].to(out_RS.dtype)
        log_score = self.readout.log_score(out_RS, context["x"], sigma)
        law = self.graph.reverse_from_score(log_score, context["x"], sigma, torch.zeros_like(sigma))
        law = law[:, : self.graph.vocab].clamp_min(0).double()
        share = gather_own(law, context["target"]) / law.sum(-1).clamp_min(torch.finfo(torch.float64).tiny)
        nats = -torch.log((1 - EVEN) * share + EVEN / self.graph.vocab)
        return nats, nats.new_zeros(nats.shape[0], 0)

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The bound is never trained on."""
        raise NotImplementedError("the clean-up term is evaluated, not trained on")


@torch.no_grad()
def diffusion_bound(
    process: Diffusion,
    shell: nn.Module,
    x0_BL: npt.NDArray[np.int64],
    seq_B: npt.NDArray[np.int64],
    rng: Rng,
    draws: int,
) -> Bound:
    """The three terms for each block; ``draws`` noise draws, their times stratified over [eps, 1].

    Numbers are keyed by (draw, sequence): two models evaluated with the same ``rng`` see the same noise.
    """
    batch, length = x0_BL.shape
    eps = process.times.eps
    shift_B = rng.uniform("bound/time", 0, seq_B, 1)[:, 0]
    nats_BK = np.empty((batch, draws))
    for k in range(draws):
        u_BL = rng.uniform("bound/corrupt", k, seq_B, length)
        t_B = eps + (1 - eps) * (k + shift_B) / draws
        noised = process.noised(x0_BL, t_B, np.full(batch, 1 - eps), u_BL)
        nats_BK[:, k] = per_block(shell, process.bound_rows, noised, process.chunk, batch, length)
    clean_BK = clean_up(process, shell, x0_BL, seq_B, rng, draws)
    sigma_end = process.noise.total(torch.ones(1, dtype=torch.float64))
    x0 = torch.from_numpy(np.ascontiguousarray(x0_BL))
    prior_B = process.graph.prior_kl(x0, sigma_end.expand(x0.shape)).sum(-1).numpy().astype(np.float64)
    return Bound(
        nats_BK=nats_BK + clean_BK + prior_B[:, None],
        kind="upper",
        parts={"diffusion": nats_BK.mean(1), "clean_up": clean_BK.mean(1), "prior": prior_B},
    )


def clean_up(
    process: Diffusion,
    shell: nn.Module,
    x0_BL: npt.NDArray[np.int64],
    seq_B: npt.NDArray[np.int64],
    rng: Rng,
    draws: int,
) -> npt.NDArray[np.float64]:
    """−log p(x_0 | x_eps) of each block and draw, [B, K].

    At the shortest time few texts hold a position that may move (a mask): the others cost nothing and are not read,
    where texts can be read one by one. Those of several draws are read together, at most as many as there are blocks.
    """
    batch, length = x0_BL.shape
    eps, x0 = process.times.eps, torch.from_numpy(np.ascontiguousarray(x0_BL))
    sigma_B1 = process.noise.total(torch.full((batch, 1), eps, dtype=torch.float64))
    together = isinstance(shell, Through) and shell.together
    nats_BK = np.zeros((batch, draws))
    blocks: list[int] = []
    turns: list[int] = []
    numbers: list[npt.NDArray[np.float64]] = []

    def read(count: int) -> None:
        of, at = blocks[:count], turns[:count]
        noised = process.noised(x0_BL[of], np.full(count, eps), np.ones(count), np.stack(numbers[:count]))
        nats_BK[of, at] = per_block(shell, CleanUpRows(process), _unit(noised), process.chunk, count, length)
        del blocks[:count], turns[:count], numbers[:count]

    for k in range(draws):
        u_BL = rng.uniform("bound/eps", k, seq_B, length)
        x_BL = process.graph.corrupt(x0, sigma_B1, torch.from_numpy(u_BL))
        live_B = process.graph.live(x_BL).any(-1)
        for b in range(batch) if together else live_B.nonzero()[:, 0].tolist():
            blocks.append(b)
            turns.append(k)
            numbers.append(u_BL[b])
        while len(blocks) >= batch:
            read(batch)
    if blocks:
        read(len(blocks))
    return nats_BK


def _unit(noised: Noised) -> Noised:
    """Rows weighted 1 (padding stays 0): a plain sum over live rows."""
    return replace(noised, weight_R=(noised.weight_R > 0).to(noised.weight_R.dtype))


def per_block(
    shell: nn.Module, rows: object, noised: Noised, chunk: int, batch: int, length: int
) -> npt.NDArray[np.float64]:
    """Σ of weighted nats by block, [B] float64."""
    return (
        shell(_weighted_sums, rows, noised.to(device_of(shell)), chunk, batch, length).double().cpu().numpy()
    )


def _weighted_sums(
    net: Backbone, rows: object, noised: Noised, chunk: int, batch: int, length: int
) -> Tensor:
    h_RD = gather_features(features(net, noised.x_BL, noised.sigma_B), noised.rows_R)
    context = {"x": noised.x_R, "target": noised.target_R, "sigma": noised.sigma_R}
    nats_R, _ = rows_values(net.head, h_RD, rows, context, chunk)
    weighted = nats_R.double() * noised.weight_R.double()
    return torch.zeros(batch, dtype=torch.float64, device=weighted.device).index_add_(
        0, noised.rows_R // length, weighted
    )
