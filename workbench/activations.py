"""What autograd keeps of a network between a forward and its backward pass: counted on tensors without storage.

The forward pass is run on fake tensors (shapes, types and strides, no numbers) under autocast, with the kernels that it
would take on its device, compiled where the training compiles. For kernels of packages and for FlexAttention, which
cannot run so, other forms in PyTorch stand in.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.base import Backbone
from workbench.kernels import dispatch
from workbench.train.learner import compile_blocks
from workbench.train.recompute import recompute_blocks

WIDE = ("layer_norm", "softmax", "log_softmax")
"""Functions of ``torch.nn.functional`` that autocast computes in float32 on CUDA, and on a CPU as they come."""


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

    ``make`` builds the network, here on the meta device. A compiler fuses some of what the backward pass holds:
    ``beyond`` is told of blocks as they are; without ``backward``, which takes as long again, it is 0.
    """
    with torch.device("meta"):
        net = make().train()
    with _faked(net), _compiler(setting.compiled):
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
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _compiler(used: bool) -> Iterator[None]:
    """A compiler that remembers nothing: after some shapes of one function it would compile no further one, and what
    it has made here is for the device that was assumed."""
    if not used:
        yield
        return
    counts = torch._dynamo.utils.counters["stats"]
    before = counts.copy()
    torch._dynamo.reset()
    try:
        with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.recompile_limit):
            yield
    finally:
        torch._dynamo.reset()
        counts.clear()
        counts.update(before)


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
def _faked(net: Backbone) -> Iterator[None]:
    """New tensors have no storage, and those that ``net`` was given on the meta device are such. They are the CPU's: a
    build of torch without CUDA knows fake ones of no other.

    A network's own that have storage (a table made when its module was imported) are taken for fake ones; what it
    remembers by device is forgotten at the end, or a real network would find fake tensors there.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    made: dict[Tensor, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if tensor not in made:
            one = torch.empty_like(tensor, device="cpu", requires_grad=False)
            made[tensor] = nn.Parameter(one, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else one
        return made[tensor]

    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"):
        for module in net.modules():
            for held in (module._parameters, module._buffers, vars(module)):
                held.update({name: fake(one) for name, one in held.items() if isinstance(one, Tensor) and one.is_meta})
        try:
            yield
        finally:
            _forget_caches(net)


def _forget_caches(net: Backbone) -> None:
    """Empty what functions remember (`functools.cache`) of the classes of a network and of their modules."""
    bases = {base for module in net.modules() for base in type(module).__mro__ if issubclass(base, nn.Module)}
    kinds = {base for base in bases if base.__module__.partition(".")[0] != torch.__name__}
    for place in (*kinds, *(sys.modules.get(kind.__module__) for kind in kinds)):
        for value in list(vars(place).values()) if place is not None else ():
            if callable(forget := getattr(value, "cache_clear", None)):
                forget()


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
    there, attention that drops weights stays fused, and autocast has some functions in float32.

    Functions are replaced, for a mode of PyTorch's ends where a backward pass begins, in which blocks are computed
    again.
    """
    attend = F.scaled_dot_product_attention

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(input, p, True)[0] if training and p else input

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        *rest: Any,
        **named: Any,
    ) -> Tensor:
        return attend(query, key, value, attn_mask, 0.0, *rest, **named)

    def wide(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def widened(input: Tensor, *rest: Any, **named: Any) -> Tensor:
            low = input.dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu")
            return function(input.float() if low else input, *rest, **named)

        return widened

    with ExitStack() as stack:
        for name in WIDE:
            stack.enter_context(patch.object(F, name, wide(getattr(F, name))))
        stack.enter_context(patch.object(F, "dropout", dropout))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", attention))
        yield


def _uncoded(graph: Any, inputs: Any) -> Any:
    """torch.compile's own passes and its choice of what to keep and what to compute again, but no code."""
    from functorch.compile import make_boxed_func
    from torch._inductor.compile_fx import compile_fx

    def as_it_is(graph: Any, inputs: Any, **how: Any) -> Any:
        return make_boxed_func(graph.forward)

    return compile_fx(graph, inputs, inner_compile=as_it_is)
