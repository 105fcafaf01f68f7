"""A long run made short: 20,000 updates of a smoke recipe under a clock that jumps; what grows, and what must not.

``python tests/long_run.py --steps 20000 --out docs/results/faults/long_run.json`` trains, evaluates now and then, and
prints resident memory over training, the sizes of log and TensorBoard, the checkpoints kept. Exit code 1 where memory
grows after the first quarter by more than ``GROWTH``, files grow faster than by their lines, or a clock goes back.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.smoke import EXACT, prose  # noqa: E402
from workbench import experiment  # noqa: E402
from workbench.recipe import load  # noqa: E402
from workbench.train.log import curve, read_log  # noqa: E402

GROWTH = 16.0
"""MiB of resident memory between the first quarter's end and the run's."""
LINE, EVENT = 4096, 8192
"""Bytes of log, and of TensorBoard, that a logged line may take."""
KEEP = 2


def jumping(seed: int = 0) -> None:
    """Let the wall clock jump by up to a day, either way, now and then."""
    real, rng, state = time.time, random.Random(seed), [0.0, 0]

    def jumped() -> float:
        state[1] += 1
        if state[1] % 50 == 0:
            state[0] = rng.uniform(-86_400, 86_400)
        return real() + state[0]

    time.time = jumped


def facts(run: Path) -> dict[str, object]:
    """What a finished run's folder tells of its growth."""
    log = read_log(run / "log.jsonl")
    memory = curve(log, "train/memory_mb")
    quarter = memory[len(memory) // 4][1]
    return {
        "updates": log[-1]["step"],
        "lines": len(log),
        "memory_mb": {"first": memory[0][1], "at_a_quarter": quarter, "last": memory[-1][1],
                      "most": max(value for _, value in memory)},
        "growth_mb": round(memory[-1][1] - quarter, 2),
        "log_bytes": (run / "log.jsonl").stat().st_size,
        "tensorboard_bytes": sum(file.stat().st_size for file in (run / "tb").rglob("*") if file.is_file()),
        "checkpoints": sorted(path.name for path in (run / "ckpt").iterdir()),
        "wall_clock_went_back": sum(b["time"] < a["time"] for a, b in pairwise(log)),
        "seconds_went_back": sum(b["seconds"] < a["seconds"] for a, b in pairwise(log)),
        "steps_went_back": sum(b["step"] < a["step"] for a, b in pairwise(log)),
    }  # fmt: skip


def faults(found: dict[str, object], steps: int) -> list[str]:
    """What is wrong with them."""
    lines = int(str(found["lines"]))
    checks = {
        f"memory grew by {found['growth_mb']} MiB": float(str(found["growth_mb"])) > GROWTH,
        "the log is too large": int(str(found["log_bytes"])) > LINE * lines,
        "TensorBoard's folder is too large": int(str(found["tensorboard_bytes"])) > EVENT * lines,
        f"checkpoints {found['checkpoints']}": len(found["checkpoints"]) != KEEP,  # type: ignore[arg-type]
        "a clock went back": bool(found["seconds_went_back"] or found["steps_went_back"]),
        "the wall clock did not jump": steps > 1000 and not found["wall_clock_went_back"],
    }
    return [what for what, wrong in checks.items() if wrong]


def long_run(steps: int, folder: Path) -> dict[str, object]:
    """Train the smoke SEDD for ``steps`` updates; the facts of its folder."""
    every = max(10, steps // 40)
    changes = [f"train.steps={steps}", f"train.keep={KEEP}", "train.log_every=20", f"train.checkpoint_every={every}",
               f"evaluations.valid.every={2 * every}"]  # fmt: skip
    resolved = load(ROOT / "recipes" / "smoke" / "sedd.yaml", [*EXACT, *prose(folder / "text"), *changes])
    run = experiment.create(resolved, folder / "runs")
    experiment.train(run, resolved, folder / "cache", quiet=True)
    return facts(run.path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    jumping()
    with tempfile.TemporaryDirectory() as place:
        found = long_run(chosen.steps, Path(place))
    print(json.dumps(found, indent=1))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    wrong = faults(found, chosen.steps)
    print("\n".join(wrong) or "all is bounded")
    sys.exit(1 if wrong else 0)
