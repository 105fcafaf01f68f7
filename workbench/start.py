"""The ``start:`` section of a recipe: training that begins with the weights of a trained run.

What a run starts from is known by content: the parent recipe's hash stands in the resolved recipe and counts in its
own hash, so that a change anywhere up the line makes another run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from workbench.core.bounds import Natural
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.files import read_json
from workbench.core.loading import Resolved
from workbench.core.part import Section
from workbench.core.places import recipes_folder
from workbench.run import RunFolder, find, status_line
from workbench.train.checkpoint import CheckpointError, list_steps, load_weights

if TYPE_CHECKING:
    from workbench.core.node import Node

NOTE = "start.json"
"""The note in a run's folder of the weights that it began with."""
HASH = re.compile(r"[0-9a-f]{16}")


class Start(Section):
    """The weights that training begins with: those of another run. Optimizer, schedule and average begin anew.

    Settings:
        recipe: the recipe of that run, a file relative to this one (in an override, to the working folder).
        changes: settings changed in that recipe, each as on a command line.
        run: the run itself, in place of a recipe (an imported one, say): its folder, or its hash of 16 digits. A
            resolved recipe says the hash here.
        weights: the averaged weights or those of the last update.
        checkpoint: last, best or a step.
    """

    immaterial = frozenset({"recipe", "changes"})

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """No run named; a head that would be begun twice."""
        yield from super().misfits(node, root)
        if not node.settings["run"]:
            yield Problem(node.path, "needs `recipe:`, the file of the recipe whose run it begins with, or `run:`")
        train = root.find("train")
        if train is not None and train.settings["unigram_start"]:
            yield Problem(f"{train.path}.unigram_start", "the head begins as it was trained; leave it false")

    def __init__(
        self,
        recipe: str = "",
        changes: list[str] | None = None,
        run: str = "",
        weights: Literal["averaged", "last"] = "averaged",
        checkpoint: Literal["last", "best"] | Natural = "last",
    ) -> None:
        """Keep the settings: `put` reads them."""
        self.recipe, self.changes, self.run, self.weights, self.checkpoint = recipe, changes, run, weights, checkpoint


def known_by_hash(tree: Mapping[str, Any], parent: Callable[[str, Iterable[str]], Resolved]) -> dict[str, Any]:
    """A recipe's data with the run it starts from named by its hash. ``parent(file, changes)`` loads that recipe.

    Raises:
        RecipeError: there is no such recipe or run, or the recipe has problems.
    """
    start = tree.get("start")
    if not isinstance(start, Mapping):
        return dict(tree)
    file, run = start.get("recipe"), start.get("run")
    if isinstance(run, str) and run and not HASH.fullmatch(run):
        try:
            run, file = RunFolder(Path(run)).hash, ""
        except WorkbenchError as error:
            message = f"needs a run's folder or its hash of 16 digits: {error}"
            raise RecipeError([Problem("start.run", message)]) from None
    elif isinstance(file, str) and file and not run:
        changes = start.get("changes")
        try:
            run = parent(file, changes if isinstance(changes, list) else ()).hash
        except WorkbenchError as error:
            own = isinstance(error, RecipeError) and error.problems[0].path == "start.recipe"
            raise error if own else RecipeError([Problem("start.recipe", f"{error}")]) from None
        file = _short(file)
    known = {name: value for name, value in (("recipe", file), ("run", run)) if value is not None}
    return {**tree, "start": {**start, **known}}


def _short(file: str) -> str:
    """A recipe's name for readers and for other machines: within the shipped recipes where it is one of them."""
    path, shipped = Path(file).resolve(), recipes_folder().resolve()
    return path.relative_to(shipped).as_posix() if path.is_relative_to(shipped) else file


def require_same_tokens(resolved: Resolved, parent: Resolved) -> None:
    """Raises ``RecipeError`` where a recipe has another tokenizer than the run that it starts from."""
    own, theirs = (one.data["data"]["tokenizer"] for one in (resolved, parent))
    if own != theirs:
        message = f"the weights it starts from know tokenizer {theirs}; take the same one, found {own}"
        raise RecipeError([Problem("data.tokenizer", message)], str(resolved.source or ""))


def parent_run(resolved: Resolved, own: RunFolder) -> RunFolder | None:
    """The run beside ``own`` that its recipe starts from.

    None where it starts afresh, or has checkpoints already: they hold all that it took from elsewhere.

    Raises:
        WorkbenchError: it is not there, or not trained to its end.
    """
    start = resolved.data.get("start")
    if start is None or any(list_steps(own.ckpt)):
        return None
    root = own.path.parent
    found = find(start["run"], root)
    if not found:
        words = ["workbench", "train", start["recipe"], *(start["changes"] or ()), "--runs", str(root)]
        remedy = f"train it first: {shlex.join(words)}" if start["recipe"] else "bring it there, or name its folder"
        raise WorkbenchError(f"start: {root} holds no run of hash {start['run']}; {remedy}")
    run = found[0]
    if not run.finished and start["checkpoint"] == "last":
        raise WorkbenchError(
            f"start: {run.path} is not trained to its end ({status_line(run.read_status())}); go on with: "
            f"workbench train --resume {run.path}"
        )
    return run


def note(run: RunFolder) -> dict[str, Any]:
    """What a run's own note says of the weights that it began with, as ``{"start": …}``; {} without one."""
    return {"start": read_json(run.path / NOTE)} if (run.path / NOTE).is_file() else {}


def put(resolved: Resolved, run: RunFolder, net: nn.Module) -> dict[str, Any]:
    """Put the weights of ``run`` into a recipe's network, shape by shape; what they are, for the record.

    Raises:
        WorkbenchError: they are of another network, or cannot be read.
    """
    start = resolved.data["start"]
    try:
        found = load_weights(net, run.ckpt, start["weights"] == "averaged", str(start["checkpoint"]))
    except CheckpointError as error:
        raise WorkbenchError(
            f"start: the weights of {run.path} do not fit: {error}. Take its backbone, tokenizer and graph "
            f"({run.resolved} has them)"
        ) from error
    role = "ema" if start["weights"] == "averaged" and "ema" in found.tensors else "model"
    file = f"{role}.safetensors"
    return {
        "run": run.path.name, "hash": run.hash, "step": found.step, "file": file, "sha256": found.state["files"][file]
    }  # fmt: skip
