"""What is marked `cuda`, on a device that is no GPU: branches, devices, types, waits, memory and compiled kernels.

Not what takes hardware: a graph's memory, speed.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulated import device
from tests.test_cuda import NAMES
from workbench.run import RunFolder

ROOT = Path(__file__).parents[1]
SLOW = (
    "50257", "agrees_with_the_cpu and True", "compiled_blocks and not sedd-fp32 and not gpt2-bf16",
)  # fmt: skip
"""In the names of tests that take minutes in Triton's interpreter: docs/benchmarks.md says how to run them."""
pytestmark = pytest.mark.skipif(device.unfit() is not None, reason=str(device.unfit()))


@pytest.fixture(scope="session")
def library(shared_folder: Path) -> Path:
    """The device's library, compiled once a session."""
    folder = shared_folder / "emulated"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "device.so"
        return made if made.is_file() else device.build(folder)


def on_it(library: Path, shared: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.emulated", str(library), *words]
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "SHARED_FOLDER": str(shared)}
    for name in [name for name in environment if name.startswith("PYTEST_XDIST")]:
        del environment[name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


FAULTS = """
import subprocess
import sys
from pathlib import Path
from tests.emulated import device
device.install(Path(sys.argv[1]))
import torch

def fails(act, words):
    try:
        act()
    except RuntimeError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{words}: nothing failed")

x, y = torch.arange(12.0).view(3, 4).cuda(), torch.arange(12.0).view(3, 4)
assert x.is_cuda and x[1:].t().device.index == 0 and torch.equal(x.cpu(), y)
x[1:].add_(1)
assert x.tolist() == (y + torch.tensor([[0.0], [1.0], [1.0]])).tolist()
fails(lambda: x + y, "two devices")
fails(lambda: torch.cat([x, y]), "CPU")
fails(lambda: torch.nn.functional.embedding(torch.tensor([1]), x), "CPU")
with torch.autocast("cuda", torch.bfloat16):
    assert (x @ x.t()).dtype == torch.bfloat16 and x.softmax(-1).dtype == torch.float32
weight = torch.nn.Parameter(torch.ones(4, device="cuda"))
(x * weight).sum().backward()
assert weight.grad.is_cuda and weight.grad.tolist() == x.sum(0).tolist()
child = [sys.executable, "-c", "import torch; print(torch.ones(1).cuda().device)"]
assert subprocess.run(child, check=True, capture_output=True, text=True).stdout == "cuda:0\\n"
torch.cuda.set_sync_debug_mode("error")
for act in (lambda: x.sum().item(), lambda: x[x > 3], lambda: x.nonzero(), lambda: x.cpu(), lambda: y.cuda(),
            lambda: x[torch.tensor([0, 2])], lambda: bool((x > 0).all()), lambda: torch.cuda.synchronize()):
    fails(act, "synchronizing")
y.cuda(non_blocking=True), x[0], (x * 2).sum(), torch.where(x > 3, x, 0.0)
"""


def test_the_device_shows_what_a_gpu_would_refuse_or_wait_for(library: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(library)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


MARKED = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in file.read_text()]
RECIPES = ROOT / "tests" / "test_cuda.py"


@pytest.mark.timeout(900)  # a suite of its own
@pytest.mark.parametrize("files", [[RECIPES], [file for file in MARKED if file != RECIPES]], ids=["recipes", "others"])
def test_what_is_marked_cuda_passes_on_it(
    files: list[Path], library: Path, shared_folder: Path, smoke: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    for name in NAMES if RECIPES in files else ():
        smoke(name)  # the host's, which other tests look at too
    chosen = " and ".join(f"not ({name})" for name in SLOW)
    words = ["-m", "cuda", "-k", chosen, "-q", "--basetemp", str(tmp_path / "in")]
    done = on_it(library, shared_folder, "pytest", *map(str, files), *words)
    *told, waits = done.stdout.splitlines()
    assert done.returncode == 0, "\n".join(told[-60:]) + done.stderr[-2000:]
    places = {where.rpartition(":")[0] for _, where, _ in json.loads(waits)}
    assert "samplers/draw.py" in places  # who leaves under a rule that asks the network: read once a step
    assert not places & {"workbench/train/learner.py", "workbench/processes/diffusion.py", "backbones/stack.py"}
