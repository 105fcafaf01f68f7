"""What records a pass on a device, and what a pass reads that it does not make.

A recording (a CUDA graph) holds kernels with the addresses that they read and write, no values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Call = Callable[[], Tensor]


class Recorder(Protocol):
    """Records what a call does on a device."""

    def record(self, call: Call) -> Call:
        """What does the same again on the same tensors: its output is one tensor, written over each time."""

    def wait(self) -> None:
        """Until the device has done what it was given."""


class CudaGraphs:
    """Records CUDA graphs, which share their working memory: they are replayed one after another on one stream."""

    def __init__(self, device: torch.device) -> None:
        """``device``: a CUDA device."""
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)

    def record(self, call: Call) -> Call:
        """Warm up on a stream aside, then capture there; whatever fails, the stream in use is as before."""
        with torch.cuda.device(self.device):
            before = torch.cuda.current_stream()
            try:
                self.stream.wait_stream(before)
                with torch.cuda.stream(self.stream):
                    call()  # libraries allocate at their first use on a stream, which a capture may not
                before.wait_stream(self.stream)
                graph = torch.cuda.CUDAGraph()
                # other threads (batches are pinned while evaluations run) may go on meanwhile
                with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                    out = call()
            finally:
                torch.cuda.set_stream(before)  # a capture that fails at its end leaves its own stream in use

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    def wait(self) -> None:
        """See the protocol."""
        torch.cuda.synchronize(self.device)


class Reads(TorchDispatchMode):
    """What operations inside read and did not make: weights, casts of them, tables that caches keep."""

    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code runs compiled, and keeps what it reads itself."""
        return True

    def __init__(self) -> None:
        """Nothing is read yet."""
        super().__init__()
        self.kept: dict[int, torch.UntypedStorage] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Note storages, change nothing."""
        out = func(*args, **(kwargs or {}))
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._made:
                self.kept.setdefault(storage._cdata, storage)
        self._made.update(one._cdata for one in _storages(out) if one._cdata not in self.kept)
        return out


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
