"""What runs write in few steps: held-out bound, unigram entropy, repetition and known words by number of steps.

The same blocks, noise and sample numbers for every run; everything from finished runs, on any machine:

    python tests/benchmarks/few_steps.py runs/quickstart-sedd-* runs/quickstart-sedd-sdtt-* --steps 4 8 16 32
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from workbench import assemble, opening
from workbench.core.build import build
from workbench.core.index import import_parts
from workbench.core.spec import resolve
from workbench.metrics.base import Evaluation, measure

METRICS = {"bound": ["bits_per_byte"], "samples": ["unigram_entropy", "repetition", "distinct", "known_words"]}


def evaluation(metrics: list[str], blocks: int, draws: int, samples: int) -> Evaluation:
    """An evaluation of its own, whatever the recipe has."""
    data = {"blocks": blocks, "draws": draws, "samples": samples, "batch": 64, "metrics": metrics}
    node, problems = resolve(Evaluation, data)
    assert node is not None and not problems, problems
    return build(node)


def figures(path: Path, which: str, steps: int, asked: Evaluation, cache: Path | None) -> dict[str, dict[str, float]]:
    """Each metric's value, standard error and the held-out text's own, with a sampler of ``steps`` steps."""
    opened = opening.open_trained(path, which, [f"sampler.steps={steps}"])
    examiner = opened.examiner(assemble.prepare(opened.resolved, cache, None, path))
    found = measure(asked.metrics, examiner.evidence(asked))
    return {one.name: {"value": one.value, "se": one.se, "real": one.real, "error": one.error} for one in found}


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=384)
    parser.add_argument("--checkpoints", nargs="+", default=["last"], help="last, best or steps, of each run")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    args = parser.parse_args()
    import_parts()
    rows = []
    for path in args.run:
        for which in args.checkpoints:
            bound = figures(path, which, 1, evaluation(METRICS["bound"], args.blocks, 4, 0), args.cache)
            for steps in args.steps:
                drawn = figures(path, which, steps, evaluation(METRICS["samples"], 0, 1, args.samples), args.cache)
                rows.append({"run": path.name, "checkpoint": which, "steps": steps, **bound, **drawn})
                print(f"{path.name} {which} {steps}: " + ", ".join(
                    f"{name} {one['value']:.4f}" for name, one in rows[-1].items() if isinstance(one, dict)
                ), flush=True)  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))
    heads = "run", "checkpoint", "steps", "bits/byte", "entropy", "rep-4", "distinct-2", "known words"
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        cells = [f"{row[name]['value']:.3f}" for name in ("bits_per_byte", "unigram_entropy", "rep_4", "distinct_2")]
        cells.append(f"{100 * row['known_words']['value']:.1f} %")
        print(f"| {row['run']} | {row['checkpoint']} | {row['steps']} | ≤ {' | '.join(cells)} |")
    last = rows[-1]
    real = {name: last[name]["real"] for name in ("unigram_entropy", "rep_4", "distinct_2", "known_words")}
    print(f"held-out text: {real}")


if __name__ == "__main__":
    main()
