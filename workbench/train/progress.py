"""How far training is: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

PLAIN_SECONDS = 10.0


class Display(Protocol):
    """What the trainer tells a reader."""

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """``step`` updates are done; ``values`` as last logged."""
        ...

    def say(self, text: str) -> None:
        """A line of text."""
        ...


class Silent:
    """Shows nothing: other processes than the first, tests."""

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class Plain:
    """Lines on stderr, at most one in ten seconds besides those that ``say`` something."""

    def __init__(self, title: str, start: int, steps: int) -> None:
        """``steps`` in all, of which ``start`` are done."""
        self.title, self.start, self.steps = title, start, steps
        self.began = time.monotonic()
        self._next = self.began

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """A line, if the last one is ten seconds old or the last update is done."""
        now = time.monotonic()
        if now < self._next and step < self.steps:
            return
        self._next = now + PLAIN_SECONDS
        left = (now - self.began) / max(1, step - self.start) * (self.steps - step)
        parts = (f"{step}/{self.steps}", summary(values), f"{clock(left)} left")
        self.say(" · ".join(part for part in parts if part))

    def say(self, text: str) -> None:
        """A line."""
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)


class Bar:
    """A bar with the time left, by rich."""

    def __init__(self, title: str, start: int, steps: int) -> None:
        """``steps`` in all, of which ``start`` are done."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        left = Left(elapsed_when_finished=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            left,
        )
        self.bar = Progress(*columns, TextColumn("[dim]{task.fields[figures]}"), console=Console(stderr=True))
        self.task = self.bar.add_task(title, total=steps, completed=start, figures="")

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step, figures=summary(values))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.bar.console.print(text, markup=False, highlight=False)


@contextmanager
def display(title: str, start: int, steps: int, quiet: bool = False) -> Iterator[Display]:
    """The display that fits where stderr goes."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        bar = Bar(title, start, steps)
        with bar.bar:
            yield bar
    else:
        yield Plain(title, start, steps)


def summary(values: Mapping[str, float]) -> str:
    """The figures that a line has room for."""
    parts = []
    if "train/loss_nats_per_token" in values:
        parts.append(f"loss {values['train/loss_nats_per_token']:.4g} nats/token")
    if "train/bits_per_byte" in values:
        parts.append(f"{values['train/bits_per_byte']:.4g} bits/byte")
    if "train/tokens_per_second" in values:
        parts.append(f"{values['train/tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
