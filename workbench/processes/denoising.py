"""Objectives of a normalised law of the clean token: cross-entropies (MDLM, RADD) and the bounds of UDLM and GIDD."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from graphs.base import Graph, gather_own
from graphs.mixture import Mixture
from graphs.uniform import Uniform
from workbench.processes.objectives import Context, Objective, mask_scale


@Objective.register("denoising_ce")
class DenoisingCrossEntropy(Objective):
    """MDLM's loss on masked rows: −log p(x_0 | x) / (e^σ − 1) per unit of σ (Sahoo et al. 2024; RADD's t-DCE).

    It is the score entropy less its slack Z − 1 − ln Z, which a normalised readout has not: the same bound, read from
    one entry of a row instead of all. What is drawn beside it (`Corruption`) makes RADD's λ-DCE and k-DCE of it.
    """

    masked_only = True
    normalised = True

    def rows(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, no diagnostics [R, 0])."""
        e_R = torch.expm1(context["sigma"].to(log_score_RS.dtype))
        # a normalised law p has scores p/e: log p is the score's log and log e
        nats_R = -(gather_own(log_score_RS, context["target"]) + e_R.log()) / e_R
        nats_R = nats_R.masked_fill(~graph.live(context["x"]), 0.0)
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0)

    def law_scale(self, graph: Graph, context: Context) -> Tensor | None:
        """1/(e^σ − 1) on live rows."""
        return mask_scale(graph, context)

    def rows_and_grad(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The same and −1/e at the clean token; the readout's norm spreads it over the row."""
        nats_R, aux_RK = self.rows(log_score_RS, graph, context)
        e_R = torch.expm1(context["sigma"].to(log_score_RS.dtype))
        pull_R = (-1.0 / e_R).masked_fill(~graph.live(context["x"]), 0.0)
        grad_RS = log_score_RS.zero_().scatter_(-1, context["target"].unsqueeze(-1), pull_R.unsqueeze(-1))
        return nats_R, aux_RK, grad_RS


@Objective.register("udlm")
class Udlm(Objective):
    """The bound of uniform-state models as UDLM and DUO print it (Schiff et al. 2024; Sahoo et al. 2025, eq. 5).

    With x̄ = N e^−σ x_0 + 1 − e^−σ, x̄θ the same of the network's law and i the state of the row, per unit of σ:
    (1/N) [N/x̄θ_i − N/x̄_i + Σ_j (x̄_j/x̄_i) ln (x̄_j x̄θ_i)/(x̄_i x̄θ_j)]. It is the score entropy of the scores
    x̄θ_j/x̄θ_i, whose sum over a row is N/x̄θ_i; of use where a recipe shall say that it trains a normalised law.
    """

    graphs: ClassVar[type[Graph]] = Uniform
    normalised = True

    def rows(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, no diagnostics [R, 0])."""
        x_R1 = context["x"].unsqueeze(-1)
        log_score_RS = log_score_RS.scatter(-1, x_R1, 0.0)
        log_ratio_RS = graph.log_ratio(context["x"], context["target"], context["sigma"]).to(log_score_RS.dtype)
        ratio_RS = log_ratio_RS.exp()
        # each j by itself: its terms are ≥ 0 and vanish together at the truth, the printed sums are large and cancel
        terms_RS = log_score_RS.exp() - ratio_RS + ratio_RS * (log_ratio_RS - log_score_RS)
        nats_R = terms_RS.sum(-1) / graph.states
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0)

    def rows_and_grad(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The same with the closed gradient of the score entropy, which it is: (s_y − r_y)/N."""
        nats_R, grad_RS = graph.score_entropy_grad(log_score_RS, context["x"], context["target"], context["sigma"])
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0), grad_RS


@Objective.register("gidd")
class Gidd(Objective):
    """GIDD's bound with the weights it is trained by (von Rütte et al. 2025, §3): w [KL(q ‖ q_θ) + IS(q(x) / q_θ(x))].

    q is the law of a state at σ given the clean token, q_θ the same of the network's law, IS(r) = r − ln r − 1. With
    w = (rate into x)/q(x) this is the score entropy; the published training takes w = 2 at a mask, 1 at a token that
    noise drew and B/N √(e^σ − 1) ≤ 1 at a clean one, B = 2p/(1 − p), for a unit of GIDD's own time, so that noise of
    which little can be learnt does not lead. No bound; likelihood is bounded by the score entropy as ever.
    """

    graphs: ClassVar[type[Graph]] = Mixture
    normalised = True

    def rows(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, no diagnostics [R, 0])."""
        x_R, x0_R, sigma_R = context["x"], context["target"], context["sigma"].to(log_score_RS.dtype)
        nats_R = graph.score_entropy(log_score_RS, x_R, x0_R, sigma_R) * self._factor(graph, x_R, x0_R, sigma_R)
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0)

    def rows_and_grad(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The same, the graph's closed gradient by the same factor."""
        x_R, x0_R, sigma_R = context["x"], context["target"], context["sigma"].to(log_score_RS.dtype)
        factor_R = self._factor(graph, x_R, x0_R, sigma_R)
        nats_R, grad_RS = graph.score_entropy_grad(log_score_RS, x_R, x0_R, sigma_R)
        nats_R = nats_R * factor_R
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0), grad_RS.mul_(factor_R.unsqueeze(-1))

    def _factor(self, graph: Graph, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Weight of training for a unit of σ over that of the bound, [R]; 0 where the graph moves nothing into x."""
        assert isinstance(graph, Mixture)
        p, masked_R = graph.p_uniform, x_R == graph.vocab
        pace_R, here_R = graph.pace(x_R, sigma_R), graph.reach(x_R, x0_R, sigma_R)
        clean_R = 2 * p / max(1 - p, 1e-12) / graph.vocab * torch.expm1(sigma_R).sqrt()
        weight_R = torch.where(masked_R, 2.0, torch.where(x_R == x0_R, clean_R.clamp_max(1.0), 1.0))
        return torch.where(pace_R > 0, weight_R * graph.time_rate(sigma_R) * here_R / pace_R, 0.0)
