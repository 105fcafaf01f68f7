"""Which times a diffusion process trains on: a draw of t with the weight that keeps the bound unbiased."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import Count, Probability
from workbench.core.part import Part
from workbench.core.rng import Rng

Floats = npt.NDArray[np.float64]
GOLDEN = (5**0.5 - 1) / 2


class TimeDraw(Part, ABC, kind="time_draw"):
    """Draws of t in [eps, 1] for a batch, with importance weights.

    Contract: E[weight · f(t)] = ∫_eps^1 f(t) dt for every f, and a sequence's draw does not depend on how the
    global batch is cut into micro-batches or ranks.
    """

    eps: float

    @abstractmethod
    def draw(self, seq_B: npt.NDArray[np.int64], step: int, rng: Rng) -> tuple[Floats, Floats]:
        """(t_B, weight_B), float64."""


@TimeDraw.register("uniform")
class UniformTimes(TimeDraw):
    """Independent uniform times, as in the published SEDD.

    Settings:
        eps: shortest time trained on.
    """

    def __init__(self, eps: Probability = 1e-3) -> None:
        """``eps``: shortest time."""
        self.eps = eps

    def draw(self, seq_B: npt.NDArray[np.int64], step: int, rng: Rng) -> tuple[Floats, Floats]:
        """(t_B, weight_B)."""
        u = rng.uniform("time", step, seq_B, 1)[:, 0]
        return self.eps + (1 - self.eps) * u, np.full(len(u), 1 - self.eps)


@TimeDraw.register("stratified")
class StratifiedTimes(TimeDraw):
    """Low-variance times: a golden-ratio (Weyl) sequence over sequence numbers with a fresh shift each step.

    Any run of consecutive sequences is spread evenly over [eps, 1], so the spread needs no knowledge of the batch
    (cf. the low-discrepancy sampler of Kingma et al. 2021, VDM, which does). Each t is uniform over the shifts.

    Settings:
        eps: shortest time trained on.
    """

    def __init__(self, eps: Probability = 1e-3) -> None:
        """``eps``: shortest time."""
        self.eps = eps

    def draw(self, seq_B: npt.NDArray[np.int64], step: int, rng: Rng) -> tuple[Floats, Floats]:
        """(t_B, weight_B)."""
        shift = rng.uniform("time", step, [0], 1)[0, 0]
        u = (shift + seq_B.astype(np.float64) * GOLDEN) % 1.0
        return self.eps + (1 - self.eps) * u, np.full(len(u), 1 - self.eps)


@TimeDraw.register("antithetic")
class AntitheticTimes(TimeDraw):
    """VDM's low-discrepancy times: t = (u + i/n) mod 1 for sequence i of n, one fresh u a step (Kingma et al. 2021).

    Of any ``every`` consecutive sequences one falls into each n-th part of [eps, 1], at the same place in it. With
    ``every`` = the batch this is the published sampler (MDLM: antithetic_sampling); the batch is not asked, so that it
    may be cut. ``stratified`` needs no such number and is nearly as even.

    Settings:
        every: how many consecutive sequences share out the times: the global batch, or a divisor of it
        eps: shortest time trained on.
    """

    def __init__(self, every: Count = 32, eps: Probability = 1e-3) -> None:
        """``every`` sequences a comb of times; ``eps``: shortest time."""
        self.every, self.eps = every, eps

    def draw(self, seq_B: npt.NDArray[np.int64], step: int, rng: Rng) -> tuple[Floats, Floats]:
        """(t_B, weight_B)."""
        shift = rng.uniform("time", step, [0], 1)[0, 0]
        u = (shift + (seq_B % self.every) / self.every) % 1.0
        return self.eps + (1 - self.eps) * u, np.full(len(u), 1 - self.eps)
