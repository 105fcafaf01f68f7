"""A CUDA device that is no GPU: PyTorch's CPU build is made to believe in one, and computes its kernels on the host.

Tensors on it are ordinary ones whose device is ``cuda:0``; autograd, autocast, optimizers and modules treat them as a
GPU's. What is real: which branch the program takes, on which device each tensor lies, types under CUDA's autocast, and
where the host waits for the device (``Waits``). What is not: speed, memory, streams, rounding, Triton's compiler.

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
import types
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
            if file.parts[-2:] == ("runtime", "interpreter.py"):
                return  # Triton's, which moves what a kernel reads and writes
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

    from tests.emulated import graphs

    _believe(torch)
    _Kernels(torch).register()
    graphs.install(torch)


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
        "get_device_properties": types.SimpleNamespace(
            name=NAME, major=9, minor=0, total_memory=0, multi_processor_count=132
        ),
        "max_memory_allocated": 0,
        "memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "_lazy_init": None,
    }
    for name, answer in facts.items():
        setattr(torch.cuda, name, lambda *args, _answer=answer, **kwargs: _answer)
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
        aten.impl("_fused_sdp_choice", lambda *args, **kwargs: 0, "CUDA")  # attention by its composite form
        aten.impl("mm.dtype", self.mm, "CUDA")  # the host has none
        for name in ("_softmax", "_log_softmax"):
            aten.impl(name, self.softmax(getattr(self.torch.ops.aten, name).default), "CUDA")
        for name in ("convolution", "convolution_backward"):  # else PyTorch looks for the device's own
            aten.impl(name, functools.partial(self.run, getattr(self.torch.ops.aten, name).default), "CUDA")

    def mm(self, a, b, out_dtype):
        return a.to(out_dtype) @ b.to(out_dtype)

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
        known: dict[int, tuple] = {}  # id of a tensor → its name on the host, itself
        elsewhere = []

        def host(value):
            if isinstance(value, self.Tensor):
                if not value.is_cuda:
                    if value.dim():
                        elsewhere.append(value)
                    return value
                if id(value) not in known:
                    empty = facts.fills and not value.numel()  # may be given another shape
                    made = self.torch.empty(0, dtype=value.dtype) if empty else self.own.relabel(value, False)
                    known[id(value)] = made, value
                return known[id(value)][0]
            if isinstance(value, (list, tuple)):
                return type(value)(map(host, value))
            return self.host if isinstance(value, self.torch.device) else value

        device = kwargs.get("device")
        args = [host(value) for value in args]
        kwargs = {name: host(value) for name, value in kwargs.items()}
        if known:
            self.check(facts, elsewhere, kwargs)
        for at in facts.tensors:  # Python's numbers where the schema says tensor: handed over as what they were
            if at < len(args) and isinstance(args[at], (bool, int, float, complex)):
                args[at] = self.torch.tensor(args[at])
        found = op(*args, **kwargs)
        for made, value in known.values():
            if made.shape != value.shape or made.stride() != value.stride():
                self.own.adopt(value, made)
        if not known and (device is None or device.type != "cuda"):
            return found
        back = {id(made): value for made, value in known.values()}

        def label(value):
            if isinstance(value, self.Tensor):
                return back[id(value)] if id(value) in back else self.own.relabel(value, True)
            return type(value)(map(label, value)) if isinstance(value, (list, tuple)) else value

        return label(found)

    def check(self, facts: Facts, elsewhere, kwargs) -> None:
        if elsewhere and facts.indexes:
            WAITS.add("an index on the host")
        elif elsewhere:
            shapes = ", ".join(str(tuple(value.shape)) for value in elsewhere)
            raise RuntimeError(f"aten::{facts.name}: tensors on the CPU ({shapes}) beside others on cuda:0")
        if facts.name in WAITING or (facts.name == "repeat_interleave" and kwargs.get("output_size") is None):
            WAITS.add(facts.name)


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
