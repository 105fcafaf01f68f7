"""Kill a training run at random moments, again and again, and compare its end with a run left alone.

``python tests/soak.py --kills 20 --seed 0`` prints a table, one row a kill, and the verdict. Signals alternate at
random between SIGKILL (nothing can be saved) and SIGTERM (the step is finished and saved). Exit code 1 if a weight
differs in any bit, or if a half-written checkpoint was taken for a whole one.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

SETTINGS = {"steps": 2000, "delay": 0.004, "checkpoint_every": 5, "log_every": 7, "prefetch": 2, "muon": True}


def start(folder: Path, **changes: object) -> subprocess.Popen[bytes]:
    """A training process on ``folder``."""
    words = [sys.executable, "-m", "tests.train.toy", str(folder), json.dumps({**SETTINGS, **changes})]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)


def reached(folder: Path) -> int:
    """The newest checkpoint's step; 0 where there is none."""
    return max((int(path.name[5:]) for path in folder.glob("*/ckpt/step-*[0-9]")), default=0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    newest = sorted(folder.glob("*/ckpt/step-*[0-9]"))[-1]
    files = sorted(newest.glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def soak(kills: int, seed: int, steps: int, folder: Path) -> bool:
    """Run it; whether all is well."""
    rng = random.Random(seed)
    straight, soaked = folder / "straight", folder / "soaked"
    began = time.monotonic()
    if start(straight, steps=steps, delay=0.0).wait():
        raise SystemExit("the uninterrupted run failed")
    print(f"uninterrupted: {steps} updates in {time.monotonic() - began:.1f} s")
    print(f"{'kill':>4}  {'signal':<8}{'after s':>8}  {'from step':>9}  {'to step':>8}  {'drafts left':>11}")
    done = 0
    for kill in range(1, kills + 1):
        before, child = reached(soaked), start(soaked, steps=steps)
        number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        # Most kills fall into training; one in five anywhere, the start-up included.
        if rng.random() < 0.8:
            while child.poll() is None and reached(soaked) == before:
                time.sleep(0.002)
        moment = time.monotonic()
        time.sleep(rng.random() * 0.6)
        if child.poll() is not None:
            print(f"{kill:>4}  the run has ended; choose more --steps for more kills")
            break
        child.send_signal(number)
        child.wait()
        done += 1
        drafts = len(list(soaked.glob("*/ckpt/.draft-*")))
        wait = time.monotonic() - moment
        print(f"{kill:>4}  {number.name:<8}{wait:>8.2f}  {before:>9}  {reached(soaked):>8}  {drafts:>11}", flush=True)
    if start(soaked, steps=steps, delay=0.0).wait():
        raise SystemExit("the last session failed")
    damaged = [path.name for path in soaked.glob("*/ckpt/*.damaged")]
    one, two = weights(straight), weights(soaked)
    differ = [name for name in one if not torch.equal(one[name], two[name])] + sorted(one.keys() ^ two.keys())
    print(f"{done} kills, {time.monotonic() - began:.0f} s; step {reached(soaked)}; {len(one)} tensors, ", end="")
    print(f"{len(differ)} differ{': ' + ', '.join(differ[:5]) if differ else ''}; {len(damaged)} damaged checkpoints")
    return not differ and not damaged and done == kills


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=int(SETTINGS["steps"]))  # type: ignore[call-overload]
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sys.exit(0 if soak(chosen.kills, chosen.seed, chosen.steps, Path(place)) else 1)
