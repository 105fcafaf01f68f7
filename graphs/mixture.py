"""Masks and uniform tokens together, in a mix that moves with the noise (GIDD; von Rütte et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphs.base import EntropyRows, Graph, expand_rows, gather_own
from workbench.core.bounds import Fraction


@Graph.register("mixture")
class Mixture(Graph):
    """Every state is redrawn at rate 1: as a uniform token with probability μ(σ), else as the mask.

    GIDD's process at γ = 1, q_t = α_t x + β_t π_t with c_t = B √(t(1 − t)), B = 2 p/(1 − p), C = 1 + c_t, α_t =
    (1 − t)/C and β_t π_t = (t · mask + c_t · uniform)/C, is this chain in σ = −ln α_t. With k(σ) = √(p² + (1 − p)²
    (e^σ − 1)), what is redrawn between two noises is a uniform token with probability 2p/(k(s) + k(t)) and μ = p/k: at
    little noise nearly all, in the end nothing but masks. Not homogeneous: a kernel depends on both of its ends.
    ``p_uniform`` 0 is the absorbing graph, 1 the uniform one (beside a mask that nothing reaches).

    Settings:
        p_uniform: largest share of the text that is uniform noise (GIDD's p_u), at t = ½ of its own time
    """

    mask: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, Any]] = {"noise": {"type": "loglinear"}, "readout": {"type": "leave_one_out"}}

    def __init__(self, vocab: int, p_uniform: Fraction = 0.1) -> None:
        """``vocab``: number of tokens; the mask is state ``vocab``."""
        self.vocab, self.p_uniform = vocab, p_uniform

    def live(self, x: Tensor) -> Tensor:
        """Every position: a token may be one that noise drew."""
        return torch.ones_like(x, dtype=torch.bool)

    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        """Redraw where u < 1 − e^−σ: first the uniform tokens, then the masks, by the rest of the same number."""
        sigma = expand_rows(sigma, x0).double()
        uniform, mask = self._shares(torch.zeros_like(sigma), sigma)
        token = (u / (uniform / self.vocab).clamp_min(1e-300)).clamp_max(self.vocab - 1).long()
        return torch.where(u < uniform, token, torch.where(u < uniform + mask, self.vocab, x0))

    def prior(self, u: Tensor) -> Tensor:
        """All masks; uniform tokens where there are no others.

        At the end of a schedule a share of about 2p/(1 − p) · e^−σ/2 is still uniform tokens (0.7% at the usual one).
        """
        if self.p_uniform < 1:
            return torch.full(u.shape, self.vocab, dtype=torch.long, device=u.device)
        return (u * self.vocab).long().clamp_max(self.vocab - 1)

    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """KL to the law *mask as often as at σ, else a uniform token*: (1 − M) KL(tokens ‖ uniform).

        The pure mask of ``prior`` is infinitely far at finite noise, as on the absorbing graph, which this is at
        ``p_uniform`` 0; at 1 it is the KL to the uniform law.
        """
        sigma = expand_rows(sigma, x0)
        kept = torch.exp(-sigma)
        uniform, _ = self._shares(torch.zeros_like(sigma), sigma)
        own = (kept + uniform / self.vocab) / (kept + uniform)  # of the mass that is tokens
        other = uniform / self.vocab / (kept + uniform)
        kl = torch.xlogy(own, own * self.vocab) + (self.vocab - 1) * torch.xlogy(other, other * self.vocab)
        return ((kept + uniform) * kl).clamp_min(0).expand(x0.shape)

    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """μ/V at a token, 1 − μ at the mask, from every other state; less 1 at the own entry."""
        rate_R1 = self.pace(x_R, sigma_R).unsqueeze(-1)
        return rate_R1.expand(*x_R.shape, self.states).scatter(-1, x_R.unsqueeze(-1), rate_R1 - 1.0)

    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """What is redrawn as x from anywhere, plus e^−Δ at the own entry."""
        drawn_R1 = self._into(x_R, *self._shares(from_R, to_R)).unsqueeze(-1)
        kept_R1 = torch.exp(from_R - to_R).unsqueeze(-1)
        return drawn_R1.expand(*x_R.shape, self.states).scatter(-1, x_R.unsqueeze(-1), drawn_R1 + kept_R1)

    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """e^−Δ v + (what is redrawn) Σv, either way: the same formula undoes itself."""
        uniform_R, mask_R = self._shares(from_R, to_R)
        sum_R1 = v_RS.sum(-1, keepdim=True)
        pushed_RS = v_RS * torch.exp(from_R - to_R).unsqueeze(-1).to(v_RS.dtype)
        pushed_RS[..., :-1] += (uniform_R / self.vocab).unsqueeze(-1).to(v_RS.dtype) * sum_R1
        pushed_RS[..., -1:] += mask_R.unsqueeze(-1).to(v_RS.dtype) * sum_R1
        return pushed_RS

    def score_entropy(self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """The rate into x times Σ_{y≠x} [s_y − r_y log s_y + r_y (log r_y − 1)], whose r has three values."""
        logs_RS = log_score_RS.scatter(-1, x_R.unsqueeze(-1), 0.0)
        sums_R = log_score_RS.scatter(-1, x_R.unsqueeze(-1), -math.inf).exp().sum(-1)
        picked = gather_own(logs_RS, x0_R), logs_RS[..., -1], logs_RS[..., :-1].sum(-1)
        return self._nats(sums_R, *picked, x_R, x0_R, sigma_R)

    def score_entropy_grad(
        self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rate into x times (s_y − r_y); in place."""
        x_R1, x0_R1 = x_R.unsqueeze(-1), x0_R.unsqueeze(-1)
        log_score_RS.scatter_(-1, x_R1, 0.0)
        picked = gather_own(log_score_RS, x0_R), log_score_RS[..., -1].clone(), log_score_RS[..., :-1].sum(-1)
        grad_RS = log_score_RS.scatter_(-1, x_R1, -math.inf).exp_()
        nats_R = self._nats(grad_RS.sum(-1), *picked, x_R, x0_R, sigma_R)
        own_R, other_R, mask_R = (value.to(grad_RS.dtype) for value in self._ratios(x_R, x0_R, sigma_R))
        grad_RS[..., :-1] -= other_R.unsqueeze(-1)
        grad_RS[..., -1] -= mask_R
        grad_RS.scatter_add_(-1, x0_R1, (other_R - own_R).unsqueeze(-1))
        grad_RS.mul_(self.pace(x_R, sigma_R).to(grad_RS.dtype).unsqueeze(-1))
        return nats_R, grad_RS.scatter_(-1, x_R1, 0.0)

    def entropy_rows(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> EntropyRows:
        """The rate into x times (s_y − r_y)."""
        pace_R = self.pace(x_R, sigma_R)
        own_R, other_R, mask_R = (pace_R * ratio_R for ratio_R in self._ratios(x_R, x0_R, sigma_R))

        def nats(sums_R: Tensor, logs_R: Tensor, own_log_R: Tensor, mask_log_R: Tensor) -> Tensor:
            return self._nats(sums_R, own_log_R, mask_log_R, logs_R, x_R, x0_R, sigma_R)

        return EntropyRows(pace_R, other_R, own_R, mask_R, nats)

    def pace(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Rate into x from any other state, [R]."""
        level = self._level(sigma_R).clamp_min(_TINY)
        return self._into(x_R, self.p_uniform / level, self._excess(sigma_R) / level)

    def reach(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """p(x|x0) at σ, [R]."""
        own_R, other_R, mask_R = self._law(sigma_R)
        return torch.where(x_R == self.vocab, mask_R, torch.where(x_R == x0_R, own_R, other_R))

    def time_rate(self, sigma: Tensor) -> Tensor:
        """dt/dσ of GIDD's own time t = r²/(1 + r²), r = (k − p)/(1 − p): (1 − μ) e^σ/(1 + r²)²."""
        level, excess = self._level(sigma).clamp_min(_TINY), self._excess(sigma)
        odds = (excess / max(1 - self.p_uniform, _TINY)).square()
        return excess / level * torch.exp(sigma) / (1 + odds).square()

    def _nats(
        self,
        sums_R: Tensor,
        own_log_R: Tensor,
        mask_log_R: Tensor,
        logs_R: Tensor,
        x_R: Tensor,
        x0_R: Tensor,
        sigma_R: Tensor,
    ) -> Tensor:
        """The loss of rows from Σ_{y≠x} s_y, log s at x0 and at the mask, Σ over tokens of log s (0 where y = x)."""
        own_R, other_R, mask_R = self._ratios(x_R, x0_R, sigma_R)
        masked_R, stayed_R = x_R == self.vocab, x_R == x0_R
        others_R = self.vocab - 1 - (~masked_R & ~stayed_R).to(sigma_R.dtype)
        inner_R = (
            sums_R
            + own_R * (own_R.clamp_min(_TINY).log() - 1.0 - own_log_R) * ~stayed_R
            + mask_R * (mask_R.clamp_min(_TINY).log() - 1.0 - mask_log_R) * ~masked_R
            + others_R * other_R * (other_R.clamp_min(_TINY).log() - 1.0)
            - other_R * (logs_R - own_log_R)
        )
        return inner_R * self.pace(x_R, sigma_R)

    def _ratios(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(y|x0)/p(x|x0) for y = x0, another token and the mask, [R] each; 0 where ``x`` cannot be."""
        own_R, other_R, mask_R = self._law(sigma_R)
        here_R = self.reach(x_R, x0_R, sigma_R)
        inverse_R = torch.where(here_R > 0, 1.0 / here_R.clamp_min(_TINY), 0.0)
        return own_R * inverse_R, other_R * inverse_R, mask_R * inverse_R

    def _law(self, sigma_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(y|x0) at σ for y = x0, another token and the mask, [R] each."""
        uniform_R, mask_R = self._shares(torch.zeros_like(sigma_R), sigma_R)
        return torch.exp(-sigma_R) + uniform_R / self.vocab, uniform_R / self.vocab, mask_R

    def _into(self, x_R: Tensor, uniform_R: Tensor, mask_R: Tensor) -> Tensor:
        """The part that falls to state x, [R]."""
        return torch.where(x_R == self.vocab, mask_R, uniform_R / self.vocab)

    def _shares(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """What is redrawn between two noises: (as uniform tokens, as masks), together 1 − e^−Δ; < 0 backwards."""
        drawn = -torch.expm1(low - high)
        levels = (self._level(low) + self._level(high)).clamp_min(_TINY)
        return drawn * (2 * self.p_uniform / levels), drawn * ((self._excess(low) + self._excess(high)) / levels)

    def _level(self, sigma: Tensor) -> Tensor:
        """k(σ)."""
        return torch.sqrt(self.p_uniform**2 + (1 - self.p_uniform) ** 2 * torch.expm1(sigma))

    def _excess(self, sigma: Tensor) -> Tensor:
        """k(σ) − p, without subtracting."""
        e = (1 - self.p_uniform) ** 2 * torch.expm1(sigma)
        return e / (self._level(sigma) + self.p_uniform).clamp_min(_TINY)


_TINY = 1e-30
"""Below every share, ratio and level that occurs, and above what float32 cannot hold."""
