"""A cell trained by several processes: killed with its worker or its grid, it leaves none behind and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.grid.files import figures, pids, written

LONGEST = 240.0


def processes_of(folder: Path) -> list[int]:
    """Processes that have the folder in their words."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and int(place.parent.name) != os.getpid():
            found.append(int(place.parent.name))
    return found


def until(found, what):
    """What is found, within the longest time that it may take."""
    end = time.monotonic() + LONGEST
    while not (value := found()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("whom", ["worker", "grid"])
def test_a_cell_of_several_processes_is_killed_and_goes_on(tmp_path, whom):
    several = {"train.parallel": {"type": "ddp", "processes": 2}, "train.steps": 40, "train.checkpoint_every": 5}
    file = written(tmp_path, axes={"seed": [0]}, set={**several, "evaluations.valid": None})
    places = ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids"), "--workers", "1"]
    command = [sys.executable, "-m", "workbench", "grid", str(file), *places]
    grid = subprocess.Popen(command)
    until(lambda: list(tmp_path.glob("runs/*/ckpt/step-*[0-9]")) or grid.poll() is not None, "no checkpoint")
    assert grid.poll() is None, "the training was faster than the look at it"
    os.kill(pids(tmp_path)[0] if whom == "worker" else grid.pid, signal.SIGKILL)
    status = grid.wait(timeout=LONGEST)
    if whom == "grid":
        until(lambda: not processes_of(tmp_path), "processes go on without their grid")
        status = subprocess.run(command, timeout=LONGEST).returncode
    assert status == 0
    assert len(figures(tmp_path / "runs")) == 1
    until(lambda: not processes_of(tmp_path), "processes are left behind")
