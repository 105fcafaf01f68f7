"""Timed draws: how long a batch takes from an empty canvas to its texts, after a warm-up, several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.core.bounds import Count
from workbench.core.part import Section


class Timing(Section):
    """Draws that are timed, one batch after another, each after one that is not.

    Settings:
        batches: sizes of batches, each timed by itself.
        repeats: timed draws of each; the figure is their median.
    """

    def __init__(self, batches: Sequence[Count] = (1,), repeats: Count = 5) -> None:
        """Keep the settings."""
        self.batches, self.repeats = tuple(batches), repeats


@dataclass(frozen=True)
class Timed:
    """Draws of ``batch`` sequences of ``length`` tokens: ``seconds`` of each, ``calls`` of the network in one.

    ``how`` and ``device`` in words; ``machine``: its name, by which seconds are told apart.
    """

    batch: int
    length: int
    seconds: Sequence[float]
    calls: float
    how: str = ""
    device: str = ""
    machine: str = ""
