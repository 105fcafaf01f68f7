"""From a recipe's file to a resolved recipe: read, plug in, resolve, check the fit, hash."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core import index
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.part import Part
from workbench.core.plugins import Plugin, PluginError, load_plugin
from workbench.core.spec import Node, misfits, resolve
from workbench.core.tree import dump_yaml, load_tree, not_finite, override, stable_hash

Tree = dict[str, Any]
PARENT = " A file without a name is a parent, for recipes that say `extends`; it is not run by itself."


@dataclass(frozen=True)
class Resolved:
    """A recipe without a fault.

    ``data``: every setting, defaults filled in, plain; ``hash``: 16 hex digits of all that determines the
    trained weights: everything but the name, what comes after training (the sampler, what is measured) and what
    parts declare immaterial, with the plug-ins that it uses by content; ``source``: the file it came from.
    """

    node: Node
    data: dict[str, Any]
    hash: str
    source: Path | None = None
    plugins: tuple[Plugin, ...] = ()

    @functools.cached_property
    def measured(self) -> str:
        """16 hex digits of all that determines figures: as ``hash``, with what comes after training.

        Made when asked for: it looks at what settings name (a judge's weights), which may be a recipe of its own.
        """
        return _hash(self.node.material(), _felt(self.plugins, self.node, afterwards=True))

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.data.get("name", ""))

    def portable(self, folder: str = "plugins") -> dict[str, Any]:
        """``data`` with its plug-ins named ``folder/<file>``: what a run folder that holds copies keeps."""
        if not self.plugins:
            return dict(self.data)
        return self.data | {"plugins": [f"{folder}/{plugin.path.name}" for plugin in self.plugins]}

    def text(self, folder: str = "plugins") -> str:
        """``portable`` as YAML that loads as this very recipe."""
        return dump_yaml(self.portable(folder))


def load_as(
    schema: type[Part],
    path: Path | str,
    overrides: Iterable[str] = (),
    filled: Callable[[Tree], Tree] | None = None,
) -> Resolved:
    """Load a recipe file whose top level is the section ``schema``; ``overrides`` as in `tree.override`.

    ``filled``: what is made of the data before it is resolved (references looked up).

    Raises:
        RecipeError: with every problem of the recipe.
        WorkbenchError: the file cannot be read, or a module that defines parts cannot be imported.
    """
    tree = override(load_tree(path), overrides)
    tree = filled(tree) if filled is not None else tree
    try:
        return resolve_as(schema, tree, Path(path))
    except RecipeError as error:
        if "name" in tree:
            raise
        told = [Problem(one.path, one.message + PARENT * (one.path == "name")) for one in error.problems]
        raise RecipeError(told, error.source) from error


def resolve_as(schema: type[Part], tree: Mapping[str, Any], source: Path | None = None) -> Resolved:
    """Resolve a recipe that is at hand as data; plug-ins named by it are loaded, relative to the working
    folder.

    Raises:
        RecipeError: with every problem of the recipe.
        WorkbenchError: a module that defines parts cannot be imported.
    """
    index.import_parts()
    plugins, problems = _plug_in(tree.get("plugins"))
    node, found = resolve(schema, tree)
    problems += found
    if node is not None:
        problems += misfits(node, tuple(problems))
    if node is not None and not problems and (place := not_finite(node.as_data())) is not None:
        problems.append(Problem(place, "a number that is not finite is no setting"))
    if problems or node is None:
        raise RecipeError(problems, str(source or ""))
    weights = _hash(node.material(afterwards=False), _felt(plugins, node, afterwards=False))
    return Resolved(node, node.as_data(), weights, source, plugins)


def _hash(data: Mapping[str, Any], plugins: Iterable[Plugin]) -> str:
    """The content hash of what is material in a recipe; its name is not, plug-ins count by content, not by path.

    A section that is left out (null) counts as little as one that there was not yet when a run was made.
    """
    covered = {name: value for name, value in data.items() if name not in ("name", "plugins") and value is not None}
    return stable_hash(covered | {"plugins": sorted({plugin.sha256 for plugin in plugins})})


def _felt(plugins: Iterable[Plugin], node: Node, afterwards: bool) -> Iterator[Plugin]:
    """The plug-ins that a recipe's content depends on: those whose parts stand in it, or that register none.

    A sampler of one's own, tried on a trained network, moves no weights.
    """
    used = {cls.__module__ for inner in node.walk(afterwards) for cls in inner.part.__mro__}
    for plugin in plugins:
        if plugin.module in used or not plugin.parts():
            yield plugin


def _plug_in(paths: Any) -> tuple[tuple[Plugin, ...], list[Problem]]:
    """Load what ``plugins:`` names; entries that are no text are left for resolving to complain about."""
    loaded: dict[str, Plugin] = {}
    problems = []
    for i, path in enumerate(paths if isinstance(paths, list) else ()):
        if not isinstance(path, str):
            continue
        try:
            plugin = load_plugin(path)
            other = loaded.setdefault(plugin.path.name, plugin)
            if other.sha256 != plugin.sha256:
                raise PluginError(f"{plugin.path} and {other.path} have the same name; rename one of them")
        except WorkbenchError as error:
            problems.append(Problem(f"plugins[{i}]", str(error)))
    return tuple(loaded.values()), problems
