"""A small project for sessions: text, a recipe, what its commands leave, and what of that must be the same again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.faults.sessions import session
from workbench.core.files import read_json
from workbench.run import RunError, RunFolder, every
from workbench.train.checkpoint import CheckpointError, list_steps, read

RECIPES = Path(__file__).parents[2] / "recipes"
WORDS = ("peace", "war", "union", "law", "<script>", "é", "the", "of")
RECIPE = """
extends: recipe.yaml
name: soaked
data: {corpus: {type: text, paths: [text.txt], separator: "\\n"}, tokenizer: {type: bpe, vocab: 270}, length: 16}
train: {steps: 24, batch: 4, checkpoint_every: 4, log_every: 4, precision: fp32, threads: 1, device: cpu}
evaluations:
  valid: {blocks: 2, draws: 1, samples: 1, every: 8, metrics: [bits_per_byte]}
  final: {blocks: 4, draws: 1, samples: 2, metrics: [bits_per_byte, unigram_entropy]}
"""
TRAIN = ["train", "r.yaml", "--cache", "cache"]
MOVING = ("date", "seconds", "packages", "kernels", "data")
"""What figures state of the session that measured them."""


def make(folder: Path) -> Path:
    """Its text and recipe."""
    import yaml

    from workbench.core.tree import load_tree

    folder.mkdir(parents=True)
    lines = (" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(30)) for i in range(120))
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(load_tree(RECIPES / "smoke" / "sedd.yaml")))
    (folder / "r.yaml").write_text(RECIPE)
    return folder


def run_of(project: Path) -> RunFolder | None:
    """The project's run, where one can be read."""
    return next(every(project / "runs"), None)


def whole_steps(project: Path) -> set[int]:
    """Steps whose checkpoint is whole."""
    found = set()
    for ckpt in (project / "runs").glob("*/ckpt"):
        for step in list_steps(ckpt):
            try:
                found.add(read(ckpt / f"step-{step:08d}", ("model", "ema", "optimizer")).step)
            except CheckpointError:
                continue
    return found


def half_written(project: Path) -> list[str]:
    """Files under their final names that are not whole."""
    wrong = []
    for file in [*project.glob("runs/*/*.json"), *project.glob("runs/*/status"), *project.glob("cache/**/*.json")]:
        try:
            read_json(file)
        except ValueError:
            wrong.append(str(file.relative_to(project)))
    for ckpt in project.glob("runs/*/ckpt"):
        for step in list_steps(ckpt):
            try:
                read(ckpt / f"step-{step:08d}", ("model", "ema", "optimizer"))
            except CheckpointError as error:
                wrong.append(str(error))
    return wrong


def finals(project: Path, out: Path) -> dict[str, Any]:
    """What must be the same whatever happened before: weights, tokens, figures, a sample."""
    run = run_of(project)
    if run is None or not run.finished:
        raise RunError(f"{project} has no finished run")
    step = max(list_steps(run.ckpt))
    held = read(run.ckpt / f"step-{step:08d}", ("model", "ema", "optimizer"))
    results = read_json(run.results)
    drawn = session(["sample", str(run.path), "--count", "2", "--json"], project, out)
    texts = json.loads(drawn.said.splitlines()[-1])["texts"] if drawn.status == 0 else drawn.said
    return {
        "step": step,
        "weights": {role: _hash(tensors) for role, tensors in held.tensors.items()},
        "tokens": {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
                   for path in project.glob("cache/tokens/*/*/tokens.bin")},
        "values": [(value["name"], value["value"]) for value in results["values"]],
        "samples": results["samples"],
        "drawn": texts,
    }  # fmt: skip


def _hash(tensors: Any) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
