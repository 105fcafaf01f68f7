"""Thousands of damaged and hostile inputs, seeded: no traceback, no code run, nothing written outside, no full memory.

``python tests/fuzz.py`` runs them all and prints a table; ``--kinds recipes,weights``, ``--share 0.01``, ``--seed 7``
run others. Each input is run in this process under a clock and a cap on memory (see `tests.faults.guard`). Exit code 1
where an input did what it must not; ``--out`` keeps the counts as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults import fuzz_files, fuzz_recipes, fuzz_texts, fuzz_weights  # noqa: E402
from tests.faults.guard import Guard, cap_memory  # noqa: E402

Cases = Callable[[random.Random, Path, int], Iterator[tuple[str, Callable[[], object]]]]
KINDS: dict[str, tuple[Cases, int]] = {
    "recipes": (fuzz_recipes.damaged_recipes, 8000),
    "grids": (fuzz_recipes.damaged_grids, 2000),
    "yaml": (fuzz_recipes.hostile_yaml, 600),
    "checkpoints": (fuzz_files.damaged_checkpoints, 1400),
    "tokens": (fuzz_files.damaged_tokens, 600),
    "run files": (fuzz_files.damaged_run_files, 600),
    "texts": (fuzz_texts.hostile_texts, 400),
    "weights": (fuzz_weights.hostile_weights, 800),
}
"""Kind of input → (its maker, how many in full)."""
MORE_MEMORY = 6 << 30
"""Bytes of address space beyond those at the start: an allocation beyond fails."""


def fuzz(kind: str, count: int, seed: int, folder: Path) -> Guard:
    """Run ``count`` inputs of a kind in a folder of their own."""
    home = folder / kind.replace(" ", "-")
    home.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(home)
    guard = Guard(home)
    try:
        for label, act in KINDS[kind][0](random.Random(f"{seed}/{kind}"), home, count):
            guard.try_one(label, act)
    finally:
        os.chdir(before)
    return guard


def main() -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the full numbers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON with the counts")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    cap_memory(MORE_MEMORY)
    rows, bad = {}, 0
    print(
        f"{'kind':<12}{'inputs':>8}{'taken':>8}{'told':>8}{'findings':>10}{'slowest s':>11}{'most MB':>9}{'seconds':>9}"
    )
    with tempfile.TemporaryDirectory() as place:
        for kind in chosen.kinds.split(","):
            began = time.monotonic()
            guard = fuzz(kind, max(1, round(KINDS[kind][1] * chosen.share)), chosen.seed, Path(place))
            taken, told, found = (guard.counts[name] for name in ("taken", "told", "finding"))
            spent = time.monotonic() - began
            print(
                f"{kind:<12}{taken + told + found:>8}{taken:>8}{told:>8}{found:>10}{guard.slowest:>11.2f}"
                f"{guard.largest >> 20:>9}{spent:>9.0f}", flush=True,
            )  # fmt: skip
            for finding in guard.findings:
                print(f"  {finding.label}: {finding.why}")
            rows[kind] = {"inputs": taken + told + found, "taken": taken, "told": told, "findings": found,
                          "most_mb": guard.largest >> 20}  # fmt: skip
            bad += found
    if chosen.out:
        chosen.out.write_text(json.dumps({"seed": chosen.seed, "share": chosen.share, "kinds": rows}, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
