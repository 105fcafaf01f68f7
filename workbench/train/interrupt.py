"""SIGTERM and SIGINT as a request: finish the step, save, say how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from workbench.core.errors import WorkbenchError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(WorkbenchError):
    """Training was asked to stop, and has saved. ``exit_code`` is the shell's convention: 128 + the signal."""

    def __init__(self, message: str, number: int) -> None:
        """``number``: the signal's."""
        super().__init__(message)
        self.exit_code = 128 + number


class Break(BaseException):
    """Raised inside ``breakable`` code when a signal arrives; never leaves the trainer."""


class Interrupts:
    """Which signal has arrived (0: none). A second one has its usual effect."""

    def __init__(self, once: bool = False) -> None:
        """Nothing has arrived. ``once``: further ones are ignored, for a launcher forwards what a scheduler has sent to
        all of its processes already."""
        self.number, self.once = 0, once
        self._breakable = False

    @contextmanager
    def caught(self) -> Iterator[Interrupts]:
        """Listen while inside. Signals reach the main thread only: elsewhere this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before: dict[signal.Signals, Any] = {number: signal.signal(number, self._arrive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Code that may be broken off at any point (an evaluation): a signal raises ``Break`` in it at once."""
        self._breakable = True
        try:
            if self.number:
                raise Break
            yield
        finally:
            self._breakable = False

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for each in SIGNALS:
            usual = signal.SIG_DFL if each is signal.SIGTERM else signal.default_int_handler
            signal.signal(each, signal.SIG_IGN if self.once else usual)
        if self._breakable:
            raise Break
