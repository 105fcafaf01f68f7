"""One training by several processes of this machine: torchrun, which ends when whoever started it does.

``python -m workbench.launch.together WORDS`` is ``torchrun WORDS``, listening to its standard input for that end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from workbench import experiment
from workbench.core.errors import WorkbenchError
from workbench.core.loading import Resolved
from workbench.launch.local import end_with_parent
from workbench.run import RunFolder
from workbench.train.interrupt import Interrupted, Interrupts

POLL = 0.2
"""Seconds between looks at torchrun."""
TO_SAVE = 600
"""Seconds that processes have from a signal to their end, to finish what they are at and to save; torchrun's own 30
are short for a large network. What the environment says (TORCH_ELASTIC_SHUTDOWN_TIMEOUT) goes before."""
RESTARTS = 1
"""How often all processes start again from the last checkpoint where one of them ends: it may have been killed."""


def processes(resolved: Resolved) -> int:
    """How many processes train a recipe where nobody says so."""
    return int(resolved.data["train"]["parallel"]["processes"])


def by_several(resolved: Resolved) -> bool:
    """Whether processes are still to be started: its recipe says several, and this is none of torchrun's."""
    return processes(resolved) > 1 and "WORLD_SIZE" not in os.environ


def train(run: RunFolder, resolved: Resolved, cache: Path | str | None = None, quiet: bool = False) -> None:
    """Train a run to its end (`experiment.train`), by as many processes as its recipe says; in one of them by it alone.

    Raises:
        Interrupted: a signal came; everything is saved.
        WorkbenchError: anything a user can mend, with the remedy.
    """
    if not by_several(resolved):
        experiment.train(run, resolved, cache, quiet=quiet)
    elif not experiment.trained(run):
        _torchrun(run, processes(resolved), cache)


def command(count: int, module: str, *words: str, restarts: int = 0) -> list[str]:
    """What starts ``count`` processes of a Python module, each with the same words; its standard input is to be a pipe
    that stays open."""
    torchrun = ["--standalone", f"--nproc-per-node={count}", f"--max-restarts={restarts}"]
    return [sys.executable, "-m", "workbench.launch.together", *torchrun, "-m", module, *words]


def _torchrun(run: RunFolder, count: int, cache: Path | str | None) -> None:
    places = ["--cache", str(cache)] if cache is not None else []
    words = ["train", "--resume", str(run.path), "--no-eval", *places]
    environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(TO_SAVE), **os.environ}
    with Interrupts().caught() as interrupts:
        # a session of its own: a key that interrupts reaches this process alone, which asks torchrun to end
        started = command(count, "workbench", *words, restarts=RESTARTS)
        child = subprocess.Popen(started, stdin=subprocess.PIPE, start_new_session=True, env=environment)
        asked = False
        while child.poll() is None:
            if interrupts.number and not asked:
                child.terminate()
                asked = True
            time.sleep(POLL)
    if interrupts.number:
        words = f"stopped by a signal; go on with: workbench train --resume {run.path}"
        raise Interrupted(words, interrupts.number)
    if child.returncode or not experiment.trained(run):
        cause = run.read_status().get("error") or "they ended without a word; their output says more"
        raise WorkbenchError(f"{count} processes could not train {run.path}: {cause}")


def main() -> None:
    """torchrun, ended with its parent."""
    from torch.distributed.run import main as torchrun

    end_with_parent()
    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()
