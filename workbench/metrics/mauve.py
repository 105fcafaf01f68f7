"""MAUVE: how far the law of drawn texts is from that of real ones, seen through the judge's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import AtLeastTwo, Natural, Positive
from workbench.metrics.base import Evidence, Metric, Texts
from workbench.metrics.calibration import shuffled_texts
from workbench.metrics.diversity import BESIDE
from workbench.metrics.judge import Judge, Passage, require
from workbench.metrics.judged import passages_of
from workbench.metrics.statistics import Estimate, jackknife
from workbench.metrics.value import SHUFFLED, Value

FEWEST, USUAL = 20, 100
"""Below the first no figure is given, below the second it is flagged."""


class Scored(Metric):
    """What the metrics by MAUVE share.

    The mean over k-means seeds; ``extra`` holds their spread (sd_seeds) and, as ``real`` does, the ceiling that half of
    the real texts reach against the other half; the floor, real texts with their words shuffled, is a calibration row.
    The ceiling is of half as many texts, and MAUVE moves with their number, the texts' length and the judge: compare
    figures that share all three.

    Settings:
        seeds: k-means seeds, at least two (three and more are due in a report).
        scaling: c of the paper.
        groups: groups of texts (or of prompts) of which each is left out once, for a standard error by the jackknife; 0
            gives none.
    """

    better = "higher"
    neutral: ClassVar[Mapping[str, Any]] = {"groups": 0}

    def __init__(self, seeds: AtLeastTwo = 5, scaling: Positive = 5.0, groups: Natural = 0) -> None:
        """Keep the settings."""
        self.seeds, self.scaling, self.groups = seeds, scaling, groups

    def value(
        self, name: str, judge: Judge, real: Texts, drawn: Texts, floors: Mapping[str, Texts], each: int = 1
    ) -> Value:
        """MAUVE of drawn texts and real ones; ``floors``: of what no model wrote; ``each``: drawn texts for a real one,
        side by side."""
        p_ND, q_ND = (states(judge, passages_of(texts)) for texts in (real, drawn))
        fewest = min(len(p_ND), len(q_ND))
        if fewest < FEWEST:
            error = f"{fewest} texts are too few for MAUVE; take {USUAL} at least (samples, prompts.count), better 1000"
            return Value(name, None, better="higher", error=error)
        own = self.scores(p_ND, q_ND)
        ceiling = self.scores(p_ND[::2], p_ND[1::2])
        few = f"; only {fewest} texts: fewer than {USUAL} say little" if fewest < USUAL else ""
        found = self.spread(float(own.mean()), p_ND, q_ND, each)
        how = f"{len(drawn.texts)} samples, {len(real.texts)} real texts, mean of {self.seeds} k-means seeds, "
        how += f"c = {self.scaling:g}" + f"; jackknife over {self.groups} groups" * bool(self.groups)
        return Value(
            name, found.value, found.low, found.high, better="higher", n=fewest, real=float(ceiling.mean()),
            se=found.se, method=how, note=judge.identity() + few, by=f"{judge.digest()}, c = {self.scaling:g}",
            extra={"sd_seeds": float(own.std(ddof=1)), "ceiling": float(ceiling.mean())},
            calibration={
                floor: float(self.scores(p_ND, states(judge, passages_of(texts))).mean())
                for floor, texts in floors.items()
                if floor == SHUFFLED
            },
        )  # fmt: skip

    def scores(
        self, p_ND: npt.NDArray[np.float32], q_ND: npt.NDArray[np.float32], seeds: int | None = None
    ) -> npt.NDArray[np.float64]:
        """MAUVE by seed, [seeds]."""
        from mauve import compute_mauve

        return np.array(
            [
                compute_mauve(p_features=p_ND, q_features=q_ND, seed=seed, mauve_scaling_factor=self.scaling).mauve
                for seed in range(1, (seeds or self.seeds) + 1)
            ],
            dtype=np.float64,
        )

    def spread(
        self, value: float, p_ND: npt.NDArray[np.float32], q_ND: npt.NDArray[np.float32], each: int
    ) -> Estimate:
        """The figure with a standard error by leaving out groups of real texts and what was drawn for them, one seed
        each."""
        if self.groups < 2:
            return Estimate(value)
        group_P, group_Q = np.arange(len(p_ND)) % self.groups, np.arange(len(q_ND)) // each % self.groups
        without = [self.scores(p_ND[group_P != g], q_ND[group_Q != g], 1)[0] for g in range(self.groups)]
        return jackknife(value, np.asarray(without, dtype=np.float64))


@Metric.register("mauve")
class Mauve(Scored):
    """MAUVE (Pillutla et al. 2021, by their package mauve-text) of samples and real text, features from the judge."""

    needs = BESIDE | {"judge"}

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value."""
        require("mauve=mauve-text", what=f"metric {self.type_name}")
        return [self.value(self.type_name, evidence.judge, evidence.real, evidence.samples, evidence.calibration)]


@Metric.register("continuation_mauve")
class ContinuationMauve(Scored):
    """MAUVE of continued prompts and of the real texts that these were cut from, prompt included, by kind of prompt.

    Named ``continuation_mauve_k50`` (SEDD §5.3.2 and SDTT: 50 tokens given, 50 written, five of each prompt).
    """

    needs = frozenset({"continuations", "judge"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value for each kind of prompt."""
        require("mauve=mauve-text", what=f"metric {self.type_name}")
        return [
            self.value(
                f"{self.type_name}_{name}", evidence.judge, one.real, one.drawn, {SHUFFLED: shuffled_texts(one.real)},
                one.each,
            )
            for name, one in evidence.continuations.items()
        ]  # fmt: skip


def states(judge: Judge, passages: Sequence[Passage]) -> npt.NDArray[np.float32]:
    """The judge's states behind passages, [N, D]."""
    return np.stack([reading.state for reading in judge.read(passages)])
