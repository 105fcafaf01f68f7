"""Learning-rate schedules: a factor on every group's rate as a function of the step alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from workbench.core.bounds import Fraction, Natural
from workbench.core.part import Part


class Schedule(Part, ABC, kind="schedule"):
    """What the learning rate is multiplied by at each step. Pure: a resumed run needs nothing but the step."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """The factor of update number ``step`` (0 … ``steps`` − 1), ≥ 0."""


def ramp(step: int, warmup: int) -> float:
    """Linear warm-up: (step + 1) / warmup, at most 1; the first update already moves."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


@Schedule.register("warmup")
class Warmup(Schedule):
    """Linear warm-up, then constant: SEDD's schedule.

    Settings:
        warmup: updates of linear warm-up; 0 for none.
    """

    def __init__(self, warmup: Natural = 2500) -> None:
        """``warmup`` updates."""
        self.warmup = warmup

    def factor(self, step: int, steps: int) -> float:
        """min(1, (step + 1) / warmup)."""
        return ramp(step, self.warmup)


@Schedule.register("cosine")
class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to a last fraction (Loshchilov & Hutter 2017).

    Settings:
        warmup: updates of linear warm-up; 0 for none.
        end: the factor reached after the last update.
    """

    def __init__(self, warmup: Natural = 100, end: Fraction = 0.1) -> None:
        """``warmup`` updates up, the rest down to ``end``."""
        self.warmup, self.end = warmup, end

    def factor(self, step: int, steps: int) -> float:
        """Warm-up, then end + (1 − end) (1 + cos πp) / 2 with p the share of the rest that is done."""
        if step < self.warmup:
            return ramp(step, self.warmup)
        done = (step - self.warmup) / max(1, steps - self.warmup)
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@Schedule.register("wsd")
class WarmupStableDecay(Schedule):
    """Linear warm-up, constant, then a straight line down (WSD; ``decay: 1`` is linear-to-zero from the start).

    Settings:
        warmup: updates of linear warm-up; 0 for none.
        decay: share of all updates that the way down takes.
        end: the factor reached after the last update.
    """

    def __init__(self, warmup: Natural = 100, decay: Fraction = 0.2, end: Fraction = 0.0) -> None:
        """``warmup`` up, flat, then the last ``decay`` of the run down to ``end``."""
        self.warmup, self.decay, self.end = warmup, decay, end

    def factor(self, step: int, steps: int) -> float:
        """The lower of the warm-up line and the line down."""
        length = self.decay * steps
        left = (steps - step) / length if length else 1.0
        return min(ramp(step, self.warmup), self.end + (1 - self.end) * min(1.0, left))
