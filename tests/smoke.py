"""Smoke recipes trained once a session, on text that is the same with every Python: what their tests look at."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbench import experiment
from workbench.core.rng import Rng
from workbench.core.tree import load_tree
from workbench.recipe import load
from workbench.run import RunFolder

RECIPES = Path(__file__).parents[1] / "recipes"
EXACT = ("train.device=cpu", "train.precision=fp32", "train.threads=1")
"""What makes a run the same on every machine, to rounding."""
TEXT = (
    "the of and to in that is was for it with as his on be at by this had not are but from have an they which one "
    "you were all their there been many those such words people state nation law power peace work year public great"
)


def prose(folder: Path) -> list[str]:
    """A text corpus of 40 kB with the rhythm of sentences, written into ``folder``; as overrides of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    u_ND = Rng(7).uniform("prose", 0, np.arange(60), 120)
    known, paragraphs = TEXT.split(), []
    for u_D in u_ND:
        words = [known[int(len(known) * u * u)] for u in u_D]  # early words are the frequent ones
        lines = [" ".join(words[i : i + 12]).capitalize() + "." for i in range(0, len(words), 12)]
        paragraphs.append(" ".join(lines))
    (folder / "prose.txt").write_text("\n\n".join(paragraphs))
    return [f"data.corpus={{type: text, paths: ['{folder / 'prose.txt'}'], separator: \"\\n\\n\"}}"]


def smoke_run(name: str, folder: Path, cache: Path, changes: Sequence[str] = ()) -> RunFolder:
    """The finished run of ``recipes/smoke/<name>.yaml``; the first who asks trains it, others wait for it.

    A recipe that starts from another smoke recipe's run starts from that one's run here. ``changes``: overrides of
    this recipe, not of its parent; runs by others belong in another folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = RECIPES / "smoke" / f"{name}.yaml"
    overrides = [*EXACT, *prose(folder / name)]
    if start := load_tree(file).get("start"):
        parent = Path(start["recipe"]).stem
        smoke_run(parent, folder, cache)
        overrides.append(f"start.changes={json.dumps([*EXACT, *prose(folder / parent)])}")
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        resolved = load(file, [*overrides, *changes])
        run = experiment.create(resolved, folder / "runs")
        experiment.train(run, resolved, cache, quiet=True)
        if not run.results.is_file():
            experiment.evaluate(run.path, cache)
    return run
