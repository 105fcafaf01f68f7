"""What a CUDA graph does, done on a CPU: operations with the very tensors that they read and wrote, done again.

Where a recorded operation wrote, its replay writes again; where it read, a replay reads what stands there now. So a
recording is as blind as a graph to new inputs, and keeps the casts of weights that it was made with.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operations(TorchDispatchMode):
    """Notes the operations inside, with the tensors that they read and wrote; ``again`` does them again."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def again(self):
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):  # it is among the operations
            for func, args, kwargs, wrote in self.seen:
                read = {one.untyped_storage()._cdata for one in _tensors((args, kwargs))}
                for old, new in zip(_tensors(wrote), _tensors(func(*args, **kwargs)), strict=True):
                    if old.untyped_storage()._cdata not in read:  # neither a view nor written in place
                        old.copy_(new)


class Tape:
    """A recorder; ``records`` and ``replays`` count."""

    def __init__(self):
        self.records = self.replays = 0

    def record(self, call):
        call()
        with Operations() as operations:
            out = call()
        self.records += 1
        out.fill_(float("nan"))  # capturing computes nothing

        def replay():
            self.replays += 1
            operations.again()
            return out

        return replay

    def wait(self):
        pass


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
