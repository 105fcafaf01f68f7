"""Downstream tasks: what a run is asked, and what it answered item by item."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.core.bounds import Count, Natural
from workbench.core.part import Section


class Asking(Section):
    """Tasks of lm-evaluation-harness that a run is asked (docs/tasks.md says how it is scored).

    Settings:
        tasks: their names, as the harness knows them or as files of ``folder`` say.
        folder: a folder of task files, what ``workbench tasks prepare`` writes; "" takes the harness's own.
        limit: items of each task, the first ones; 0 takes all.
        scoring: ``suffix`` or ``full``.
        draws: noise draws an item, where the likelihood is a bound.
        batch: texts at a time.
    """

    immaterial = frozenset({"batch"})

    def __init__(
        self,
        tasks: Sequence[str],
        folder: str = "",
        limit: Natural = 0,
        scoring: Literal["suffix", "full"] = "suffix",
        draws: Count = 64,
        batch: Count = 32,
    ) -> None:
        """Keep the settings."""
        self.tasks, self.folder, self.limit = tuple(tasks), folder, limit
        self.scoring, self.draws, self.batch = scoring, draws, batch


@dataclass(frozen=True)
class Answered:
    """``right``: 1.0 for an item answered right, 0.0 for others; ``documents``: a digest of each; ``how``: in words."""

    right: Sequence[float]
    documents: Sequence[str]
    how: str = ""

    @property
    def key(self) -> str:
        """Digest of the items: figures of one key are compared in pairs."""
        return hashlib.sha256("\n".join(self.documents).encode()).hexdigest()[:16]
