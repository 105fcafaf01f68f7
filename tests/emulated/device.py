"""A CUDA device that is no GPU: PyTorch's CPU build is made to believe in one, and computes its kernels on the host.

Tensors on it are ordinary ones whose device is ``cuda:0``; autograd, autocast, optimizers and modules treat them as a
GPU's. What is real: which branch the program takes, on which device each tensor lies, types under CUDA's autocast,
where the host waits for the device (``Waits``), how many bytes are on it, and what `torch.compile` writes for it
(`tests.emulated.compiler`). What is not: speed, streams, rounding, Triton's compiler.

An operation on tensors of two devices fails as it would on a GPU. ``install`` must be called before torch is imported.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "device.cpp"
ROOT = SOURCE.parents[2]
START = SOURCE.parent / "start"  # what Python imports first, wherever this is on its path
NAME = "an emulated CUDA device"

# Operations whose CUDA kernels hand a number to the host, or have a shape that only the device knows.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2", "_unique",
    "unique_consecutive", "bincount", "histc",
}  # fmt: skip
# These take an index on the host, and bring it over by themselves: the host waits for that.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class Waits(collections.Counter):
    """(what the host waited for, the place in this repository that asked) → how often."""

    mode: int | str = "default"
    """As of `torch.cuda.set_sync_debug_mode`: under "error" a wait is one."""
    refusal = ""
    """Why none is allowed now."""

    @contextlib.contextmanager
    def forbidden(self, why: str):
        """A wait inside is an error that says ``why``."""
        self.refusal = why
        try:
            yield
        finally:
            self.refusal = ""

    def add(self, what: str) -> None:
        """One more, asked for by the innermost frame of this repository's code.

        Raises:
            RuntimeError: waits are errors.
        """
        where, frame = "elsewhere", sys._getframe(1)
        while frame is not None and where == "elsewhere":
            file = Path(frame.f_code.co_filename)
            if file.parts[-2:] == ("runtime", "interpreter.py") or "fx_passes" in file.parts:
                return  # Triton's, which moves what a kernel reads and writes; the compiler's, of constants
            if ROOT in file.parents and SOURCE.parent not in file.parents and ".venv" not in file.parts:
                where = f"{file.relative_to(ROOT)}:{frame.f_lineno}"
            frame = frame.f_back
        if self.refusal or self.mode in ("error", 2):
            raise RuntimeError(f"{self.refusal or 'called a synchronizing CUDA operation'}: {what}")
        self[what, where] += 1


WAITS = Waits()


def unfit() -> str | None:
    """Why this machine cannot emulate one; None where it can."""
    if shutil.which("g++") is None:
        return "an emulated CUDA device needs g++"
    if not _torch().joinpath("include", "ATen", "core", "Tensor.h").is_file():
        return "an emulated CUDA device needs torch's C++ headers"
    if _torch().joinpath("lib", "libtorch_cuda.so").is_file():
        return "a CUDA device is emulated on a CPU build of torch only"
    return None


def build(folder: Path) -> Path:
    """Compile the library into ``folder``, some ten seconds; its path."""
    torch, made = _torch(), folder / "device.so"
    command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", "-w", "-I", torch / "include", "-L", torch / "lib"]
    command += [f"-Wl,-rpath,{torch / 'lib'}", SOURCE, "-lc10", "-ltorch_cpu", "-o", made]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the emulated device did not compile:\n{done.stderr}")
    return made


def install(library: Path) -> None:
    """Make torch, not imported yet, believe in one CUDA device; here and in processes that are started from here."""
    if "torch" in sys.modules:
        raise RuntimeError("the device must be there before torch is imported: torch asks once")
    path = dict.fromkeys([str(START), str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    os.environ.update(EMULATED_CUDA=str(library.resolve()), PYTHONPATH=os.pathsep.join(path))
    ctypes.CDLL(str(_torch() / "lib" / "libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))
    import torch

    from tests.emulated import compiler, graphs

    _believe(torch)
    _Kernels(torch).register()
    graphs.install(torch)
    compiler.install(torch)


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _believe(torch) -> None:
    """What torch.cuda answers without asking C++."""
    facts = {
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "current_device": 0,
        "device_count": 1,
        "get_device_name": NAME,
        "get_device_capability": (9, 0),
        "empty_cache": None,
        "_lazy_init": None,
    }
    for name, answer in facts.items():
        setattr(torch.cuda, name, lambda *args, _answer=answer, **kwargs: _answer)
    torch.cuda.memory_allocated = lambda *args: torch.ops.emulated.memory_now()
    torch.cuda.max_memory_allocated = lambda *args: torch.ops.emulated.memory_most()
    torch.cuda.reset_peak_memory_stats = lambda *args: torch.ops.emulated.forget_memory_most()
    for kind in (torch.Tensor, torch.nn.Parameter):
        kind.__deepcopy__ = _copied(torch, kind.__deepcopy__)
    torch.cuda.set_sync_debug_mode = lambda mode: setattr(WAITS, "mode", mode)
    torch.cuda.synchronize = lambda *args: WAITS.add("synchronize")


def _copied(torch, ordinary):
    """``copy.deepcopy`` of a tensor, which copies storages in C++ that knows its own devices only."""

    def copied(self, memo):
        if self.device.type != "cuda":
            return ordinary(self, memo)
        if id(self) not in memo:
            made = self.detach().clone()
            made = torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made
            memo[id(self)] = made
        return memo[id(self)]

    return copied


class _Kernels:
    """Every operation on the device: its CPU kernel on the same memory."""

    def __init__(self, torch) -> None:
        self.torch, self.Tensor, self.own = torch, torch.Tensor, torch.ops.emulated
        self.facts: dict[object, Facts] = {}
        self.libraries = [torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")]
        self.host = torch.device("cpu")

    def register(self) -> None:
        every, aten = self.libraries
        every.fallback(self.run, "CUDA")
        aten.impl("copy_", self.copy_, "CUDA")
        aten.impl("scaled_dot_product_attention", self.attention, "AutogradCUDA")  # torch's own asks no Python
        aten.impl("scaled_dot_product_attention", self.attention, "CUDA")
        aten.impl("_scaled_dot_product_flash_attention", self.flash, "CUDA")
        aten.impl("_scaled_dot_product_flash_attention_backward", self.flash_backward, "CUDA")
        aten.impl("mm.dtype", self.mm, "CUDA")  # the host has none
        for name in ("_softmax", "_log_softmax"):
            aten.impl(name, self.softmax(getattr(self.torch.ops.aten, name).default), "CUDA")
        for name in ("convolution", "convolution_backward"):  # else PyTorch looks for the device's own
            aten.impl(name, functools.partial(self.run, getattr(self.torch.ops.aten, name).default), "CUDA")

    def mm(self, a, b, out_dtype):
        a, b = (self.on_host(value).to(out_dtype) for value in (a, b))  # no memory of the device's
        return self.own.relabel(a @ b, True)

    def attention(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
        """Fused where the host can, for what a GPU keeps of it: not the matrix of weights."""
        aten = self.torch.ops.aten
        if attn_mask is None and not dropout_p and not enable_gqa and q.dtype != self.torch.float64:
            return aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, scale=scale)[0]
        if attn_mask is not None and attn_mask.dtype == self.torch.bool:
            attn_mask = self.torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -self.torch.inf)
        how = {"scale": scale, "enable_gqa": enable_gqa}
        return aten._scaled_dot_product_attention_math(q, k, v, attn_mask, dropout_p, is_causal, **how)[0]

    def flash(self, q, k, v, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
        op = self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        out, logsumexp = self.run(op, q, k, v, dropout_p, is_causal, scale=scale)
        seed, none = q.new_zeros(2, dtype=self.torch.uint64), q.new_empty(0)
        unused = seed.new_zeros(())
        return out, logsumexp.contiguous(), none, none, q.shape[2], k.shape[2], seed, unused, none

    def flash_backward(self, grad, q, k, v, out, logsumexp, *rest, scale=None):
        op = self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
        _, _, _, _, dropout_p, is_causal, _, _ = rest
        return self.run(op, grad, q, k, v, out, logsumexp, dropout_p, is_causal, scale=scale)

    def copy_(self, into, source, non_blocking=False):
        if into.is_cuda != source.is_cuda and not non_blocking:
            WAITS.add("a copy to the device" if into.is_cuda else "a copy to the host")
        self.on_host(into).copy_(self.on_host(source))
        return into

    def on_host(self, tensor):
        return self.own.relabel(tensor, False) if tensor.is_cuda else tensor

    def softmax(self, op):
        def run(x, dim, half_to_float):
            return self.run(op, x.float() if half_to_float else x, dim, False)

        return run

    def run(self, op, *args, **kwargs):
        """``op`` on the host's names of its arguments; what it returns, under the device's."""
        facts = self.facts.get(op) or self.facts.setdefault(op, Facts.of(op))
        names = _Names(self, facts.fills)
        device = kwargs.get("device")
        args = [names.host(value) for value in args]
        kwargs = {name: names.host(value) for name, value in kwargs.items()}
        if names.known:
            self.check(facts, names.elsewhere, kwargs)
        for at in facts.tensors:  # Python's numbers where the schema says tensor: handed over as what they were
            if at < len(args) and isinstance(args[at], (bool, int, float, complex)):
                args[at] = self.torch.tensor(args[at])
        found = op(*args, **kwargs)
        for made, value in names.known.values():
            if made.shape != value.shape or made.stride() != value.stride():
                self.own.adopt(value, made)
        if not names.known and (device is None or device.type != "cuda"):
            return found
        return names.device(found)

    def check(self, facts: Facts, elsewhere, kwargs) -> None:
        if elsewhere and facts.indexes:
            WAITS.add("an index on the host")
        elif elsewhere:
            shapes = ", ".join(str(tuple(value.shape)) for value in elsewhere)
            raise RuntimeError(f"aten::{facts.name}: tensors on the CPU ({shapes}) beside others on cuda:0")
        if facts.name in WAITING or (facts.name == "repeat_interleave" and kwargs.get("output_size") is None):
            WAITS.add(facts.name)


class _Names:
    """The host's names of the tensors of one call, and back. (A closure that calls itself would keep them until
    Python looks for cycles, and memory would seem to be held.)
    """

    def __init__(self, kernels: _Kernels, fills: bool) -> None:
        self.kernels, self.fills = kernels, fills
        self.known: dict[int, tuple] = {}  # id of a tensor → its name on the host, itself
        self.elsewhere = []

    def host(self, value):
        if isinstance(value, self.kernels.Tensor):
            if not value.is_cuda:
                if value.dim():
                    self.elsewhere.append(value)
                return value
            if id(value) not in self.known:
                empty = self.fills and not value.numel()  # may be given another shape
                own = self.kernels.own.relabel
                made = self.kernels.torch.empty(0, dtype=value.dtype) if empty else own(value, False)
                self.known[id(value)] = made, value
            return self.known[id(value)][0]
        if isinstance(value, (list, tuple)):
            return type(value)(map(self.host, value))
        return self.kernels.host if isinstance(value, self.kernels.torch.device) else value

    def device(self, value):
        if isinstance(value, self.kernels.Tensor):
            back = next((own for made, own in self.known.values() if made is value), None)
            return self.kernels.own.relabel(value, True) if back is None else back
        return type(value)(map(self.device, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Facts:
    """Of an operation: its name, whether it fills tensors that it is given, whether it takes indices of another
    device, and where its schema wants tensors.
    """

    name: str
    fills: bool
    indexes: bool
    tensors: tuple[int, ...]

    @classmethod
    def of(cls, op) -> Facts:
        schema = op._schema
        name = schema.name.partition("::")[2]
        fills = any(argument.is_out for argument in schema.arguments)
        wanted = (at for at, argument in enumerate(schema.arguments) if str(argument.type) == "Tensor")
        return cls(name, fills, name in INDEXING, tuple(wanted))
