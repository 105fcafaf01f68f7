"""Two runs compared, from results files alone: in pairs of units, with equivalence, families and power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.metrics.statistics import LEVEL, RESAMPLES, SIDE, Estimate, Floats, student_quantile
from workbench.metrics.value import Value


class OtherJudge(WorkbenchError):
    """Two figures that are not by one judge, or not of one machine's seconds (`Value.by`)."""


def require_same_judge(a: Value, b: Value) -> None:
    """Raises `OtherJudge` where two figures are by other judges or machines, or one does not say by whom."""
    if a.by != b.by:
        who = " and ".join(value.by or "an unknown one (evaluated before they were told apart)" for value in (a, b))
        raise OtherJudge(f"{a.name}: figures by two judges or machines, {who}; evaluate both by the same")


def paired(a: Value, b: Value, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """a − b where both were measured on the same units, with a percentile bootstrap over units (drawn for both alike).

    Raises:
        WorkbenchError: one keeps no units, or they are not the same.
        OtherJudge: they are by two judges or machines.
    """
    return contrasted((a, b), (1.0, -1.0), resamples=resamples, seed=seed)


def contrasted(
    values: Sequence[Value],
    coefficients: Sequence[float],
    *,
    log: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Σ coefficient · figure (its logarithm where ``log``) of figures measured on the same units.

    Raises:
        WorkbenchError: one keeps no units, or they are not the same.
        OtherJudge: they are by two judges or machines.
    """
    for value in values[1:]:
        require_same_judge(values[0], value)
    units = [value.units for value in values]
    names = " and ".join(dict.fromkeys(value.name for value in values))
    columns = []
    for one in units:
        if one is None:
            raise WorkbenchError(f"{names}: its results keep no units; evaluate both runs again on the same text")
        first = units[0]
        if first is None or one.key != first.key or len(one.values) != len(first.values):
            protocols = [key.rpartition(":")[0] or "none" for key in (first.key if first else "", one.key)]
            if protocols[0] != protocols[1]:
                how = " and ".join(protocols)
                raise WorkbenchError(f"{names} were measured by two protocols ({how}), which are never compared")
            raise WorkbenchError(f"{names} are of other units (prompts, blocks); evaluate both on the same")
        columns.append((np.asarray(one.values), np.asarray(one.weights or np.ones(len(one.values)))))
    return contrast_bootstrap(columns, coefficients, log=log, resamples=resamples, seed=seed)


def paired_bootstrap(
    a: tuple[Floats, Floats], b: tuple[Floats, Floats], *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Difference of two weighted means, each (values [N], weights [N]) of the same N units."""
    return contrast_bootstrap((a, b), (1.0, -1.0), resamples=resamples, seed=seed)


def contrast_bootstrap(
    columns: Sequence[tuple[Floats, Floats]],
    coefficients: Sequence[float],
    *,
    log: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Σ coefficient · weighted mean (of its logarithm where ``log``), each column (values [N], weights [N]) of the same
    N units, with a percentile bootstrap over units, drawn for all columns alike; without an interval where a resample
    has no figure (the logarithm of nothing)."""
    n = len(columns[0][0])

    def total(count_RN: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [(count_RN @ (values * weights)) / (count_RN @ weights) for values, weights in columns]
            return np.asarray([np.log(mean) if log else mean for mean in means]).T @ np.asarray(coefficients)

    value = float(total(np.ones((1, n)))[0])
    if n < 2:
        return Estimate(value, n=n)
    count_RN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    drawn = total(count_RN)
    if not np.isfinite(drawn).all():
        return Estimate(value, n=n)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(drawn.std(ddof=1)), float(low), float(high), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of comparisons (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: ``p`` that the difference lies outside ± ``margin``; ``equivalent`` at 2.5 % each.

    So the 95 % interval, which every figure has beside it, lies within the margins, as a study's claim `alike` wants
    it; the usual 5 % each would be met by a 90 % interval.
    """

    margin: float
    p: float

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return self.p < SIDE


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
