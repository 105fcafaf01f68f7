"""SEDD workbench: trainable score-entropy discrete diffusion from YAML recipes, beside a GPT-2 baseline."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
FOR_NOTEBOOKS = ("Run", "Grid")


def __getattr__(name: str) -> Any:
    """``workbench.Run`` and ``workbench.Grid``, imported when they are asked for."""
    if name in FOR_NOTEBOOKS:
        return getattr(importlib.import_module("workbench.api"), name)
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")
