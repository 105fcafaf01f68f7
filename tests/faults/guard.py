"""What hostile input must not do: take a traceback, long, much memory, run code, or write outside its folder.

`Guard.try_one` runs one input under a clock, counts how it ended, and keeps what must not be. What Python
reports of itself (audit events) tells of files, processes and connections; the hook stays for the life of the process
and is idle outside.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from workbench.core.errors import WorkbenchError, in_words

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
RUNNING = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "socket.connect"}
CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
ELSEWHERE = ("/dev/", "/proc/", os.path.join(tempfile.gettempdir(), "torchinductor_"))  # torch makes the last on import
OTHERS = ("git", "uname")
"""Programs that are run without asking: for the state of the source, in a folder of its own; by Python's platform."""


class TooLong(BaseException):
    """The clock of an input has run out: no handler of the code under test takes it."""


@dataclass
class Finding:
    """An input that did what it must not."""

    label: str
    why: str


_watching: list[tuple[str, list[str]]] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    home, seen = _watching[-1]
    if event in RUNNING and args[0] not in OTHERS:
        seen.append(f"{event} {args!r:.120}")
    elif event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        if isinstance(args[2], int) and args[2] & WRITING:
            _place(args[0], home, event, seen)
    elif event in CHANGING:
        for one in args[:2]:
            if isinstance(one, (str, bytes, os.PathLike)):
                _place(one, home, event, seen)


def _place(path: Any, home: str, event: str, seen: list[str]) -> None:
    place = os.path.realpath(os.fsdecode(path))
    if not place.startswith((home, *ELSEWHERE)):
        seen.append(f"{event} of {place}")


_hooked = threading.Event()


@contextmanager
def watched(home: Path) -> Iterator[list[str]]:
    """What was run, and what was written outside ``home``, while inside."""
    if not _hooked.is_set():
        sys.addaudithook(_hear)
        _hooked.set()
    seen: list[str] = []
    _watching.append((os.path.realpath(home), seen))
    try:
        yield seen
    finally:
        _watching.pop()


@dataclass
class Guard:
    """Counts of a kind of input. ``seconds`` and ``memory`` (bytes of growth) bound each one."""

    home: Path
    seconds: float = 20.0
    memory: int = 1 << 30
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)
    slowest: float = 0.0
    largest: int = 0

    def try_one(self, label: str, act: Callable[[], object]) -> str:
        """Run one input: "taken", "told" (in words for a user) or "finding"."""
        began, before = time.monotonic(), _resident(reset=True)
        outcome, why = "taken", ""
        self.said.seek(0)
        self.said.truncate()
        with watched(self.home) as seen:
            try:
                with _clock(self.seconds), redirect_stderr(self.said), redirect_stdout(self.said):
                    act()
            except WorkbenchError as error:
                outcome = "told"
                if not str(error).strip() or len(str(error)) > 60_000:
                    outcome, why = "finding", f"a message of {len(str(error))} characters"
            except OSError as error:
                outcome = "told" if in_words(error) else "finding"
            except TooLong:
                outcome, why = "finding", f"longer than {self.seconds:g} s"
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                outcome, why = "finding", f"{type(error).__name__}: {error!s:.200} ({last.filename}:{last.lineno})"
        if seen:
            outcome, why = "finding", "; ".join(seen[:3])
        grown = _resident() - before
        if grown > self.memory:
            outcome, why = "finding", f"{grown >> 20} MB more memory"
        self.slowest, self.largest = max(self.slowest, time.monotonic() - began), max(self.largest, grown)
        self.counts[outcome] += 1
        if why or outcome == "finding":
            self.findings.append(Finding(label, why))
        return outcome


@contextmanager
def _clock(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _resident(reset: bool = False) -> int:
    """Bytes: the most that was resident since the last reset (Linux), else in the life of the process."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def cap_memory(more: int) -> None:
    """No more address space than now and ``more`` bytes: an allocation beyond fails instead of filling the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
