"""Streams that are one, and CUDA graphs that are lists of operations: what `torch.cuda` has of both in Python."""

from __future__ import annotations

import contextlib

from tests.emulated.device import WAITS


class Stream:
    """An order of work; all work is done at once."""

    def __init__(self, device=None, priority=0) -> None:
        """As torch's."""

    def wait_stream(self, stream: Stream) -> None:
        """There is nothing to wait for."""

    def synchronize(self) -> None:
        """The host asks for it."""
        WAITS.add("synchronize")


class _Now:
    stream = Stream()


class CUDAGraph:
    """What was done inside `graph`, to be done again on the same tensors."""

    def replay(self) -> None:
        """All of it, in order."""
        self.operations.again()


@contextlib.contextmanager
def stream(wished: Stream):
    """The stream in use inside."""
    before, _Now.stream = _Now.stream, wished
    try:
        yield
    finally:
        _Now.stream = before


@contextlib.contextmanager
def graph(made: CUDAGraph, pool=None, wished: Stream | None = None, capture_error_mode: str = "global"):
    """Capture. The host may not wait inside, and nothing is computed: what came out is overwritten at the end."""
    from tests.kernels.tape import Operations

    refused = WAITS.forbidden("operation not permitted when stream is capturing")
    with stream(wished or _Now.stream), refused, Operations() as made.operations:
        yield
    *_, wrote = made.operations.seen[-1]
    wrote.fill_(float("nan"))


def install(torch) -> None:
    """In the place of torch's, which ask C++."""
    torch.cuda.Stream, torch.cuda.CUDAGraph = Stream, CUDAGraph
    torch.cuda.stream, torch.cuda.graph = stream, graph
    torch.cuda.current_stream = lambda device=None: _Now.stream
    torch.cuda.set_stream = lambda wished: setattr(_Now, "stream", wished)
    torch.cuda.graph_pool_handle = lambda: (0, 1)
    torch.cuda.device = lambda device: contextlib.nullcontext()
