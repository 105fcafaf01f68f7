"""The vocabulary axis is reached through one function: nobody applies a network's head by hand."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAY = {
    "workbench/kernels/rows.py",  # the one place
    "backbones/cost.py",  # counts FLOPs of one sequence, on the meta device
    "workbench/bench/dense.py",  # the yardstick: what published code does
    "backbones/contract.py",  # perturbs small networks
    "workbench/train/contract.py",  # a toy of three matrices for optimizers
}


def test_only_the_rows_kernel_applies_a_head():
    found = []
    for package in ("workbench", "backbones", "graphs", "samplers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr == "head" and name not in MAY:
                    found.append(f"{name}:{node.lineno}")
    assert not found, f"go through workbench.kernels.rows.head_rows: {found}"
