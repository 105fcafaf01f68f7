"""The contract of a benchmark: one piece of work, done in several ways, of which one is the yardstick."""

from __future__ import annotations

import operator
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from workbench.core.machines import cpu_name
from workbench.core.part import Part
from workbench.train.machine import MEBI, peak_resident_mb, settle

Row = Mapping[str, Any]
"""A line of a benchmark's table: ``case``, ``way``, and numbers by name."""
COMMON = ("case", "way", "seconds", "ratio", "peak_mb", "memory", "runs", "wanted", "met", "missed")
"""What every row may hold; other names are a benchmark's own columns."""
PRODUCTS = 11
"""Products of matrices timed for their rate."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of a way: at least this ratio to the time of the way it is ``beside`` ("": the yardstick), at most
    this share of its memory, at most these seconds, at least this share of the rate at which the machine multiplies
    matrices (the row's ``of_matmul``). ``device`` and ``case``: where ("" for everywhere); a case may be given by its
    beginning."""

    way: str
    ratio: float | None = None
    memory: float | None = None
    seconds: float | None = None
    of_matmul: float | None = None
    case: str = ""
    device: str = "cpu"
    beside: str = ""

    def __str__(self) -> str:
        """``cuda, analytic, batch 1: ≥ 2×``."""
        return f"{', '.join(one for one in (self.device, self.way, self.case) if one)}: {self.in_words()}"

    def in_words(self) -> str:
        """``≥ 4×, ≤ 0.33 of its memory``, and beside what, if not beside the yardstick."""
        told = [
            f"≥ {self.ratio:g}×" if self.ratio is not None else "",
            f"≤ {self.memory:.2g} of its memory" if self.memory is not None else "",
            f"< {self.seconds:g} s" if self.seconds is not None else "",
        ]
        words = ", ".join(one for one in told if one) + (f" beside {self.beside}" if self.beside else "")
        share = f"≥ {self.of_matmul:.0%} of the matmul rate" if self.of_matmul is not None else ""
        return ", ".join(one for one in (words, share) if one)

    def met(self, row: Row) -> bool:
        """Whether a row, its ``ratio`` and ``memory`` beside the goal's way, is as wanted; what was not measured is
        not."""
        return not self.missed(row)

    def missed(self, row: Row) -> list[str]:
        """What was found where it is not what is wanted, in words: ``1.84×``, ``0.41 of its memory``."""
        ratio, memory, share = (row.get(name) for name in ("ratio", "memory", "of_matmul"))
        seconds = row["seconds"]
        judged = [
            (self.ratio, ratio, operator.ge, "{:.3g}×", "ratio"),
            (self.memory, memory, operator.le, "{:.2f} of its memory", "memory"),
            (self.seconds, seconds, operator.lt, "{:.3g} s", "time"),
            (self.of_matmul, share, operator.ge, "{:.1%} of the matmul rate", "matmul rate"),
        ]
        return [
            form.format(found) if found is not None else f"{name} not measured"
            for wanted, found, fits, form, name in judged
            if wanted is not None and (found is None or not fits(found, wanted))
        ]


class Absent(Exception):
    """A way cannot be measured here (a package, a corpus or a device is absent); the message says why."""


@dataclass
class Meter:
    """Where a measurement is made, and what it is made with."""

    device: str = "cpu"
    threads: int = 0
    precision: str = "fp32"
    _base: float = field(default=0.0, repr=False)

    def settle(self, kept: bool = True) -> None:
        """Set threads and denormals; ``kept``: keep freed memory too, as training does (`keep_memory`)."""
        settle(self.threads, kept)

    def autocast(self, low: bool) -> torch.autocast:
        """bfloat16 autocast on the device, if ``low``."""
        return torch.autocast(self.device, torch.bfloat16, enabled=low)

    def begin(self) -> None:
        """Everything is loaded and built: what memory is taken from here on counts; on CUDA what tensors hold by now
        does too, and what they held meanwhile does not."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._base = self._peak()

    def seconds(self, call: Callable[[], object], repeats: int, warm: int = 1) -> float:
        """Median wall clock of ``call`` after ``warm`` calls that do not count."""
        found = []
        for _ in range(repeats + warm):
            with self.timed() as took:
                call()
            found.append(took[0])
        return statistics.median(found[warm:])

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """Seconds of what is done inside, the device's work included: the one entry, once it is over."""
        took: list[float] = []
        self.wait()
        began = time.perf_counter()
        yield took
        self.wait()
        took.append(time.perf_counter() - began)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_mb(self) -> float:
        """Peak memory since ``begin``, MB: of all tensors on CUDA, else the growth of the resident set."""
        return max(0.0, self._peak() - self._base)

    def matmul_rate(self, side: int, low: bool) -> float:
        """FLOPs a second of products of two square matrices, in bfloat16 if ``low``, else in float32: the median."""
        kind = torch.bfloat16 if low else torch.float32
        left, right = torch.randn(2, side, side, device=self.device, dtype=kind)
        with torch.no_grad():
            return 2 * side**3 / self.seconds(lambda: left @ right, PRODUCTS, warm=3)

    def processor(self) -> str:
        """The GPU's name, or the processor's."""
        return torch.cuda.get_device_name() if self.device == "cuda" else cpu_name()

    def _peak(self) -> float:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / MEBI
        return peak_resident_mb()


class Benchmark(Part, ABC, kind="benchmark"):
    """One piece of work, measured in several ways and cases; each (way, case) in a process of its own.

    ``ways``: names, the yardstick's among them (none: figures stand by themselves); a benchmark whose settings name its
    ways sets its own. ``besides``: other ways that ratios are told to, in a column each. ``goals``: what is wanted,
    beside the yardstick or one of those. ``devices``: by device, settings that hold there where nothing else is said.
    ``example()`` are toy sizes, at which it runs in seconds (``--quick``, the tests).
    """

    yardstick: ClassVar[str] = ""
    ways: tuple[str, ...]
    besides: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    devices: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def sizes(cls, device: str) -> dict[str, Any]:
        """Settings on ``device`` where nothing else is said: what tells something there. Others are the defaults."""
        return dict(cls.devices.get(device, {}))

    @abstractmethod
    def cases(self, way: str) -> Sequence[str]:
        """The cases that a way is measured at, in order; the yardstick's are all."""

    @abstractmethod
    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """``seconds`` of the work done this way, ``peak_mb`` where that tells something, and columns of its own.

        Raises:
            Absent: this way cannot be measured here.
        """

    def notes(self, rows: Sequence[Row]) -> Sequence[str]:
        """Lines beneath the table: what is read from it."""
        return ()

    def draw(self, rows: Sequence[Row], folder: Path, stem: str) -> None:
        """Write figures into a folder, where there are any."""
