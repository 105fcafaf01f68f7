"""The machine that works, as figures of seconds are told apart by it."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor, as its maker calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
