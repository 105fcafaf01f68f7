"""One way to choose among implementations of an operation: what fits here, what was picked, and why.

A dispatcher holds candidates in order of preference. ``pick("auto")`` takes the first that is available; a name
takes that one or fails with the remedy. What was picked is remembered for the run's log (``report``).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from workbench.core.errors import WorkbenchError
from workbench.core.part import did_you_mean

DISPATCHERS: list[Dispatcher] = []
"""Every dispatcher made, in order of creation."""
CANNOT = "cannot run here"
"""The verdict of a survey on what is not available."""


_assumed: list[str] = []
"""Devices of `assuming`, the innermost last."""


@contextmanager
def assuming(device: str) -> Iterator[None]:
    """Everything is picked as on ``device``, wherever tensors lie, and what cannot run here is replaced by what can: a
    network is costed for another machine."""
    _assumed.append(device)
    try:
        yield
    finally:
        _assumed.pop()


def usable(**where: Any) -> str | None:
    """An ``available`` for candidates that run everywhere: no reason against."""
    return None


def absent(package: str, module: str, device: str, dtype: torch.dtype) -> str | None:
    """Why an optional package's CUDA kernels cannot be used: not installed, another device or type, does not import."""
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        return f"{package} is not installed"
    if device != "cuda":
        return f"it computes on CUDA only, not on {device}"
    if dtype == torch.float64:
        return "it has no float64"
    return _does_not_import(module)


@functools.cache
def _does_not_import(module: str) -> str | None:
    """An installed package may still lack what it was compiled against; asked once."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{module} does not import ({type(error).__name__}: {error!s:.120})"
    return None


@dataclass(frozen=True)
class Candidate:
    """One implementation.

    ``available(**where)``: None where it can run, else the reason why not; ``where`` is what the caller of
    ``pick`` knows (device, dtype, …). ``advisable(**where)``: the same for whether "auto" should take it there.
    ``why``: what speaks for it. ``extra``: the optional dependency group that brings it.
    """

    name: str
    implementation: Callable[..., Any]
    why: str
    available: Callable[..., str | None] = usable
    advisable: Callable[..., str | None] = usable
    extra: str = ""


class Dispatcher:
    """The implementations of one operation and the memory of what was picked.

    Picks are kept by ``key``: the same question is answered from a dictionary, without importing or asking again.
    """

    def __init__(
        self, operation: str, candidates: Sequence[Candidate], typical: Mapping[str, Any] | None = None
    ) -> None:
        """``candidates``: in order of preference under "auto"; the last should run everywhere.

        ``typical``: facts beside device and type with which a survey asks.
        """
        self.operation, self.typical = operation, typical or {}
        self.candidates = {candidate.name: candidate for candidate in candidates}
        self._picked: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._log: dict[tuple[str, str], str] = {}
        DISPATCHERS.append(self)

    def pick(self, asked: str = "auto", **where: Any) -> tuple[Callable[..., Any], str]:
        """(implementation, why). ``where``: hashable facts that decide, handed to ``available``.

        Raises:
            WorkbenchError: the asked one is unknown or cannot run here, with the reason and what to install.
        """
        name, why = self.choose(asked, **where)
        return self.candidates[name].implementation, why

    def choose(self, asked: str = "auto", **where: Any) -> tuple[str, str]:
        """(name, why) of what ``pick`` picks, remembered.

        Raises:
            WorkbenchError: as ``pick``.
        """
        if _assumed:
            return self._choose(asked, {**where, "device": _assumed[-1]})
        key = (asked, *where.values())
        found = self._picked.get(key)
        if found is None:
            found = self._picked[key] = self._choose(asked, where)
            self._log[found] = asked
        return found

    # Asked once while tracing, not traced: the answer does not change. This is all that torch.compiler's
    # assume_constant_result does, which would import the compiler (seconds) wherever a kernel is imported.
    choose._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def picked(self) -> list[dict[str, str]]:
        """What has been picked so far: operation, asked, picked, why."""
        return [
            {"operation": self.operation, "asked": asked, "picked": name, "why": why}
            for (name, why), asked in self._log.items()
        ]

    def survey(self, device: str, dtype: torch.dtype) -> list[tuple[str, str, str]]:
        """(candidate, whether "auto" takes it, why or why not) on a device; nothing is remembered."""
        where = {"device": device, "dtype": dtype, **self.typical}
        taken, _ = self._choose("auto", where)
        rows = []
        for name, candidate in self.candidates.items():
            against = candidate.available(**where)
            verdict = "auto" if name == taken else CANNOT if against else "by name"
            rows.append((name, verdict, against or candidate.advisable(**where) or candidate.why))
        return rows

    def forget(self) -> None:
        """Drop what was picked (a new run in the same process, a test)."""
        self._picked.clear()
        self._log.clear()

    def _choose(self, asked: str, where: dict[str, Any]) -> tuple[str, str]:
        if asked != "auto":
            if asked not in self.candidates:
                raise WorkbenchError(
                    f"{self.operation}: no implementation {asked!r}.{did_you_mean(asked, ['auto', *self.candidates])}"
                )
            reason = self.candidates[asked].available(**where)
            if reason is not None and (_assumed or where.get("device") == "meta"):
                return self._choose("auto", where)  # nothing is computed there: a recipe for a GPU is costed anywhere
            if reason is not None:
                raise WorkbenchError(self._refusal(self.candidates[asked], reason))
            return asked, "asked for"
        refused: list[str] = []
        for candidate in self.candidates.values():
            reason = candidate.available(**where) or candidate.advisable(**where)
            if reason is None:
                passed = f" (not {'; not '.join(refused)})" if refused else ""
                return candidate.name, candidate.why + passed
            refused.append(f"{candidate.name}: {reason}")
        raise WorkbenchError(f"{self.operation}: nothing can run here: {'; '.join(refused)}")

    def _refusal(self, candidate: Candidate, reason: str) -> str:
        brings = f'pip install "sedd-workbench[{candidate.extra}]" brings it; or' if candidate.extra else "Or"
        return f"{self.operation}: {candidate.name!r} cannot run here: {reason}. {brings} ask for 'auto'."


def report() -> list[dict[str, str]]:
    """What every dispatcher has picked so far, for the run's log: operation, asked, picked, why."""
    return [row for dispatcher in DISPATCHERS for row in dispatcher.picked()]
