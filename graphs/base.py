"""The contract of a forward graph (a Markov chain over the states of one position) and of its noise schedule.

Conventions. A law over states is a column: dp/dσ = Q p, with Q[y, x] the rate x → y and columns that sum to zero.
σ is the total noise (σ-bar in the paper), 0 for clean text. Rows ``_R`` are positions picked out of a batch; the
states axis ``_S`` has ``graph.states`` entries, of which the first ``graph.vocab`` are tokens and a last one, where
``graph.mask`` is true, the mask. Source of the construction: Lou, Meng & Ermon 2024 (SEDD), §2–3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.core.part import Part


class Graph(Part, ABC, kind="graph", supplied=("vocab",)):
    """A forward process on one position, applied to all positions independently.

    ``mask``: the last state is a mask that clean text never holds. ``blind``: who leaves in a reverse step needs no
    network (the pace is known). ``usual``: the noise and readout that fit when a recipe names none.
    All methods are pure, work on any device and in the floating type of their inputs.
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
        """Draw x_σ given x_0 by inverse CDF: ``x0`` int64, ``u`` float64 in [0, 1) of its shape, σ broadcastable."""

    @abstractmethod
    def prior(self, u: Tensor) -> Tensor:
        """Draw from the end law (σ → ∞): int64 of ``u``'s shape (``u`` float64 in [0, 1))."""

    @abstractmethod
    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """KL(q(x_σ | x_0) ‖ end law) in nats, shape of ``x0``: the prior term of the likelihood bound.

        Where the KL to the end law is infinite at finite σ (the pure mask), the graph states which nearby start law
        it takes instead, in its docstring.
        """

    @abstractmethod
    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Row x of Q at noise σ: [R, S], entry y ≠ x the forward rate y → x, entry x minus the rate out of x."""

    @abstractmethod
    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """[R, S]: entry y = P(state is x at noise ``to`` | state was y at noise ``from``), from ≤ to."""

    @abstractmethod
    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Carry a law over states from one noise to another, [R, S]; ``to`` < ``from`` applies the inverse kernel.

        Backwards, with a score in place of a law, this is SEDD's staggered score (SEDD eq. 19).
        """

    @abstractmethod
    def score_entropy(self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Diffusion-weighted denoising score entropy per unit of σ, nats, [R] (SEDD eq. 14); ≥ 0.

        Σ_{y≠x} Q(x, y) [s_y − r_y log s_y + r_y (log r_y − 1)] with r_y = p(y|x0)/p(x|x0) at σ; the own entry of
        ``log_score_RS`` is not read. 0 on rows that are not live.
        """

    def leave(self, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Blind graphs: P(a live row leaves in a reverse step from noise ``from`` down to ``to``), [R], no network.

        Raises:
            NotImplementedError: on graphs that are not ``blind`` (resolving refuses such a recipe before).
        """
        raise NotImplementedError(f"{type(self).__name__} is not blind: who leaves depends on the network")


class Noise(Part, ABC, kind="noise"):
    """A schedule t ∈ [0, 1] → total noise σ(t), increasing; tensors of any shape, computed in float64 by callers."""

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
