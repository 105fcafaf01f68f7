"""The uniform graph: every token jumps to every other at the same rate (SEDD §3.3; D3PM, UDLM, DUO)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphs.base import EntropyRows, Graph, expand_rows, gather_own


@Graph.register("uniform")
class Uniform(Graph):
    """Q = 11ᵀ/N − I: with probability 1 − e^−σ a token has been redrawn uniformly (itself included).

    The kernel between two noises is e^−Δ I + (1 − e^−Δ) 11ᵀ/N with Δ = ``to`` − ``from``; every row is live.
    """

    usual: ClassVar[Mapping[str, Any]] = {"noise": {"type": "geometric"}, "readout": {"type": "plain"}}

    def __init__(self, vocab: int) -> None:
        """``vocab``: number of tokens, which are the states."""
        self.vocab = vocab

    def live(self, x: Tensor) -> Tensor:
        """Every position."""
        return torch.ones_like(x, dtype=torch.bool)

    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        """Redraw where u < 1 − e^−σ, with the rest of the same number: u/(1 − e^−σ) is uniform again."""
        moved = -torch.expm1(-expand_rows(sigma, x0).double())
        share = (u / moved.clamp_min(1e-300)).clamp_max(1.0)
        redrawn = (share * self.vocab).long().clamp_max(self.vocab - 1)
        return torch.where(u < moved, redrawn, x0)

    def prior(self, u: Tensor) -> Tensor:
        """Uniform tokens."""
        return (u * self.vocab).long().clamp(max=self.vocab - 1)

    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """KL to the uniform law, exact: p ln(Np) + (N−1) q ln(Nq) with q = (1 − e^−σ)/N, p = e^−σ + q."""
        kept = torch.exp(-expand_rows(sigma, x0))
        gone = -torch.expm1(-expand_rows(sigma, x0))
        own = (1.0 + kept * (self.vocab - 1)) / self.vocab * torch.log1p(kept * (self.vocab - 1))
        others = (self.vocab - 1) / self.vocab * torch.xlogy(gone, gone)
        return (own + others).clamp_min(0).expand(x0.shape)

    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """1/N off the diagonal, 1/N − 1 on it."""
        rates_RS = torch.full((*x_R.shape, self.states), 1.0 / self.vocab, dtype=sigma_R.dtype, device=sigma_R.device)
        return rates_RS.scatter_(-1, x_R.unsqueeze(-1), 1.0 / self.vocab - 1.0)

    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """(1 − e^−Δ)/N, plus e^−Δ at the own entry."""
        delta_R1 = (to_R - from_R).unsqueeze(-1)
        off_R1 = -torch.expm1(-delta_R1) / self.vocab
        off_RS = off_R1.expand(*x_R.shape, self.states)
        return off_RS.scatter(-1, x_R.unsqueeze(-1), off_R1 + torch.exp(-delta_R1))

    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """e^−Δ v + (1 − e^−Δ) mean(v); Δ < 0 undoes it."""
        delta_R1 = (to_R - from_R).unsqueeze(-1).to(v_RS.dtype)
        pushed_RS = v_RS * torch.exp(-delta_R1)
        return pushed_RS.sub_(torch.expm1(-delta_R1) * v_RS.mean(-1, keepdim=True))

    def _times_kernel(self, law_RS: Tensor, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        delta_R = to_R - from_R
        off_R, own_R = -torch.expm1(-delta_R) / self.vocab, gather_own(law_RS, x_R)
        own_R = (own_R * (off_R + torch.exp(-delta_R))).to(law_RS.dtype)
        law_RS.mul_(off_R.unsqueeze(-1).to(law_RS.dtype))
        return law_RS.scatter_(-1, x_R.unsqueeze(-1), own_R.unsqueeze(-1))

    def score_from_clean(self, log_clean_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """s_y = (N p_y + e)/(N p_x + e) with e = e^σ − 1: UDLM's and DUO's x̄_y/x̄_x."""
        even_R1 = (torch.expm1(sigma_R) / self.vocab).log().to(log_clean_RV.dtype).unsqueeze(-1)
        log_law_RV = torch.logaddexp(log_clean_RV, even_R1)
        return (log_law_RV - gather_own(log_law_RV, x_R).unsqueeze(-1)).scatter(-1, x_R.unsqueeze(-1), 0.0)

    def score_from_posterior(self, log_law_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """s_y = N p_y/e + 1 − p_x + p_x ρ with e = e^σ − 1 and ρ = e/(e + N): 1/q's two values, summed."""
        e_R = torch.expm1(sigma_R).to(log_law_RV.dtype)
        log_own_R = gather_own(log_law_RV, x_R)
        rest_R = -torch.expm1(log_own_R) + log_own_R.exp() * e_R / (e_R + self.vocab)
        log_score_RV = torch.logaddexp(log_law_RV + (self.vocab / e_R).log().unsqueeze(-1), rest_R.log().unsqueeze(-1))
        return log_score_RV.scatter(-1, x_R.unsqueeze(-1), 0.0)

    def score_entropy(self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """(1/N) Σ_{y≠x} [s_y − r_y log s_y + r_y (log r_y − 1)], in closed form (SEDD, official code).

        With ρ = (e^σ − 1)/(e^σ − 1 + N): r_y = ρ for all y ≠ x where x = x0; else r = 1 but r_x0 = 1/ρ.
        """
        logs_RS = log_score_RS.scatter(-1, x_R.unsqueeze(-1), 0.0)
        sums_R = log_score_RS.scatter(-1, x_R.unsqueeze(-1), -math.inf).exp().sum(-1)
        return self._nats(sums_R, logs_RS.sum(-1), gather_own(logs_RS, x0_R), x_R, x0_R, sigma_R)

    def score_entropy_grad(
        self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(s_y − r_y)/N; in place: a sum of the logs, one exponential, its sum, one scaling."""
        log_score_RS.scatter_(-1, x_R.unsqueeze(-1), 0.0)
        own_R, log_sums_R = gather_own(log_score_RS, x0_R), log_score_RS.sum(-1)
        grad_RS = log_score_RS.scatter_(-1, x_R.unsqueeze(-1), -math.inf).exp_()
        nats_R = self._nats(grad_RS.sum(-1), log_sums_R, own_R, x_R, x0_R, sigma_R)
        stayed_R, e_R = x_R == x0_R, torch.expm1(sigma_R)
        common_R1 = torch.where(stayed_R, e_R / (e_R + self.vocab), 1.0).unsqueeze(-1).to(grad_RS.dtype)
        torch.add(-common_R1 / self.vocab, grad_RS, alpha=1.0 / self.vocab, out=grad_RS)
        # 1/ρ = 1 + N/e: the 1 is in the common term
        grad_RS.scatter_add_(-1, x0_R.unsqueeze(-1), (-1.0 / e_R).to(grad_RS.dtype).unsqueeze(-1))
        return nats_R, grad_RS.scatter_(-1, x_R.unsqueeze(-1), 0.0)

    def entropy_rows(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> EntropyRows:
        """(s_y − r_y)/N: r is one number but at x0."""
        e_R = torch.expm1(sigma_R)
        common_R = torch.where(x_R == x0_R, e_R / (e_R + self.vocab), 1.0) / self.vocab
        scale_R = torch.full_like(common_R, 1.0 / self.vocab)
        nats = lambda sums_R, logs_R, own_R, mask_R: self._nats(sums_R, logs_R, own_R, x_R, x0_R, sigma_R)  # noqa: E731
        return EntropyRows(scale_R, common_R, common_R + 1.0 / e_R, common_R, nats)

    def _nats(
        self, sums_R: Tensor, log_sums_R: Tensor, own_R: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor
    ) -> Tensor:
        """The loss of rows from Σ s_y and Σ log s_y over y ≠ x, and log s_x0 (0 where x = x0)."""
        n, e_R = self.vocab, torch.expm1(sigma_R)
        odds_R = n / e_R  # 1/ρ − 1
        rho_R, log_rho_R = 1.0 / (1.0 + odds_R), -torch.log1p(odds_R)
        stayed_R = sums_R + rho_R * ((n - 1) * (log_rho_R - 1.0) - log_sums_R)
        moved_R = (sums_R - (n - 1)) - log_sums_R - odds_R * (own_R + 1.0) - (1.0 + odds_R) * log_rho_R
        return torch.where(x_R == x0_R, stayed_R, moved_R) / n
