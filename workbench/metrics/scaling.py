"""How a loss falls with size: L(N) = E + A · N^−a by least squares, with intervals (Hoffmann et al. 2022, section 3.3).

E, A ≥ 0 and a > 0. For a fixed exponent the law is linear in E and A, so that only the exponent is searched for
(Golub & Pereyra 1973, variable projection). An interval holds what the data do not tell from the best fit: values
whose profile of squared errors stays below SSE · (1 + F₉₅(1, n − 3) / (n − 3)) (Bates & Watts 1988, section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import f as fisher

from workbench.core.errors import WorkbenchError
from workbench.metrics.statistics import LEVEL, Floats

STEEPEST, FLATTEST = 8.0, 1e-3
"""Exponents that are looked at."""
LOG_RANGE = (float(np.log(FLATTEST)), float(np.log(STEEPEST)))
GRID, ROUNDS = 120, 6
"""Exponents of a grid, and grids one within the other."""
ROUNDING = 1e-20
"""Squared error, as a share of the figures' squares, that is rounding alone."""


@dataclass(frozen=True)
class Fitted:
    """A constant of the law; ``low``, ``high``: its 95 % interval, None where the data leave that end open."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PowerLaw:
    """L(N) = ``floor`` + A · N^−``exponent``; ``scale``: A. ``n`` points, ``rms``: root of their mean squared error."""

    floor: Fitted
    exponent: Fitted
    scale: float
    n: int
    rms: float

    def at(self, size: Floats) -> Floats:
        """The law at sizes [N]."""
        return np.asarray(self.floor.value + self.scale * np.asarray(size, dtype=np.float64) ** -self.exponent.value)


def fit_power_law(size: Sequence[float], loss: Sequence[float]) -> PowerLaw:
    """The law of sizes [N] > 0 and losses [N], of one or several runs a size.

    Raises:
        WorkbenchError: fewer than three sizes or four points, or numbers that are none.
    """
    x, y = np.asarray(size, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all()):
        raise WorkbenchError("a power law is fitted to sizes above 0 and losses that are numbers")
    if len(set(x.tolist())) < 3 or len(x) < 4:
        raise WorkbenchError(
            f"a power law has three constants: it takes three sizes and four runs; found {len(set(x.tolist()))} sizes, "
            f"{len(x)} runs"
        )
    middle = float(np.exp(np.log(x).mean()))
    law = _Law(np.log(x / middle), y)
    exponent = law.best_exponent(law.errors)
    (error,), (floor,), (scale,) = law.solved(np.asarray([exponent]))
    least = max(error, ROUNDING * float((y**2).sum()))
    bound = least * (1 + float(fisher.ppf(LEVEL, 1, len(x) - 3)) / (len(x) - 3))
    exponents = _ends(lambda log_a: float(law.errors(np.exp([log_a]))[0]) - bound, np.log(exponent), *LOG_RANGE)
    floors = _ends(lambda e: law.error_at_floor(e) - bound, float(floor), 0.0, float(y.min()))
    return PowerLaw(
        Fitted(float(floor), *floors),
        Fitted(exponent, *(None if end is None else float(np.exp(end)) for end in exponents)),
        float(scale) * middle**exponent,
        len(x),
        float(np.sqrt(error / len(x))),
    )


@dataclass(frozen=True)
class _Law:
    """Squared errors of laws of ``y``; ``log_x``: of sizes over their geometric mean."""

    log_x: Floats
    y: Floats

    def solved(self, exponent_A: Floats) -> tuple[Floats, Floats, Floats]:
        """(squared error, floor, scale), [A] each, of the best laws with these exponents; floor and scale ≥ 0."""
        u_AN, y = np.exp(-exponent_A[:, None] * self.log_x), self.y
        mean_A = u_AN.mean(axis=1)
        scale_A = (u_AN - mean_A[:, None]) @ (y - y.mean()) / ((u_AN - mean_A[:, None]) ** 2).sum(axis=1)
        floor_A = y.mean() - scale_A * mean_A
        below = floor_A < 0
        scale_A = np.where(below, u_AN @ y / (u_AN**2).sum(axis=1), scale_A)
        rises = scale_A < 0
        floor_A = np.where(rises, max(0.0, float(y.mean())), np.where(below, 0.0, floor_A))
        scale_A = np.where(rises, 0.0, scale_A)
        return ((floor_A[:, None] + scale_A[:, None] * u_AN - y) ** 2).sum(axis=1), floor_A, scale_A

    def errors(self, exponent_A: Floats) -> Floats:
        """Of the best laws with these exponents, [A]."""
        return self.solved(exponent_A)[0]

    def error_at_floor(self, floor: float) -> float:
        """Of the best law with this floor."""

        def errors(exponent_A: Floats) -> Floats:
            u_AN, rest = np.exp(-exponent_A[:, None] * self.log_x), self.y - floor
            scale_A = np.maximum(0.0, u_AN @ rest / (u_AN**2).sum(axis=1))
            return np.asarray(((scale_A[:, None] * u_AN - rest) ** 2).sum(axis=1))

        return float(errors(np.asarray([self.best_exponent(errors)]))[0])

    @staticmethod
    def best_exponent(errors: Callable[[Floats], Floats]) -> float:
        """Where errors are least: on a grid of logarithms, then on ever finer ones around the best."""
        low, high = LOG_RANGE
        for _ in range(ROUNDS):
            grid = np.linspace(low, high, GRID)
            at = int(np.argmin(errors(np.exp(grid))))
            low, high = grid[max(0, at - 1)], grid[min(GRID - 1, at + 1)]
        return float(np.exp((low + high) / 2))


def _ends(above: Callable[[float], float], best: float, low: float, high: float) -> tuple[float | None, float | None]:
    """Where a function that is below 0 at ``best`` crosses it first, downwards and upwards; None where it does not."""
    ends: list[float | None] = []
    for limit in (low, high):
        inside, end = best, None
        for share in np.linspace(0, 1, 41)[1:]:
            outside = best + float(share) * (limit - best)
            if above(outside) > 0:
                end = float(brentq(above, inside, outside)) if above(inside) < 0 else inside
                break
            inside = outside
        ends.append(end)
    return ends[0], ends[1]
