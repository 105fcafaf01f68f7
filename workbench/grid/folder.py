"""A grid's folder: which cells it has, who works on them, which failed and why, its page.

``grids/<name>-<hash8>/{grid.json, claims/, failed/, workers/, report.*}``. Figures stand in the run folders, where
other grids find them too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, write_json
from workbench.grid.cells import Cell, Option, Plan
from workbench.run import is_held, only_writer

DEATHS = 3
"""How often a cell may take its process's life before it counts as failed."""


class GridFolder:
    """The files of a grid."""

    def __init__(self, path: Path) -> None:
        """Nothing is made before `open`."""
        self.path = path
        self.claims, self.failed, self.workers = path / "claims", path / "failed", path / "workers"

    @classmethod
    def open(cls, planned: Plan, root: Path | str = "grids") -> GridFolder:
        """The folder of a grid: made, or the one it has.

        Raises:
            WorkbenchError: it cannot be made.
        """
        folder = cls(Path(root) / planned.folder_name)
        try:
            for path in (folder.claims, folder.failed, folder.workers):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"{folder.path} cannot be made ({error.strerror}); name a folder by --grids"
            raise WorkbenchError(why) from error
        write_json(folder.path / "grid.json", described(planned))
        return folder

    @contextmanager
    def claimed(self, cell: Cell, step: int = 0) -> Iterator[None]:
        """Have a cell in hand. ``step``: how far its run is.

        A claim whose process was killed is free and still says whose it was: a cell that takes the life of `DEATHS`
        processes at the same step is not tried again.

        Raises:
            InUse: another process has it.
            WorkbenchError: its processes keep being killed.
        """
        claim, tally = self.claims / cell.key, self.failed / f"{cell.key}.deaths"
        died = claim.exists() and claim.stat().st_size > 0
        with only_writer(claim, Path(cell.name)):
            try:
                deaths = _tallied(tally, step) + died
                if died:
                    write_json(tally, {"step": step, "deaths": deaths}, sync=False)
                if deaths >= DEATHS:
                    raise WorkbenchError(
                        f"the process that worked on it was killed {deaths} times (by `kill -9`, or by a machine that "
                        "ran out of memory: then take a smaller batch or fewer workers)"
                    )
                yield
            finally:
                os.truncate(claim, 0)

    def in_hand(self, cell: Cell) -> bool:
        """Whether some process has the cell in hand."""
        return is_held(self.claims / cell.key)

    def fail(self, cell: Cell, cause: str, trace: str = "") -> None:
        """Write down that a cell failed."""
        facts = {"cell": cell.name, "cause": cause, "trace": trace, "time": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(self.failed / f"{cell.key}.json", facts)

    def failure(self, cell: Cell) -> Mapping[str, Any] | None:
        """What a cell failed of: cause, trace, time; None where it has not. A record that cannot be read is none."""
        try:
            facts = read_json(self.failed / f"{cell.key}.json")
            return {**facts, "cause": str(facts["cause"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forgive(self, cells: tuple[Cell, ...]) -> None:
        """Let failed cells be tried again."""
        for cell in cells:
            (self.failed / f"{cell.key}.json").unlink(missing_ok=True)
            (self.failed / f"{cell.key}.deaths").unlink(missing_ok=True)


def _tallied(tally: Path, step: int) -> int:
    """Deaths so far; those before some progress was made do not count."""
    try:
        facts = read_json(tally)
        return int(facts["deaths"]) if facts["step"] == step else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def described(planned: Plan) -> dict[str, Any]:
    """A grid's cells as plain data."""
    return {
        "schema": 1,
        "name": planned.name,
        "file": str(planned.source),
        "hash": planned.hash,
        "cells": [
            {
                "key": cell.key,
                "name": cell.name,
                "labels": dict(cell.arm.labels),
                "baseline": cell.arm.baseline,
                "recipe": cell.resolved.hash,
                "measured": cell.resolved.measured,
                **({"tried": [_option(one) for one in cell.options]} if cell.options else {}),
            }
            for cell in planned.cells
        ],
    }


def _option(one: Option) -> dict[str, Any]:
    return {"values": dict(one.values), "recipe": one.resolved.hash, "measured": one.resolved.measured}
