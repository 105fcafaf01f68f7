"""Batches prepared ahead on the host, in order, by one thread; without it, the same batches in the same order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(make: Callable[[int], T], start: int, stop: int, depth: int) -> Iterator[Iterator[tuple[int, T]]]:
    """Iterate over (step, ``make(step)``) for steps ``start`` … ``stop`` − 1, up to ``depth`` made ahead.

    ``make`` must be a pure function of the step: then ``depth`` changes only the time taken. ``depth`` 0 makes each
    when asked. What ``make`` raises is raised where the item is asked for. The thread ends with the context.
    """
    if depth == 0:
        yield ((step, make(step)) for step in range(start, stop))
        return
    made: queue.Queue[tuple[int, T] | BaseException | None] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: tuple[int, T] | BaseException | None) -> bool:
        while not ended.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in range(start, stop):
                if not put((step, make(step))):
                    return
            put(None)
        except BaseException as error:  # handed over, whatever it is: the loop must not wait for ever
            put(error)

    def take() -> Iterator[tuple[int, T]]:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        ended.set()
        thread.join()
