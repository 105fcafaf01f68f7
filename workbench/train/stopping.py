"""Why training stops before its last step: a signal has come, or its time is over. Several processes agree on it."""

from __future__ import annotations

import time

from workbench.train.interrupt import Interrupts
from workbench.train.parallel import Parallel

SIGNAL = "a signal"
TIME_IS_UP = 1000
"""A reason to stop besides the numbers of signals."""
EVERY = 5.0
"""Seconds between agreements of several processes, about."""


class Stopping:
    """Asked after every update. Several processes agree after as many updates as take about `EVERY` seconds.

    Each learns at one agreement after how many updates the next one is, so that nobody asks anybody in between.
    """

    def __init__(self, minutes: float, interrupts: Interrupts, parallel: Parallel) -> None:
        """``minutes``: the time there is; 0 for no end."""
        self.minutes, self.interrupts, self.parallel = minutes, interrupts, parallel
        self._updates, self._next, self._agreed = 0, 0, 0.0

    def reason(self, step: int, seconds: float) -> str:
        """Why to stop after ``step`` updates and ``seconds`` of training; "" for no reason."""
        if step < self._next:
            return ""
        spent = self.minutes > 0 and seconds >= 60 * self.minutes
        code = self.parallel.any(self.interrupts.number or TIME_IS_UP * spent)
        if self.parallel.world > 1:
            self._plan(step)
        if code == TIME_IS_UP:
            return f"train.minutes: {self.minutes:g} minutes are over"
        if code:  # only then: a signal may have come since it was read
            self.interrupts.number = code
        return SIGNAL if code else ""

    def _plan(self, step: int) -> None:
        """Agree on the next agreement: twice as many updates on at most, for a GPU's first ones seem fast."""
        now = time.monotonic()
        fitting = int(self._updates * EVERY / max(now - self._agreed, 1e-9))
        self._updates = max(1, self.parallel.any(min(2 * self._updates, fitting)))
        self._next, self._agreed = step + self._updates, now
