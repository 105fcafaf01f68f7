"""The contract of a launcher: have processes work on a grid's cells, and say when they have done what they can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.core.part import Part
from workbench.grid.folder import GridFolder


@dataclass(frozen=True)
class Job:
    """What is to be run.

    ``name``: the grid's; ``folder``: where claims and logs are; ``command``: words after ``workbench`` that make a
    worker; ``due``: how many cells are left; ``watch``: looks how things stand, tells the user, and says whether
    anything is left to do. ``processes``: the most that a cell's training takes: a worker needs as many GPUs.
    """

    name: str
    folder: GridFolder
    command: Sequence[str]
    due: int
    watch: Callable[[], bool]
    processes: int = 1


class Launcher(Part, ABC, kind="launcher"):
    """Where the workers of a grid run. They share cells by locks, so that any number of them may come and go."""

    @abstractmethod
    def run(self, job: Job) -> str:
        """Start workers, and wait for them unless they go on by themselves; what to tell the user at the end.

        Raises:
            WorkbenchError: they cannot be started, with the remedy.
        """
