"""The absorbing (mask) graph: every token falls into a mask at rate 1 and stays there (SEDD §3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.base import EntropyRows, Graph, expand_rows, gather_own


@Graph.register("absorbing")
class Absorbing(Graph):
    """Tokens are masked independently: P(masked at σ) = 1 − e^−σ.

    Blind: who is unmasked when does not depend on the network, and unmasked tokens never change again.
    Kernels are homogeneous: all formulas hold between any two noises, with Δ = ``to`` − ``from`` in place of
    σ.
    """

    mask: ClassVar[bool] = True
    blind: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, Any]] = {"noise": {"type": "loglinear"}, "readout": {"type": "scaled"}}

    def __init__(self, vocab: int) -> None:
        """``vocab``: number of tokens; the mask is state ``vocab``."""
        self.vocab = vocab

    def live(self, x: Tensor) -> Tensor:
        """The masked positions."""
        return x == self.vocab

    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        """Mask where u < 1 − e^−σ."""
        return x0.masked_fill(u < -torch.expm1(-expand_rows(sigma, x0)), self.vocab)

    def prior(self, u: Tensor) -> Tensor:
        """All masks."""
        return torch.full(u.shape, self.vocab, dtype=torch.long, device=u.device)

    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """e^−σ ln V: the KL to the law *mask with probability 1 − e^−σ, else a uniform token*.

        The KL to the pure mask is infinite at any finite noise, since a clean token survives with probability
        e^−σ. The likelihood bound is therefore that of a model whose walk starts from this law, which differs
        from the pure mask of ``prior`` by e^−σ (1e-3 for the log-linear schedule at t = 1).
        """
        return (torch.exp(-expand_rows(sigma, x0)) * math.log(self.vocab)).expand(x0.shape)

    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Row of Q: all ones for a masked ``x`` (0 at the mask), −1 at a token's own entry."""
        masked_R1 = self.live(x_R).unsqueeze(-1)
        own_RS = F.one_hot(x_R, self.states).bool()
        off_RS = masked_R1.to(sigma_R.dtype).expand(own_RS.shape)
        return torch.where(own_RS, masked_R1.to(sigma_R.dtype) - 1, off_RS)

    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """1 − e^−Δ from any token into the mask, 1 from the mask; e^−Δ at a token's own entry."""
        delta_R1 = (to_R - from_R).unsqueeze(-1)
        masked_R1 = self.live(x_R).unsqueeze(-1)
        own_RS = F.one_hot(x_R, self.states).bool()
        off_R1 = torch.where(masked_R1, -torch.expm1(-delta_R1), 0.0)
        on_R1 = torch.where(masked_R1, 1.0, torch.exp(-delta_R1))
        return torch.where(own_RS, on_R1, off_R1)

    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Tokens keep e^−Δ of their mass, the mask takes the rest; Δ < 0 undoes it."""
        delta_R1 = (to_R - from_R).unsqueeze(-1).to(v_RS.dtype)
        tokens_RV = v_RS[..., :-1]
        masks_R1 = v_RS[..., -1:] - torch.expm1(-delta_R1) * tokens_RV.sum(-1, keepdim=True)
        return torch.cat([tokens_RV * torch.exp(-delta_R1), masks_R1], -1)

    def leave(self, from_R: Tensor, to_R: Tensor) -> Tensor:
        """(a_s − a_t)/(1 − a_t) with a = e^−σ, t = ``from``, s = ``to``: exactly 1 at ``to`` = 0."""
        left_R = torch.exp(-to_R) * torch.expm1(to_R - from_R)
        gone_R = torch.expm1(-from_R)
        return torch.where(gone_R < 0, left_R / gone_R, 0.0)

    def score_entropy(self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """With e = e^σ − 1: Σ_y s_y − (log s_x0 + log e + 1)/e, over tokens y, on masked rows."""
        sums_R = log_score_RS[..., :-1].exp().sum(-1)
        return self._nats(sums_R, gather_own(log_score_RS, x0_R), x_R, sigma_R)

    def score_entropy_grad(
        self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """s_y, less 1/e at x0; in place: one pass for the exponential, one for its sum."""
        own_R = gather_own(log_score_RS, x0_R)
        grad_RS = log_score_RS.exp_()
        grad_RS[..., -1] = 0.0
        nats_R = self._nats(grad_RS.sum(-1), own_R, x_R, sigma_R)
        pull_R1 = (-1.0 / torch.expm1(sigma_R)).to(grad_RS.dtype).unsqueeze(-1)
        grad_RS.scatter_add_(-1, x0_R.unsqueeze(-1), pull_R1)
        live_R = self.live(x_R)
        return nats_R, grad_RS if _all(live_R) else grad_RS.masked_fill_(~live_R.unsqueeze(-1), 0.0)

    def entropy_rows(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> EntropyRows:
        """s_y, less 1/e at x0, on masked rows."""
        live_R = self.live(x_R)
        pull_R = (1.0 / torch.expm1(sigma_R)).masked_fill(~live_R, 0.0)
        nothing_R = torch.zeros_like(pull_R)
        nats = lambda sums_R, logs_R, own_R, mask_R: self._nats(sums_R, own_R, x_R, sigma_R)  # noqa: E731
        return EntropyRows(live_R.to(pull_R.dtype), nothing_R, pull_R, nothing_R, nats)

    def _nats(self, sums_R: Tensor, own_R: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """The loss of rows from Σ_y s_y and log s_x0; rows that are not live may hold anything (inf, nan)."""
        e_R = torch.expm1(sigma_R)
        # mu_y = e·s_y sums to 1 at the truth; forming e·Σs − 1 before dividing keeps small σ exact
        nats_R = (e_R * sums_R - 1.0 - (own_R + torch.log(e_R))) / e_R
        return nats_R.masked_fill(~self.live(x_R), 0.0)

    def clean_from_score(self, log_score_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """The score itself, normalised over tokens, on masked rows, at any σ; ``x`` itself on the others."""
        log_clean_RV = log_score_RS[..., :-1].log_softmax(-1)
        return self._settle(log_clean_RV, x_R, -math.inf, 0.0)

    def score_from_clean(self, log_clean_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """log clean − log(e^σ − 1): on masked rows the law, scaled (MDLM's bound is score entropy with it)."""
        shift_R1 = torch.expm1(sigma_R).log().to(log_clean_RV.dtype).unsqueeze(-1)
        return F.pad(log_clean_RV - shift_R1, (0, 1)).scatter(-1, x_R.unsqueeze(-1), 0.0)

    def score_from_posterior(self, log_law_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """The same: a mask says nothing about the token beneath it."""
        return self.score_from_clean(log_law_RV, x_R, sigma_R)

    def reverse_from_clean(self, log_clean_RV: Tensor, x_R: Tensor, sigma_t_R: Tensor, sigma_s_R: Tensor) -> Tensor:
        """A mask becomes token y with probability ``leave`` · clean(y); a token stays."""
        leave_R = self.leave(sigma_t_R, sigma_s_R).to(log_clean_RV.dtype)
        law_RS = log_clean_RV.new_empty((*x_R.shape, self.states))
        torch.exp(log_clean_RV, out=law_RS[..., :-1])
        law_RS[..., :-1].mul_(leave_R.unsqueeze(-1))
        law_RS[..., -1] = 1.0 - leave_R
        return self._settle(law_RS, x_R, 0.0, 1.0)

    def reverse_from_score(self, log_score_RS: Tensor, x_R: Tensor, sigma_t_R: Tensor, sigma_s_R: Tensor) -> Tensor:
        """A mask becomes token y with (e^(σ_t−σ_s) − 1)·s_y and stays with the rest (may be < 0)."""
        step_R1 = torch.expm1(sigma_t_R - sigma_s_R).unsqueeze(-1).to(log_score_RS.dtype)
        law_RS = log_score_RS.exp()
        law_RS[..., -1] = 0.0
        law_RS.mul_(step_R1)
        law_RS[..., -1] = 1.0 - law_RS.sum(-1)
        return self._settle(law_RS, x_R, 0.0, 1.0)

    def _settle(self, law_RS: Tensor, x_R: Tensor, off: float, own: float) -> Tensor:
        """Rows that are not live hold ``own`` at their token and ``off`` elsewhere; [R, S] or [R, V]."""
        live_R = self.live(x_R)
        if _all(live_R):
            return law_RS
        law_RS = law_RS.masked_fill(~live_R.unsqueeze(-1), off)
        at_R = x_R.clamp_max(law_RS.shape[-1] - 1)
        own_R = gather_own(law_RS, at_R).masked_fill(~live_R, own)
        return law_RS.scatter_(-1, at_R.unsqueeze(-1), own_R.unsqueeze(-1))


def _all(live_R: Tensor) -> bool:
    """Whether it is *known* that all rows are live: asked on the host only, where the answer costs no waiting."""
    return live_R.device.type == "cpu" and not torch.compiler.is_compiling() and bool(live_R.all())
