"""Sessions of the command line in processes that are killed or hindered: forked, so that each begins at once.

A hindrance stands at the k-th change of a file under the project (audit events of opening for writing, renaming,
removing, …): the process dies there (as by kill -9 or a power cut), or the call fails as on a full or read-only disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.guard import CHANGING, WRITING
from workbench.cli.main import main

EVENTS = CHANGING | {"open", "shutil.rmtree", "shutil.copytree", "shutil.move"}


@dataclass(frozen=True)
class Ended:
    """How a session ended: exit status (negative: the signal), what it said, seconds it took."""

    status: int
    said: str
    seconds: float

    @property
    def in_words(self) -> bool:
        """Whether no traceback was shown."""
        return "Traceback (most recent call last)" not in self.said


@dataclass(frozen=True)
class Hindrance:
    """At the ``at``-th change of a file: what happens ("" nothing, "kill", or the name of an error number).

    ``lasting``: later changes fail too, as on a disk that stays full.
    """

    at: int = 0
    what: str = ""
    lasting: bool = False

    def install(self, project: Path) -> None:
        """Listen from now on; for the life of the process."""
        left, home = [self.at], os.path.realpath(project)

        def hear(event: str, args: tuple[Any, ...]) -> None:
            if event not in EVENTS or not isinstance(args[0], (str, bytes, os.PathLike)):
                return
            if event == "open" and not (isinstance(args[2], int) and args[2] & WRITING):
                return
            if not os.path.abspath(os.fsdecode(args[0])).startswith(home):
                return
            left[0] -= 1
            if left[0] == 0 or (self.lasting and left[0] < 0):
                if self.what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                number = getattr(errno, self.what)
                raise OSError(number, os.strerror(number), os.fsdecode(args[0]))

        if self.what:
            sys.addaudithook(hear)


def begin(words: list[str], project: Path, out: Path, prepare: Callable[[], object] = lambda: None) -> int:
    """Fork a session of a command in a project's folder; its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setpgid(0, 0)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(project)
        prepare()
        status = main(words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def end(child: int, out: Path, began: float, limit: float = 300.0) -> Ended:
    """Wait for a session; one that outlasts ``limit`` seconds is killed."""
    status = None
    while status is None:
        done, found = os.waitpid(child, os.WNOHANG)
        status = found if done else None
        if status is None and time.monotonic() - began > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):  # what it had started itself
        os.killpg(child, signal.SIGKILL)
    said = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), said, time.monotonic() - began)


def session(words: list[str], project: Path, out: Path, prepare: Callable[[], object] = lambda: None) -> Ended:
    """A session to its end."""
    return end(begin(words, project, out, prepare), out, time.monotonic())


def killed(words: list[str], project: Path, out: Path, rng: random.Random, usual: float) -> Ended:
    """A session killed by the clock, at a moment within what it usually takes."""
    began = time.monotonic()
    child = begin(words, project, out)
    time.sleep(rng.random() * usual)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return end(child, out, began)


def killed_when(words: list[str], project: Path, out: Path, seen: Callable[[], object]) -> Ended:
    """A session killed as soon as something is seen, or ended before."""
    began = time.monotonic()
    child = begin(words, project, out)
    while not seen() and Path(f"/proc/{child}/cmdline").read_bytes():  # a process that has ended has no words left
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return end(child, out, began)


def terminated(words: list[str], project: Path, out: Path, after: float, grace: float) -> Ended:
    """A session asked to end, and killed where it has not by the end of its grace."""
    began = time.monotonic()
    child = begin(words, project, out)
    time.sleep(after)
    os.kill(child, signal.SIGTERM)
    return end(child, out, began, limit=after + grace)


def capped(more: int) -> Callable[[], object]:
    """No more address space than now and ``more`` bytes."""
    from tests.faults.guard import cap_memory

    assert resource.RLIMIT_AS
    return lambda: cap_memory(more)
