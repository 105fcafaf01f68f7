"""Kill workers and the parent of a grid at random moments, again and again, and compare its end with a grid left alone.

``python tests/soak_grid.py --kills 20 --seed 0`` prints a table, one row a kill, and the verdict. Every kill is a
``kill -9``, of the parent or of a worker; where the parent is gone the same command starts it again. Exit code 1 if a
figure differs, one is missing, or a lock survived its owner.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.grid.files import figures, pids, written  # noqa: E402

STEPS = 40
"""Updates of a training."""


def command(folder: Path, grid: Path, workers: int) -> list[str]:
    """The grid's command; ``--retry``, for a cell that was killed three times at one place counts as failed."""
    places = ["--runs", str(folder / "runs"), "--grids", str(folder / "grids")]
    return [sys.executable, "-m", "workbench", "grid", str(grid), *places, "--workers", str(workers), "--retry"]


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """The grid's parent, its words in a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)


def workers_of(pid: int) -> list[int]:
    """Children of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return sorted(found)


def busy(folder: Path, parent: int) -> list[int]:
    """Workers of this parent that have a cell in hand."""
    return sorted({*pids(folder)} & {*workers_of(parent)})


def soak(kills: int, seed: int, seeds: int, workers: int, folder: Path, longest: float = 3.0) -> bool:
    """Run it; whether all is well. ``longest``: seconds from one kill to the next."""
    rng, began = random.Random(seed), time.monotonic()
    grid = written(
        folder,
        axes={"steps": {"few": {"sampler.steps": 2}, "many": {"sampler.steps": 4}}, "seed": list(range(seeds))},
        set={"train.steps": STEPS, "train.checkpoint_every": 5, "evaluations.valid": None},
    )
    alone, soaked = folder / "alone", folder / "soaked"
    for place in (alone, soaked):
        place.mkdir()
    if start(command(alone, grid, workers), alone).wait():
        raise SystemExit(f"the undisturbed grid failed: {(alone / 'log').read_text()[-2000:]}")
    whole = len(figures(alone / "runs"))
    print(f"undisturbed: {whole} cells in {time.monotonic() - began:.0f} s")
    print(f"{'kill':>4}  {'of':<8}{'after s':>8}  {'cells done':>10}  {'starts':>6}")
    words, done, starts = command(soaked, grid, workers), 0, 1
    parent = start(words, soaked)
    for kill in range(1, kills + 1):
        if rng.random() < 0.8:  # most kills fall into work, the others anywhere, the start-up included
            while parent.poll() is None and not busy(soaked, parent.pid):
                time.sleep(0.02)
        moment = time.monotonic()
        time.sleep(rng.uniform(0.0, longest))
        if parent.poll() is not None:
            print(f"{kill:>4}  the grid has ended; choose more --seeds for more kills")
            break
        below = busy(soaked, parent.pid) or workers_of(parent.pid)
        of = "worker" if below and rng.random() < 0.6 else "parent"
        try:
            os.kill(rng.choice(below) if of == "worker" else parent.pid, signal.SIGKILL)
        except ProcessLookupError:
            of = "nobody"  # it ended in this very moment
        done += of != "nobody"
        if of == "parent":
            parent.wait()
            parent, starts = start(words, soaked), starts + 1
        ready = len(figures(soaked / "runs"))
        print(f"{kill:>4}  {of:<8}{time.monotonic() - moment:>8.2f}  {ready:>10}  {starts:>6}", flush=True)
    code = parent.wait()
    if code:
        code = start(words, soaked).wait()
    one, two = figures(alone / "runs"), figures(soaked / "runs")
    differ = [cell for cell in one if one[cell] != two.get(cell)] + sorted(two.keys() - one.keys())
    print(f"{done} kills of -9, {starts} starts, {time.monotonic() - began:.0f} s; exit {code}; ", end="")
    print(f"{len(two)} of {whole} cells, {len(differ)} differ")
    return not code and not differ and len(two) == whole and done == kills


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=12, help="trainings of the grid; each has two cells")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sys.exit(0 if soak(chosen.kills, chosen.seed, chosen.seeds, chosen.workers, Path(place)) else 1)
