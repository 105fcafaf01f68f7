"""Evaluators at work: on the averaged weights, logged by name, the best one remembered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import nn

from workbench.core.errors import WorkbenchError
from workbench.train.base import Evaluator, Figures
from workbench.train.interrupt import Break, Interrupts
from workbench.train.log import Log, NoLog


class Evaluations:
    """A run's evaluators, and which figure of theirs was best."""

    def __init__(self, evaluators: Sequence[Evaluator], best: str, interrupts: Interrupts, breakable: bool) -> None:
        """``best``: the figure whose lowest value is remembered ("" for none). ``breakable``: by a signal.

        Raises:
            WorkbenchError: two evaluators of one name, or ``best`` names none of them.
        """
        names = [evaluator.name for evaluator in evaluators]
        for name in names:
            if names.count(name) > 1:
                raise WorkbenchError(f"two evaluators are called {name!r}; give each its own name")
        if best and best.rpartition("/")[0] not in names:
            raise WorkbenchError(
                f"train.best: {best!r} is no figure of an evaluation; write <evaluation>/<figure>, "
                f"the evaluations are: {', '.join(names) or 'none'}"
            )
        self.evaluators, self.figure = tuple(evaluators), best
        self.best: dict[str, Any] | None = None
        self.broken = False
        self._interrupts, self._breakable = interrupts, breakable

    def due(self, step: int, last: bool) -> list[Evaluator]:
        """Those to run after ``step`` updates."""
        return [evaluator for evaluator in self.evaluators if step and evaluator.due(step, last)]

    def run(
        self,
        due: Sequence[Evaluator],
        step: int,
        shell: nn.Module,
        precision: AbstractContextManager[Any],
        log: Log | NoLog,
        seconds: float,
        tokens: int,
    ) -> bool:
        """Run evaluators and log what they find; whether the figure of ``best`` has improved.

        ``shell``: what `workbench.train.sharing.Shared.looking` shows.

        A signal breaks an evaluation off, and ``broken`` says so (several processes wait for its end instead,
        since the others do).

        Raises:
            WorkbenchError: the evaluation that ``best`` names gives no such figure.
        """
        found: dict[str, float] = {}
        with precision:
            for evaluator in due:
                try:
                    with self._interrupts.breakable() if self._breakable else ExitStack():
                        figures = evaluator.run(step, shell)
                except Break:
                    self.broken = True
                    break
                values, texts = sort(evaluator.name, figures)
                log.write(step, seconds, tokens, values, texts=texts)
                found.update(values)
                if self.figure.rpartition("/")[0] == evaluator.name and self.figure not in values:
                    raise WorkbenchError(
                        f"train.best: {self.figure!r} is not among what the evaluation gives: {', '.join(values)}"
                    )
        if self.figure not in found or (self.best and not found[self.figure] < self.best["value"]):
            return False
        self.best = {"figure": self.figure, "value": found[self.figure], "step": step}
        return True


def sort(name: str, figures: Figures) -> tuple[dict[str, float], dict[str, list[str]]]:
    """(numbers, texts) of an evaluator, each under ``<name>/<key>``."""
    values: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    for key, figure in figures.items():
        if isinstance(figure, str):
            texts[f"{name}/{key}"] = [figure]
        elif isinstance(figure, Sequence):
            texts[f"{name}/{key}"] = list(figure)
        else:
            values[f"{name}/{key}"] = float(figure)
    return values, texts
