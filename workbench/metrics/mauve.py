"""MAUVE: how far the law of drawn texts is from that of real ones, seen through the judge's states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import AtLeastTwo, Positive
from workbench.metrics.base import Evidence, Metric
from workbench.metrics.calibration import calibrated
from workbench.metrics.diversity import BESIDE
from workbench.metrics.judge import Judge, Passage, require
from workbench.metrics.judged import passages_of
from workbench.metrics.value import SHUFFLED, Value

FEWEST, USUAL = 20, 100
"""Below the first no figure is given, below the second it is flagged."""


@Metric.register("mauve")
class Mauve(Metric):
    """MAUVE (Pillutla et al. 2021, by their package mauve-text) of samples and real text, features from the judge.

    The mean over k-means seeds; ``extra`` holds their spread (sd_seeds) and, as ``real`` does, the ceiling that half of
    the real texts reach against the other half; the floor, real texts with their words shuffled, is a calibration row.
    The ceiling is of half as many texts, and MAUVE moves with their number, the texts' length and the judge: compare
    figures that share all three.

    Settings:
        seeds: k-means seeds, at least two (three and more are due in a report).
        scaling: c of the paper.
    """

    better = "higher"
    needs = BESIDE | {"judge"}

    def __init__(self, seeds: AtLeastTwo = 5, scaling: Positive = 5.0) -> None:
        """Keep the settings."""
        self.seeds, self.scaling = seeds, scaling

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        require("mauve=mauve-text", what="metric mauve")
        judge = evidence.judge
        p_ND, q_ND = (states(judge, passages_of(texts)) for texts in (evidence.real, evidence.samples))
        fewest = min(len(p_ND), len(q_ND))
        if fewest < FEWEST:
            error = f"{fewest} texts are too few for MAUVE; set samples: {USUAL} at least, better 1000"
            return [Value(self.type_name, None, better="higher", error=error)]
        own = self.scores(p_ND, q_ND)
        ceiling = self.scores(p_ND[::2], p_ND[1::2])
        floor = calibrated(
            evidence, lambda texts: float(self.scores(p_ND, states(judge, passages_of(texts))).mean()), (SHUFFLED,)
        )
        few = f"; only {fewest} texts: fewer than {USUAL} say little" if fewest < USUAL else ""
        sizes = f"{len(q_ND)} samples, {len(p_ND)} real texts"
        return [
            Value(
                self.type_name, float(own.mean()), better="higher", n=fewest, real=float(ceiling.mean()),
                method=f"{sizes}, mean of {self.seeds} k-means seeds, c = {self.scaling:g}",
                note=judge.identity() + few,
                by=f"{judge.digest()}, c = {self.scaling:g}",
                extra={"sd_seeds": float(own.std(ddof=1)), "ceiling": float(ceiling.mean())},
                calibration=floor,
            )
        ]  # fmt: skip

    def scores(self, p_ND: npt.NDArray[np.float32], q_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """MAUVE by seed, [seeds]."""
        from mauve import compute_mauve

        return np.array(
            [
                compute_mauve(p_features=p_ND, q_features=q_ND, seed=seed, mauve_scaling_factor=self.scaling).mauve
                for seed in range(1, self.seeds + 1)
            ],
            dtype=np.float64,
        )


def states(judge: Judge, passages: Sequence[Passage]) -> npt.NDArray[np.float32]:
    """The judge's states behind passages, [N, D]."""
    return np.stack([reading.state for reading in judge.read(passages)])
