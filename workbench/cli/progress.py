"""Progress of packing and of evaluating: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workbench.train.progress import PLAIN_SECONDS, clock


@contextmanager
def evaluation_bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """``tell(what, share done)`` with the time left."""
    with _bars(title) as tell:
        yield tell


@contextmanager
def packing_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """``tell(stage, done, total)`` for work counted in documents."""
    with _bars("text") as tell:
        yield lambda stage, done, total: tell(stage, done / total if total else 0.0)


@contextmanager
def _bars(title: str) -> Iterator[Callable[[str, float], None]]:
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{title}: {what}", total=1.0)
            bar.update(tasks[what], completed=share)

        yield tell


class _Lines:
    """Plain lines on stderr, at most one in ten seconds."""

    def __init__(self, title: str) -> None:
        self.title, self.next = title, time.monotonic() + PLAIN_SECONDS
        self.began: dict[str, float] = {}

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        began = self.began.setdefault(what, now)
        if now < self.next:
            return
        self.next = now + PLAIN_SECONDS
        left = f", {clock((now - began) / share * (1 - share))} left" if share > 0 else ""
        print(f"{self.title}: {what} {share:.0%}{left}", file=sys.stderr, flush=True)
