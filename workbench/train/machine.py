"""What the trainer asks of the machine: device, precision, threads, memory."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from workbench.core.errors import WorkbenchError
from workbench.core.machines import cpu_name

MEBI = 1 << 20
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""


def choose_device(wish: str, local: int = 0) -> torch.device:
    """The device that ``train.device`` names; "auto" is CUDA where there is any (``local``: this process's GPU).

    Raises:
        WorkbenchError: no such device here.
    """
    if wish == "auto":
        wish = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wish)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WorkbenchError(f"train.device: {wish!r} cannot be used here ({reason}); try auto or cpu") from error
    return device


def choose_precision(wish: str, device: torch.device) -> tuple[str, str]:
    """("bf16" or "fp32", why). "auto" decides by what the hardware declares, so that the same machine always
    decides alike: CUDA, and CPUs with bfloat16 matrix instructions, on which its products run several times faster.
    """
    if wish != "auto":
        return wish, "as the recipe says"
    if device.type == "cuda":
        return "bf16", "a CUDA device"
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        for name, title in (("amx_bf16", "AMX-BF16"), ("avx512_bf16", "AVX512-BF16")):
            if able.get(name):
                return "bf16", f"this CPU has {title}"
        return "fp32", "this CPU has no bfloat16 matrix instructions"
    return "fp32", f"bfloat16 is not known to be faster on {device.type}"


def name_of(device: torch.device | str) -> str:
    """Whose seconds they are: the GPU's, or the processor's with the threads in use."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}"


def settle(threads: int, kept: bool = True) -> int:
    """Set the number of CPU threads (0: leave it), flush denormal numbers to zero and, if ``kept``, keep freed memory;
    the threads in use.

    Denormals, which decayed states and tiny probabilities leave, slow a CPU down more than tenfold. Their flag is
    inherited by threads started later, so this comes before the first parallel work.
    """
    torch.set_flush_denormal(True)
    if kept:
        keep_memory()
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def keep_memory() -> None:
    """Have freed memory kept by the process (glibc; elsewhere nothing is done).

    A step frees and asks for the same large buffers again; fetched anew from the kernel each time they cost a page
    fault every 4 KiB, a quarter of a training step at a vocabulary of 50,257.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return


class Machine:
    """The device, the precision and the threads of a training session."""

    def __init__(self, device: str, precision: str, threads: int, local: int = 0) -> None:
        """Settle what the recipe leaves open; ``local`` is this process's GPU where there are several.

        Raises:
            WorkbenchError: no such device here.
        """
        self.threads = settle(threads)
        self.device = choose_device(device, local)
        self.precision, self.why = choose_precision(precision, self.device)
        self.float8 = ""  # what is computed in 8-bit floats, in words

    def autocast(self) -> torch.autocast:
        """The context of a forward pass in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def facts(self) -> dict[str, Any]:
        """What the last bits of the weights depend on, for the checkpoint; ``name``: `name_of` the device."""
        facts = {"precision": self.precision, "threads": self.threads, "torch": torch.__version__}
        return {**facts, "name": name_of(self.device), **({"float8": self.float8} if self.float8 else {})}

    def go_on(self, facts: Mapping[str, Any]) -> list[str]:
        """Keep a checkpoint's precision; what to tell the reader where the last bits will differ."""
        self.precision, self.why = facts["precision"], "as before"
        now = self.facts()
        before = {name: facts[name] for name in now if name in facts}  # checkpoints of before name no machine
        changed = [f"{name} {before[name]}, now {now[name]}" for name in before if before[name] != now[name]]
        return [f"not to the last bit what an uninterrupted run gives: {'; '.join(changed)}"] if changed else []

    def __str__(self) -> str:
        """``cpu, bf16 (this CPU has AVX512-BF16), 2 CPU threads``, and what is in 8-bit floats."""
        facts = f"{self.device}, {self.precision} ({self.why}), {self.threads} CPU threads"
        return f"{facts}; {self.float8}" if self.float8 else facts


def memory_mb(device: torch.device) -> float:
    """MiB in use: the peak that tensors took on CUDA, the resident set of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBI
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEBI
    return peak_resident_mb()


def peak_resident_mb() -> float:
    """The largest resident set that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
