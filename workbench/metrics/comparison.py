"""Two runs compared, from results files alone: in pairs of units, with equivalence, families and power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.metrics.statistics import LEVEL, RESAMPLES, Estimate, Floats, student_quantile
from workbench.metrics.value import Value


def paired(a: Value, b: Value, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """a − b where both were measured on the same units, with a percentile bootstrap over units (drawn for both alike).

    Raises:
        WorkbenchError: one keeps no units, or they are not the same.
    """
    if a.units is None or b.units is None:
        raise WorkbenchError(f"{a.name}: its results keep no units; evaluate both runs again on the same text")
    protocols = [value.units.key.rpartition(":")[0] for value in (a, b) if value.units is not None]
    if protocols[0] != protocols[1]:
        how = " and ".join(protocol or "none" for protocol in protocols)
        raise WorkbenchError(f"{a.name} and {b.name} were measured by two protocols ({how}), which are never compared")
    if a.units.key != b.units.key or len(a.units.values) != len(b.units.values):
        raise WorkbenchError(f"{a.name} and {b.name} are of other units (prompts, blocks); evaluate both on the same")
    pairs = []
    for units in (a.units, b.units):
        pairs.append((np.asarray(units.values), np.asarray(units.weights or np.ones(len(units.values)))))
    return paired_bootstrap(*pairs, resamples=resamples, seed=seed)


def paired_bootstrap(
    a: tuple[Floats, Floats], b: tuple[Floats, Floats], *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Difference of two weighted means, each (values [N], weights [N]) of the same N units."""
    n = len(a[0])
    value = float(np.average(a[0], weights=a[1]) - np.average(b[0], weights=b[1]))
    if n < 2:
        return Estimate(value, n=n)
    count_RN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    means = [(count_RN @ (values * weights)) / (count_RN @ weights) for values, weights in (a, b)]
    differences = means[0] - means[1]
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(differences.std(ddof=1)), float(low), float(high), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of comparisons (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: ``p`` that the difference lies outside ± ``margin``; ``equivalent`` at 5 %."""

    margin: float
    p: float

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return self.p < 1 - LEVEL


def equivalence(difference: Estimate, margin: float) -> Equivalence:
    """TOST (Schuirmann 1987) by the normal law of large samples; ``margin`` > 0 is stated beforehand.

    Raises:
        WorkbenchError: no standard error, or a margin that is not positive.
    """
    if not difference.se or margin <= 0:
        raise WorkbenchError("equivalence needs a standard error and a margin above 0, stated beforehand")
    normal = NormalDist()
    gaps = ((margin - difference.value) / difference.se, (margin + difference.value) / difference.se)
    return Equivalence(margin, max(1 - normal.cdf(gap) for gap in gaps))


def smallest_detectable(spread: float, n: int, power: float = 0.8) -> float:
    """The smallest difference seen with this power at 5 %: (t_.975 + t_power) · spread / √n, n − 1 degrees of freedom.

    ``spread``: standard deviation of n paired differences.
    """
    if n < 2:
        raise WorkbenchError("power needs two pairs at least")
    return (student_quantile(0.5 + LEVEL / 2, n - 1) + student_quantile(power, n - 1)) * spread / float(np.sqrt(n))
