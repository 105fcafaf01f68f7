"""Starts that fail: a run folder that was made for one and holds nothing yet does not stay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from workbench.run import RunError, RunFolder
from workbench.train.interrupt import Interrupted
from workbench.train.parallel import Parallel

MADE = frozenset({"status", "resolved.yaml", "env.json", "plugins", "lock"})
"""What stands in a run's folder before any text is packed for it."""


@contextmanager
def dropped_unless_begun(run: RunFolder, made: bool) -> Iterator[None]:
    """Remove a run's folder where what is done inside fails before its text is packed.

    ``made``: whether this call made the folder; what was there before stays. So does a folder that another process is
    at, and one of a start that was interrupted: the same command, or ``--resume``, goes on with it.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        if made:
            with suppress(RunError, OSError), run.locked():  # this error is the one to be read
                if run.read_status()["state"] == "created" and MADE.issuperset(one.name for one in run.path.iterdir()):
                    shutil.rmtree(run.path)
        raise


@contextmanager
def held(run: RunFolder, parallel: Parallel, tidy: bool) -> Iterator[None]:
    """Be the only training at a run: the first of these processes locks it. ``tidy``: a folder that one of them made is
    `dropped_unless_begun`.

    Raises:
        InUse: another training is at it.
    """
    made = tidy and bool(parallel.any(int(run.made)))  # by whichever process came first; all have it from here on
    if not parallel.lead:
        yield
        return
    with dropped_unless_begun(run, made), run.locked():
        yield
