"""What autograd keeps of a network between a forward and its backward pass: counted on tensors without storage.

The forward pass is run on fake tensors (shapes, types and strides, no numbers) under the autocast of the training,
with the kernels that it would take on its device, compiled where the training compiles. Of packages' own kernels, which
cannot run so, the forms in PyTorch stand in.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.base import Backbone
from workbench.kernels import dispatch
from workbench.train.learner import compile_blocks
from workbench.train.recompute import recompute_blocks


@dataclass(frozen=True)
class Setting:
    """Where and how a network is trained: ``device`` ("cpu" or "cuda"), ``low``: products in bfloat16, ``compiled``:
    its blocks are compiled."""

    device: str = "cpu"
    low: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        """``cuda, bf16, compiled blocks``."""
        return f"{self.device}, {'bf16' if self.low else 'fp32'}{', compiled blocks' * self.compiled}"


class Kept(NamedTuple):
    """Bytes that a batch takes of a network beside its parameters and their gradients: what autograd keeps ``between``
    the forward and the backward pass, and the most that the backward pass holds ``beyond`` that.
    """

    between: int
    beyond: int


def kept(
    make: Callable[[], Backbone], batch: int, length: int, setting: Setting, every: int = 0, backward: bool = True
) -> Kept:
    """What is kept of a batch of sequences of ``length``, where ``every``-th blocks are computed again (0: none).

    ``make`` builds the network, on whatever the default device is. A compiler fuses some of what the backward pass
    holds: ``beyond`` is told of blocks as they are; without ``backward``, which takes as long again, it is 0.
    """
    with _faked(), _compiler(setting.compiled):
        net = make().train()
        whole = _casts(net, length, setting) if every and setting.low else 0
        recompute_blocks(net, every)
        # autograd keeps no casts of blocks that are computed again, autocast does to the end of the forward pass
        casts = whole - _casts(net, length, setting) if whole else 0
        between, beyond = _pass(net, batch, length, setting, backward)
        if setting.compiled:
            compile_blocks(net, backend=_uncoded)
            between, _ = _pass(net, batch, length, setting, backward=False)
    return Kept(between + casts, beyond)


def _casts(net: Backbone, length: int, setting: Setting) -> int:
    """What autograd keeps however large the batch is: casts of weights."""
    two, three = (_pass(net, batch, length, setting, backward=False).between for batch in (2, 3))
    return 3 * two - 2 * three


def _pass(net: Backbone, batch: int, length: int, setting: Setting, backward: bool = True) -> Kept:
    x_BL, sigma_B = torch.zeros(batch, length, dtype=torch.long), torch.ones(batch)
    watch = Live() if backward else None  # under which nothing is compiled
    with _as_on(setting), watch or nullcontext():
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.low), saving() as saved:
            h_BLD = net(x_BL, sigma_B)
        own = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
        sizes = {one.storage._cdata: one.storage.nbytes() for one in saved}
        between = sum(size for key, size in sizes.items() if key not in own)
        if watch is None:
            return Kept(between, 0)
        watch.most = before = watch.now
        with _forgetting(net):
            h_BLD.backward(torch.ones_like(h_BLD))  # type: ignore[no-untyped-call]
    return Kept(between, watch.most - before)


class Live(TorchDispatchMode):
    """Bytes of all storage that operations have made and something still holds: ``now``, and at ``most``."""

    def __init__(self) -> None:
        """Of what is made inside."""
        super().__init__()
        self.now, self.most = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call ``func``; note what it made."""
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def _forgetting(net: Backbone) -> Iterator[None]:
    """Gradients of parameters are gone as soon as they are whole."""

    def forget(parameter: Tensor) -> None:
        parameter.grad = None

    hooks = [p.register_post_accumulate_grad_hook(forget) for p in net.parameters() if p.requires_grad]
    yield
    for hook in hooks:
        hook.remove()


@contextmanager
def _compiler(used: bool) -> Iterator[None]:
    """A compiler that remembers nothing: after some shapes of one function it would compile no further one."""
    if used:
        torch._dynamo.reset()
    yield
    if used:
        torch._dynamo.reset()


class Saved:
    """A tensor that autograd keeps, for as long as it does."""

    def __init__(self, tensor: Tensor) -> None:
        """``tensor``: as it was saved."""
        self.tensor, self.storage = tensor, tensor.untyped_storage()


@contextmanager
def saving() -> Iterator[Collection[Saved]]:
    """What autograd saves inside and still holds whenever it is looked at."""
    held: weakref.WeakSet[Saved] = weakref.WeakSet()

    def keep(tensor: Tensor) -> Saved:
        one = Saved(tensor)
        held.add(one)
        return one

    def give(one: Saved) -> Tensor:
        return one.tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        yield held


@contextmanager
def _faked() -> Iterator[None]:
    """New tensors have no storage. They are the CPU's: a build of torch without CUDA knows fake ones of no other."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.device("cpu"):
        yield


@contextmanager
def _as_on(setting: Setting) -> Iterator[None]:
    """Passes of fake tensors keep what they keep on the device."""
    on_cuda = setting.device == "cuda"
    device = "meta" if on_cuda else setting.device  # no package's kernel runs so
    with dispatch.assuming(device), _like_cuda() if on_cuda else nullcontext():
        yield


@contextmanager
def _like_cuda() -> Iterator[None]:
    """Where the CPU keeps something else than CUDA of the same formula: a mask of dropout takes one byte a number
    there, and attention that drops weights stays fused.

    Functions are replaced, for a mode of PyTorch's ends where a backward pass begins, in which blocks are computed
    again.
    """
    attend = F.scaled_dot_product_attention

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(input, p, True)[0] if training and p else input

    def attention(*args: Any, **kwargs: Any) -> Tensor:
        return attend(*args, **{**kwargs, "dropout_p": 0.0})

    with patch.object(F, "dropout", dropout), patch.object(F, "scaled_dot_product_attention", attention):
        yield


def _uncoded(graph: Any, inputs: Any) -> Any:
    """torch.compile's own passes and its choice of what to keep and what to compute again, but no code."""
    from functorch.compile import make_boxed_func
    from torch._inductor.compile_fx import compile_fx

    def as_it_is(graph: Any, inputs: Any, **how: Any) -> Any:
        return make_boxed_func(graph.forward)

    return compile_fx(graph, inputs, inner_compile=as_it_is)
