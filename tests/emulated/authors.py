"""The kernels of mamba-ssm and causal-conv1d, from their packages' Python alone, on the emulated device.

Triton's are interpreted as they are. What is compiled CUDA (the selective scan, the convolution) gives way to the
packages' own reference of the same signature: layouts, types and what is handed over are tested then, not the kernel.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

COMPILED = ("selective_scan_cuda", "causal_conv1d_cuda")
REFERENCES = {
    ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"): "selective_scan_ref",
    ("causal_conv1d", "causal_conv1d_fn"): "causal_conv1d_interface.causal_conv1d_ref",
}


def install(folder: Path) -> None:
    """Take the packages from ``folder``, where their wheels or sources are unpacked. Before they are imported."""
    import triton

    sys.path.insert(0, str(folder))
    for name in COMPILED:
        sys.modules[name] = types.ModuleType(name)
    from triton.runtime.interpreter import InterpreterBuilder

    triton.runtime.driver.set_active(Driver())
    InterpreterBuilder.create_dot = _of_floats(InterpreterBuilder.create_dot)
    triton.autotune = lambda configs, key, **settings: lambda kernel: Tuned(kernel, configs)
    for (module, name), reference in REFERENCES.items():
        home, _, function = f"{module}.{reference}".rpartition(".")
        setattr(importlib.import_module(module), name, getattr(importlib.import_module(home), function))


def _of_floats(product):
    """The interpreter's product, which takes bfloat16's bits for integers."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle, _convert_float

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle(_convert_float(handle.data, tl.bfloat16, tl.float32, None).view("float32"), tl.float32)

    return lambda self, a, b, *rest: product(self, widened(a), widened(b), *rest)


class Driver:
    """What Triton asks of a GPU's driver where it launches nothing."""

    @staticmethod
    def is_active() -> bool:
        """It is."""
        return True

    def get_benchmarker(self):
        """None is timed."""

    def get_current_target(self):
        """Hopper."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        """The only one."""
        return 0

    def get_current_stream(self, device=0):
        """The only one."""
        return 0

    def get_device_interface(self):
        """CUDA's."""
        import torch

        return torch.cuda

    def get_active_torch_device(self):
        """The only one."""
        import torch

        return torch.device("cuda", 0)


class Tuned:
    """A kernel that is not tuned: always its last configuration, whose hook (it clears sums) comes first."""

    def __init__(self, kernel, configs) -> None:
        import triton

        self.configs, self.best_config, self.arg_names = configs, configs[-1], kernel.arg_names
        fixed = {name: lambda arguments, value=value: value for name, value in self.best_config.kwargs.items()}
        self.kernel = triton.heuristics(fixed)(kernel)

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            if self.best_config.pre_hook:
                self.best_config.pre_hook({**dict(zip(self.arg_names, args, strict=False)), **kwargs})
            return self.kernel[grid](*args, **kwargs)

        return launch
