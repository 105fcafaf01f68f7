"""Jump your steps: a grid of times fitted to a network, and the fit.

Where only masks move, a step from the share λ of masked positions down to λ′ draws what it writes independently, each
token by its law given what was written before. Which positions those are does not depend on the text, so that by the
chain rule the KL of the walk's path law to the true one, an upper bound of that of its texts (KLUB), is

    KLUB = L · Σ_i (λ_i − λ_{i+1}) h(λ_i) − the text's own entropy,    h(λ) = E −log p(token | what is not masked),

h of a masked position: the sum of h from its left ends, above the integral that a walk of infinitely many steps has.
So the curve h, measured once on text, decides the best grid for any number of steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import MinLen
from torch import Tensor

from graphs.base import Noise
from samplers.base import ScoreView, Times, rows_map
from workbench.core.errors import Problem, WorkbenchError
from workbench.core.rng import Rng

if TYPE_CHECKING:
    from workbench.core.node import Node

Shares = npt.NDArray[np.float64]
GOLDEN = (math.sqrt(5) - 1) / 2
NARROW = 40
"""Narrowings of a golden-section search: to 1e-8 of its stretch."""
EDGE = 1e-3
"""How near to an end of its stretch a cut may lie."""
SWEEPS = 50


@Times.register("jump_your_steps")
class JumpYourSteps(Times):
    """Times fitted to a network, so that few steps err least (Park et al. 2024, "Jump your steps", §4).

    They are found by `fit` (from Python: a network's view, some clean text, a number of steps) and stand in the recipe,
    so that a draw stays a pure function of it. Least is a bound of the error, not the error: where equal steps are near
    the best already, nothing is gained. For another number of steps the fitted curve is read between its points.

    Settings:
        at: the times, from 1 down to the last; the clean-up step goes from there to clean text
    """

    def __init__(self, at: Annotated[list[float], MinLen(2)]) -> None:
        """Keep the times."""
        self.at = at

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A grid of three steps."""
        return {"at": [1.0, 0.8, 0.5, 1e-5]}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Times that do not fall from 1."""
        yield from super().misfits(node, root)
        at = node.settings["at"]
        if at[0] != 1 or not at[-1] > 0 or any(not low < high for high, low in itertools.pairwise(at)):
            yield Problem(
                f"{node.path}.at",
                "times fall strictly from 1 and stay above 0; take them as samplers.jump_your_steps.fit returns them",
            )

    def grid(self, steps: int, noise: Noise) -> Tensor:
        """The times; between them, at equal parts of their number, for another number of steps."""
        place = np.linspace(0, len(self.at) - 1, steps + 1)
        return torch.from_numpy(np.interp(place, np.arange(len(self.at)), self.at))


@dataclass(frozen=True)
class Curve:
    """h at shares of masked positions, ascending; read between them by straight lines. Nats a masked token."""

    share_K: Shares
    nats_K: Shares

    def __call__(self, share: Shares | float) -> Any:
        """h."""
        return np.interp(share, self.share_K, self.nats_K)

    def cost(self, share_N: Shares) -> float:
        """Σ (λ_i − λ_{i+1}) h(λ_i) for shares that fall: KLUB a position, but for a constant."""
        return float(-(np.diff(share_N) * self(share_N[:-1])).sum())


def measured(view: ScoreView, x0_BL: Tensor, rng: Rng, eps: float = 1e-5, knots: int = 64, batch: int = 32) -> Curve:
    """The curve of a network on clean text ``x0_BL`` (int64, host), by ``knots`` + 1 looks a batch.

    Every share masks by the same numbers, so that neighbours differ by little noise; what still falls is levelled, as
    who sees less knows no more (least squares, weighted by the number of masks). Shares lie between those at
    ``eps`` and at t = 1, closer together at both ends.

    Raises:
        WorkbenchError: a graph on which not only masks move.
    """
    if not (view.graph.mask and view.graph.blind):
        raise WorkbenchError(
            f"times are fitted where only masks move; on graph {view.graph.type_name!r} take a grid that is not fitted"
        )
    low, high = (-torch.expm1(-view.sigma(torch.tensor([eps, 1.0], dtype=torch.float64)))).tolist()
    share_K = low + (high - low) * (1 - np.cos(np.linspace(0, math.pi, knots + 1))) / 2
    nats_K, count_K = np.zeros(knots + 1), np.zeros(knots + 1)
    for start in range(0, len(x0_BL), batch):
        piece_BL = x0_BL[start : start + batch]
        u_BL = torch.from_numpy(rng.uniform("fit", 0, range(start, start + len(piece_BL)), x0_BL.shape[1]))
        for k, share in enumerate(share_K.tolist()):
            sigma_B = torch.full((len(piece_BL),), -math.log1p(-share), dtype=torch.float64)
            x_BL = view.graph.corrupt(piece_BL, sigma_B.unsqueeze(-1), u_BL)
            rows_R = view.graph.live(x_BL).reshape(-1).nonzero().squeeze(-1)
            if rows_R.numel():
                nats_K[k] += _nats(view, x_BL, sigma_B, piece_BL, rows_R)
                count_K[k] += rows_R.numel()
    seen = count_K > 0
    rising = _rising(nats_K[seen] / count_K[seen], count_K[seen])
    return Curve(share_K, np.interp(share_K, share_K[seen], rising))


@torch.no_grad()
def fit(
    view: ScoreView, x0_BL: Tensor, rng: Rng, steps: int, eps: float = 1e-5, knots: int = 64, batch: int = 32
) -> list[float]:
    """Times of a grid of ``steps`` steps for a network, on clean text ``x0_BL``: least KLUB by `fitted`.

    Raises:
        WorkbenchError: a graph on which not only masks move.
    """
    share_N = torch.from_numpy(fitted(measured(view, x0_BL, rng, eps, knots, batch), steps))
    inner = view.noise.time_at(-torch.log1p(-share_N[1:-1])).tolist()
    return [1.0, *inner, eps]


def fitted(curve: Curve, steps: int) -> Shares:
    """Shares [steps + 1], falling from the curve's last to its first: stretches cut in two where it helps most.

    Golden-section search finds each cut (Park et al. 2024, alg. 1, which cuts every stretch; here the one that gains
    most, so that any number of steps can be had); then cuts move between their neighbours until none gains. Even steps
    are moved alike, and the better of both is taken: a fitted grid has no higher bound than equal steps of the share.
    """
    split = np.array([curve.share_K[-1], curve.share_K[0]])
    while len(split) <= steps:
        cuts = [_cut(curve, high, low) for high, low in itertools.pairwise(split.tolist())]
        grown = [np.insert(split, at + 1, cut) for at, cut in enumerate(cuts)]
        split = min(grown, key=curve.cost)
    even = np.linspace(curve.share_K[-1], curve.share_K[0], steps + 1)
    return min((_settled(curve, split), _settled(curve, even)), key=curve.cost)


def _settled(curve: Curve, share_N: Shares) -> Shares:
    """The grid after sweeps in which each inner share moves to where its two neighbours want it."""
    best = curve.cost(share_N)
    for _ in range(SWEEPS):
        before = best
        for at in range(1, len(share_N) - 1):
            moved = share_N.copy()
            moved[at] = _cut(curve, share_N[at - 1], share_N[at + 1])
            if (cost := curve.cost(moved)) < best:
                share_N, best = moved, cost
        if before - best < 1e-9 * abs(before):
            break
    return share_N


def _cut(curve: Curve, high: float, low: float) -> float:
    """Where a stretch is best cut in two, by golden-section search."""
    left, right = low + EDGE * (high - low), high - EDGE * (high - low)

    def cost(share: float) -> float:
        return float((high - share) * curve(high) + (share - low) * curve(share))

    for _ in range(NARROW):
        a, b = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
        left, right = (left, b) if cost(a) < cost(b) else (a, right)
    return (left + right) / 2


def _rising(value_K: Shares, weight_K: Shares) -> Shares:
    """The nearest sequence that never falls: neighbours that do are pooled."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(value_K.tolist(), weight_K.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, v, m), (b, w, n) = pools[-2:]
            pools[-2:] = [((a * v + b * w) / (v + w), v + w, m + n)]
    return np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools])


def _nats(view: ScoreView, x_BL: Tensor, sigma_B: Tensor, x0_BL: Tensor, rows_R: Tensor) -> float:
    """Σ −log p(true token) over masked rows."""
    look, x0_R = view.look(x_BL.to(view.device), sigma_B), x0_BL.reshape(-1).to(view.device)

    def of(piece_R: Tensor) -> Tensor:
        return -look.clean(piece_R).gather(-1, x0_R[piece_R].unsqueeze(-1)).squeeze(-1).double()

    return float(rows_map(of, rows_R.to(view.device), view.chunk).sum())
