"""Encoding chunks of documents, here or in processes, in order either way."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from workbench.core.plugins import load_plugin, plugin_file
from workbench.data.base import Ids, Tokenizer

HERE = 4
"""So many chunks are encoded in this process before others are started: a start takes seconds."""
_tokenizer: Tokenizer | None = None


def threads() -> int:
    """Worker processes that pay on this machine: none on two or three cores (the tokenizer's own threads fill
    them), else one less than the cores this process may use, at most 16 (one process reads for all)."""
    return min(16, cores() - 1) if cores() >= 4 else 0


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no such call
        return os.cpu_count() or 1


def encode_chunks(
    tokenizer: Tokenizer, batches: Iterator[list[str]], workers: int
) -> Iterator[tuple[list[str], list[Ids]]]:
    """(documents, their ids) of each batch, in order. With ``workers`` the later ones come from processes.

    Processes are spawned, so CUDA and threads of this one do no harm. Where they cannot start (a script
    without ``if __name__ == "__main__"``, a tokenizer that does not pickle), a warning says so and all is
    encoded here.
    """
    for number, batch in enumerate(batches, start=1):
        yield batch, tokenizer.encode_many(batch)
        if workers and number == HERE:
            break
    else:
        return
    try:
        state, plugin = pickle.dumps(tokenizer), plugin_file(type(tokenizer))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        warnings.warn(f"the tokenizer cannot go to other processes ({error}); encoding in this one", stacklevel=2)
        for batch in batches:
            yield batch, tokenizer.encode_many(batch)
        return
    waiting: deque[list[str]] = deque()  # given to the pool and not yielded yet
    try:
        yield from _in_processes(state, plugin, batches, workers, waiting)
    except BrokenProcessPool as error:
        warnings.warn(f"encoding processes died ({error}); encoding goes on in this one", stacklevel=2)
        for batch in itertools.chain(waiting, batches):
            yield batch, tokenizer.encode_many(batch)


def _in_processes(
    state: bytes, plugin: Path | None, batches: Iterator[list[str]], workers: int, waiting: deque[list[str]]
) -> Iterator[tuple[list[str], list[Ids]]]:
    """The batches in order, at most ``workers`` + 2 of them under way."""
    futures: deque[Future[list[Ids]]] = deque()
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(state, plugin)
    )
    try:
        for batch in batches:
            waiting.append(batch)
            futures.append(pool.submit(_encode, batch))
            if len(futures) > workers + 1:
                ids = futures.popleft().result()
                yield waiting.popleft(), ids
        while futures:
            ids = futures.popleft().result()
            yield waiting.popleft(), ids
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(state: bytes, plugin: Path | None) -> None:
    """In a worker: take the tokenizer, from a plug-in if need be; one thread each: the processes fill the cores."""
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if plugin is not None:
        load_plugin(plugin)
    _tokenizer = pickle.loads(state)


def _encode(batch: Sequence[str]) -> list[Ids]:
    assert _tokenizer is not None
    return _tokenizer.encode_many(batch)
