"""The contract of a forward graph (a Markov chain over the states of one position) and of its noise schedule.

Conventions. A law over states is a column: dp/dσ = Q p, with Q[y, x] the rate x → y and columns that sum to
zero; Q may move with σ, and so kernels are told both of their ends. σ is the total noise (σ-bar in the paper), 0
for clean text. Rows ``_R`` are positions picked out of a batch; the states axis ``_S`` has ``graph.states`` entries,
of which the first ``graph.vocab`` are tokens and a last one, where ``graph.mask`` is true, the mask. Source of the
construction: Lou, Meng & Ermon 2024 (SEDD), §2–3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.core.part import Part


@dataclass(frozen=True)
class EntropyRows:
    """Score entropy of rows as few numbers a row, for kernels that pass over the states once.

    d nats / d log s_y = ``scale`` · s_y − ``common``, with ``target`` for ``common`` at x_0, ``mask`` at the mask,
    and 0 at x. ``nats(sums, logs, own, mask_log)`` of Σ_{y≠x} s_y, Σ over tokens y ≠ x of log s_y, log s at x_0 and at
    the mask (each 0 where that is x). All [R].
    """

    scale_R: Tensor
    common_R: Tensor
    target_R: Tensor
    mask_R: Tensor
    nats: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Graph(Part, ABC, kind="graph", supplied=("vocab",)):
    """A forward process on one position, applied to all positions independently.

    ``mask``: the last state is a mask that clean text never holds. ``blind``: who leaves in a reverse step
    needs no network (the pace is known); with a mask, only masks move. ``usual``: the noise and readout that fit
    when a recipe names none. All methods are pure, work on any device and in the floating type of their inputs.
    """

    mask: ClassVar[bool] = False
    blind: ClassVar[bool] = False
    usual: ClassVar[Mapping[str, Any]] = {}
    vocab: int

    @property
    def states(self) -> int:
        """Number of states of one position: the vocabulary, plus one where there is a mask."""
        return self.vocab + int(self.mask)

    @abstractmethod
    def live(self, x: Tensor) -> Tensor:
        """Which positions (any shape) a reverse step may move: bool, same shape."""

    @abstractmethod
    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        """Draw x_σ given x_0 by inverse CDF: ``x0`` int64, ``u`` float64 in [0, 1) of its shape.

        σ has the leading axes of ``x0``: a scalar, [B], [B, 1] or [B, L] for ``x0`` [B, L] (as in
        ``prior_kl``).
        """

    @abstractmethod
    def prior(self, u: Tensor) -> Tensor:
        """Draw from the end law (σ → ∞): int64 of ``u``'s shape (``u`` float64 in [0, 1))."""

    @abstractmethod
    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """KL(q(x_σ | x_0) ‖ end law) in nats, shape of ``x0``: the prior term of the likelihood bound.

        Where the KL to the end law is infinite at finite σ (the pure mask), the graph states which nearby
        start law it takes instead, in its docstring.
        """

    @abstractmethod
    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Row x of Q at noise σ, [R, S]: entry y ≠ x the forward rate y → x, entry x minus the rate out."""

    @abstractmethod
    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """[R, S]: entry y = P(state is x at noise ``to`` | state was y at noise ``from``), from ≤ to."""

    @abstractmethod
    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Carry a law over states from one noise to another, [R, S]; ``to`` < ``from`` applies the inverse.

        Backwards, with a score in place of a law, this is SEDD's staggered score (SEDD eq. 19).
        """

    def score_entropy(self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Diffusion-weighted denoising score entropy per unit of σ, nats, [R] (SEDD eq. 14); ≥ 0.

        Σ_{y≠x} Q(x, y) [s_y − r_y log s_y + r_y (log r_y − 1)] with r_y = p(y|x0)/p(x|x0) at σ; the own entry
        of ``log_score_RS`` is not read. 0 on rows that are not live. Non-negative up to rounding. Here it is the sum
        itself, out of rate and kernel (terms with r = 0 count s alone), which graphs override by their closed form.
        """
        log_score_RS = log_score_RS.scatter(-1, x_R.unsqueeze(-1), 0.0)
        log_ratio_RS = self.log_ratio(x_R, x0_R, sigma_R.double())
        log_r_RS = torch.where(log_ratio_RS.isneginf(), 0.0, log_ratio_RS).to(log_score_RS.dtype)
        ratio_RS = log_ratio_RS.exp().to(log_score_RS.dtype)
        terms_RS = log_score_RS.exp() + ratio_RS * (log_r_RS - 1.0 - log_score_RS)
        rates_RS = self.rate_into(x_R, sigma_R).to(terms_RS.dtype).scatter(-1, x_R.unsqueeze(-1), 0.0)
        return torch.where(rates_RS > 0, rates_RS * terms_RS, 0.0).sum(-1)

    def score_entropy_grad(
        self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``score_entropy`` and its gradient in one go: (nats [R], d nats/d log_score [R, S], own entry 0).

        Consumes ``log_score_RS``: its memory may be overwritten and may hold the gradient that is returned.
        """
        with torch.enable_grad():
            log_score_RS = log_score_RS.detach().requires_grad_()
            nats_R = self.score_entropy(log_score_RS, x_R, x0_R, sigma_R)
            (grad_RS,) = torch.autograd.grad(nats_R.sum(), log_score_RS)
        return nats_R.detach(), grad_RS

    def entropy_rows(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> EntropyRows | None:
        """``score_entropy_grad`` as numbers of rows; None where a graph has no such form."""
        return None

    def log_ratio(self, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """log r_y = log p(y|x0)/p(x|x0) at σ, [R, S] in σ's type: the score of one known token; own entry 0.

        −inf where y cannot be reached from ``x0``; meaningless (+inf, nan) where ``x`` itself cannot.
        """
        law_RS = F.one_hot(x0_R, self.states).to(sigma_R.dtype)
        log_law_RS = self.push(law_RS, torch.zeros_like(sigma_R), sigma_R).log()
        ratio_RS = log_law_RS - gather_own(log_law_RS, x_R).unsqueeze(-1)
        return ratio_RS.scatter(-1, x_R.unsqueeze(-1), 0.0)

    def clean_from_score(self, log_score_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """log law of the clean token given the *other* positions, [R, V], normalised, out of a score at σ.

        The score, normalised over its row, is the law of this position at σ given the others; pushed back to
        σ = 0 it is the clean law. An inexact score gives negative entries there: they are clamped to 0 (log:
        −inf). A mask holds no clean mass.
        """
        law_RS = log_score_RS.scatter(-1, x_R.unsqueeze(-1), 0.0).softmax(-1)
        clean_RV = self.push(law_RS, sigma_R, torch.zeros_like(sigma_R))[..., : self.vocab].clamp_min_(0)
        # where clamping leaves nothing, the score says less of the clean token than rounding does: uniform
        clean_RV.add_((clean_RV.sum(-1, keepdim=True) <= 0).to(clean_RV.dtype))
        return clean_RV.div_(clean_RV.sum(-1, keepdim=True)).log_()

    def score_from_clean(self, log_clean_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S] at σ out of a log law of the clean token given the *other* positions, [R, V]; own entry 0.

        s_y = push(clean)(y) / push(clean)(x): undoes ``clean_from_score``. What UDLM and DUO train is such a law.
        """
        log_law_RS = self._log_push(log_clean_RV.exp(), sigma_R)
        return (log_law_RS - gather_own(log_law_RS, x_R).unsqueeze(-1)).scatter(-1, x_R.unsqueeze(-1), 0.0)

    def score_from_posterior(self, log_law_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S] at σ out of a log law of the clean token given *all* positions, its own too; own entry 0.

        s_y = Σ_x0 p(x0 | x) q(y | x0) / q(x | x0), which is the score where p is Bayes' (Lou, Meng & Ermon 2024, §3.1).
        """
        reach_RV = self.kernel_into(x_R, torch.zeros_like(sigma_R), sigma_R)[..., : self.vocab].to(log_law_RV.dtype)
        weight_RV = log_law_RV.exp() / reach_RV.clamp_min(torch.finfo(log_law_RV.dtype).tiny)
        return self._log_push(weight_RV, sigma_R).scatter(-1, x_R.unsqueeze(-1), 0.0)

    def _log_push(self, v_RV: Tensor, sigma_R: Tensor) -> Tensor:
        """log of clean mass carried to σ, [R, S]; finite where nothing arrives."""
        v_RS = F.pad(v_RV, (0, 1)) if self.mask else v_RV
        pushed_RS = self.push(v_RS, torch.zeros_like(sigma_R), sigma_R)
        return pushed_RS.clamp_min(torch.finfo(pushed_RS.dtype).tiny).log()

    def reverse_from_clean(self, log_clean_RV: Tensor, x_R: Tensor, sigma_t_R: Tensor, sigma_s_R: Tensor) -> Tensor:
        """Law of the state at noise σ_s given ``x`` at σ_t ≥ σ_s and a clean law, [R, S], normalised.

        ``log_clean_RV``: *log* law of the clean token given the other positions (``clean_from_score``, shaped
        or not). p(x_s = y | x_t = x) = (push of the clean law to σ_s)(y) · P(y at σ_s → x at σ_t) / (push to
        σ_t)(x): exact per position where the clean law is (Bayes). Where no clean token could lead to ``x``,
        it stays.
        """
        clean_RS = log_clean_RV.exp()
        if self.mask:
            clean_RS = F.pad(clean_RS, (0, 1))
        law_RS = self.push(clean_RS, torch.zeros_like(sigma_s_R), sigma_s_R)
        joint_RS = self._times_kernel(law_RS, x_R, sigma_s_R, sigma_t_R)
        lost_R1 = (joint_RS.sum(-1, keepdim=True) <= 0).to(joint_RS.dtype)
        joint_RS.scatter_add_(-1, x_R.unsqueeze(-1), lost_R1)
        return joint_RS.div_(joint_RS.sum(-1, keepdim=True))

    def reverse_from_score(self, log_score_RS: Tensor, x_R: Tensor, sigma_t_R: Tensor, sigma_s_R: Tensor) -> Tensor:
        """SEDD's analytic (Tweedie) step from σ_t down to σ_s, [R, S] (SEDD eq. 19, official code).

        push(score, σ_t → σ_s)(y) · P(y at σ_s → x at σ_t). Bayes' law with the exact score; with an inexact
        one *not* normalised and possibly negative, as published: the caller clamps.
        """
        score_RS = log_score_RS.scatter(-1, x_R.unsqueeze(-1), 0.0).exp()
        staggered_RS = self.push(score_RS, sigma_t_R, sigma_s_R)
        return self._times_kernel(staggered_RS, x_R, sigma_s_R, sigma_t_R)

    def _times_kernel(self, law_RS: Tensor, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """``law_RS`` · ``kernel_into``, in the type of ``law_RS`` (which may be overwritten) whatever σ's is."""
        return law_RS * self.kernel_into(x_R, from_R, to_R).to(law_RS.dtype)

    def leave(self, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Blind graphs: P(a live row leaves in a reverse step from noise ``from`` down to ``to``), [R].

        Raises:
            NotImplementedError: on graphs that are not ``blind`` (resolving refuses such a recipe before).
        """
        raise NotImplementedError(f"{type(self).__name__} is not blind: who leaves depends on the network")


class Noise(Part, ABC, kind="noise"):
    """A schedule t ∈ [0, 1] → total noise σ(t), increasing; tensors of any shape (callers pass float64)."""

    @abstractmethod
    def total(self, t: Tensor) -> Tensor:
        """σ(t)."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """dσ/dt."""

    @abstractmethod
    def time_at(self, sigma: Tensor) -> Tensor:
        """The t with σ(t) = ``sigma``: inverse of ``total``."""


def expand_rows(sigma: Tensor, like: Tensor) -> Tensor:
    """σ of shape [B] given the trailing axes of ``like``, so that it broadcasts."""
    return sigma.reshape(sigma.shape + (1,) * (like.dim() - sigma.dim()))


def gather_own(v_RS: Tensor, x_R: Tensor) -> Tensor:
    """v[r, x_r], shape [R]."""
    return torch.gather(v_RS, -1, x_R.unsqueeze(-1)).squeeze(-1)
