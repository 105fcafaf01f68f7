"""Triton kernels compiled for GPUs that are not here: nothing spills, and a processor holds enough rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REGISTERS, THREADS = 65_536, 2048
"""Of a multiprocessor of sm_80 and sm_90 (CUDA C++ Programming Guide, table of compute capabilities)."""

COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from workbench.kernels import row_triton

(assembler, *_) = sorted(Path(triton.__file__).parent.glob("backends/nvidia/bin/ptxas*"), key=lambda p: -len(p.name))
found = []
for kernel in (row_triton._exp_rows, row_triton._softmax_rows):
    for states in (1000, 50258):
        block, warps = row_triton._block(states), row_triton._warps(states)
        for low in ("fp32", "bf16"):
            kinds = {"grad_ptr": "*" + low, "x_ptr": "*i64", "target_ptr": "*i64", "BLOCK": "constexpr"}
            signature = {n: kinds.get(n, "*fp32" if n.endswith("_ptr") else "i32") for n in kernel.arg_names}
            source = ASTSource(kernel, signature, {(kernel.arg_names.index("BLOCK"),): block})
            for capability in (80, 90):
                made = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": warps})
                target = re.search(r"\\.target (\\w+)", made.asm["ptx"]).group(1)
                with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
                    file.write(made.asm["ptx"])
                    file.flush()
                    words = [str(assembler), "-v", f"--gpu-name={target}", file.name, "-o", "/dev/null"]
                    told = subprocess.run(words, check=True, capture_output=True, text=True).stderr
                registers = int(re.search(r"Used (\\d+) registers", told).group(1))
                spilled = sum(map(int, re.findall(r"(\\d+) bytes spill", told)))
                name = f"{kernel.__name__}, {states} states, {low}, {target}"
                found.append([name, warps, registers, spilled, made.metadata.shared])
print(json.dumps(found))
"""


def test_they_compile_without_spilling_and_fill_a_processor(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, "-W", "ignore", "-c", COMPILE]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 16
    for name, warps, registers, spilled, shared in found:
        print(f"{name}: {warps} warps, {registers} registers a thread, {spilled} bytes spilled, {shared} bytes shared")
        assert not spilled, name
        # they wait for memory: half of a processor's threads must fit beside one another
        assert registers * THREADS / 2 <= REGISTERS, name
