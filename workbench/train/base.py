"""What the trainer is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

Figures = Mapping[str, "float | str | Sequence[str]"]
"""What an evaluator finds: numbers, and texts (one, or several)."""


class Windows(Protocol):
    """Batches of clean text: a pure function of the step."""

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(x0_BL, seq_B): the tokens of update number ``step`` and their global sequence numbers; of the sequences
        ``rows`` alone."""
        ...


class Folder(Protocol):
    """Where a run is kept (`workbench.run.RunFolder`)."""

    path: Path
    hash: str

    def mark(self, state: str, **facts: Any) -> None:
        """Write the run's status."""
        ...


@dataclass(frozen=True)
class Evaluator:
    """Something looked at while training: every ``every`` updates and after the last (0: only then).

    ``run(step, shell)`` is called without gradient, in evaluation mode, with the averaged weights in place and in
    the training's precision, on the first process alone. What it returns is logged as ``<name>/<key>``.
    """

    name: str
    every: int
    run: Callable[[int, nn.Module], Figures]

    def due(self, step: int, last: bool) -> bool:
        """Whether to run after ``step`` updates."""
        return last or (self.every > 0 and step % self.every == 0)


@dataclass(frozen=True)
class Outcome:
    """How training ended: updates, seconds and tokens over all sessions; ``reason`` it stopped ("" at the end).

    ``values``: the last logged value of each name.
    """

    step: int
    seconds: float
    tokens: int
    reason: str
    values: Mapping[str, float]
