"""The top level of a recipe, and loading one from a file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from backbones.base import Backbone
from samplers.base import Sampler
from workbench.core.bounds import Natural
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.loading import Resolved, load_as
from workbench.core.part import Section
from workbench.core.places import recipes_folder
from workbench.data.section import Data
from workbench.metrics.base import Evaluation
from workbench.processes.base import Process
from workbench.start import Start, known_by_hash, require_same_tokens
from workbench.train.section import Train

__all__ = ["Recipe", "Resolved", "load"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
"""A name that can be a folder's."""


class Recipe(Section):
    """One experiment: text, network, process, sampler, training and what is measured.

    Settings:
        name: what the run folder and the report call it; not part of the content hash.
        data: the text, its tokens and the length of a block.
        backbone: the network.
        process: how the network is trained and used.
        sampler: how text is drawn.
        train: how the weights are found.
        evaluations: what is measured, by a name of your choice.
        start: the trained run whose weights this one begins with; left out, they are drawn.
        seed: of all randomness.
        plugins: Python files with parts of your own, relative to this file.
    """

    afterwards = frozenset({"sampler", "evaluations"})

    def __init__(
        self,
        name: Name,
        data: Data,
        backbone: Backbone,
        process: Process,
        sampler: Sampler,
        train: Train,
        evaluations: dict[str, Evaluation],
        start: Start | None = None,
        seed: Natural = 0,
        plugins: list[str] | None = None,
    ) -> None:
        """Keep the settings."""
        self.name, self.data, self.backbone, self.process = name, data, backbone, process
        self.sampler, self.train, self.evaluations, self.start = sampler, train, evaluations, start
        self.seed, self.plugins = seed, plugins


def load(path: Path | str, overrides: Iterable[str] = ()) -> Resolved:
    """Load a recipe file with dotted overrides (``train.steps=100``).

    A path that is not there is looked for among the shipped recipes: ``load("quickstart/sedd.yaml")``. A recipe that
    starts from another's run names it by that recipe; resolved, by its content hash.

    Raises:
        RecipeError: with every problem of the recipe.
        WorkbenchError: the file cannot be read.
    """
    place = found(Path(path))
    if not place.exists():
        raise WorkbenchError(f"{path}: there is no such file{_nearest(Path(path))}")
    return _load(place, tuple(overrides), ())


def _load(path: Path, overrides: tuple[str, ...], below: tuple[Any, ...]) -> Resolved:
    """``below``: the recipes, with what is changed in them, that begin where this one ends."""
    parents: list[Resolved] = []
    chain = (*below, (path.resolve(), overrides))

    def parent(file: str, changes: Iterable[str]) -> Resolved:
        wanted, asked = found(Path(file)), tuple(changes)
        if (wanted.resolve(), asked) in chain:
            raise RecipeError([Problem("start.recipe", f"a run cannot begin with its own weights ({wanted.name})")])
        parents.append(_load(wanted, asked, chain))
        return parents[-1]

    resolved = load_as(Recipe, path, overrides, lambda tree: known_by_hash(tree, parent))
    for one in parents:
        require_same_tokens(resolved, one)
    return resolved


def unwatched(data: Mapping[str, Any]) -> list[str]:
    """Overrides by which a recipe, resolved as ``data``, evaluates nothing while it trains."""
    cadenced = [name for name, one in data["evaluations"].items() if one and one["every"]]
    return ['train.best=""', *(f"evaluations.{name}=null" for name in cadenced)]


def found(path: Path) -> Path:
    """``path`` itself, or the shipped recipe that it names."""
    relative = path.relative_to("recipes") if path.parts[:1] == ("recipes",) else path
    shipped = recipes_folder() / relative
    return shipped if not path.is_absolute() and not path.exists() and shipped.is_file() else path


def _nearest(path: Path) -> str:
    """A hint at the shipped recipe that was meant: one of much the same name, or of the same without ``.yaml``."""
    folder = recipes_folder()
    names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*.yaml"))]
    wanted = path.relative_to("recipes") if path.parts[:1] == ("recipes",) else path
    close = difflib.get_close_matches(wanted.as_posix(), names, n=1, cutoff=0.7)
    return f". Did you mean recipes/{close[0]}?" if close else ""
