"""From plain data to resolved nodes to objects.

*Resolving* is pure data: defaults are filled in, every name, type and bound is checked, and all problems are
collected with their YAML path. *Building* makes the objects, nested parts first. Between the two, `misfits`
asks each part whether it fits beside the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from workbench.core import part as parts
from workbench.core.build import build
from workbench.core.errors import PartDefinitionError, Problem, RecipeError
from workbench.core.node import Node, choices, title
from workbench.core.part import KINDS, Part, Section, Setting, all_known, did_you_mean, nearest
from workbench.core.tree import merge
from workbench.core.values import convert, describe, insane, join, shown

__all__ = ["Node", "build", "choices", "meant", "misfits", "resolve", "title"]
NESTED = 40
"""How deep parts may nest in parts."""
NAMED = 4
"""The most settings of one name that a message names."""
_MISSING: Any = object()


def resolve(part: type[Part], data: Any, path: str = "") -> tuple[Node | None, list[Problem]]:
    """Resolve plain data as a part of this kind (``type:`` picks which) or as this section.

    Returns the node and every problem found. With problems the node may lack settings, or be None: it serves
    to look for further problems, not to build.
    """
    fault = insane(data)
    if fault is not None:
        place, message = fault
        return None, [Problem(join(path, place) if place else path, message)]
    resolver = _Resolver()
    node = resolver.part(part, data, path, None, 0)
    for index, (owner, schema) in resolver.strange.items():
        place = resolver.problems[index].path
        elsewhere = "" if node is None else meant(node, place)
        hint = elsewhere or nearest(place.rpartition(".")[2], schema)
        resolver.problems[index] = Problem(place, f"{title(owner)} has no such setting.{hint}{all_known(schema)}")
    return node, resolver.problems


def meant(root: Node, path: str) -> str:
    """Text to append where ``path`` names no setting: those of the same name elsewhere in a resolved recipe, of which
    some below the same place go before all others; "" where there are none, or too many to name."""
    above, _, name = path.rpartition(".")
    holders = [node for node in root.walk() if name in node.settings]
    places = [join(node.path, name) for node in holders if not _is_section(node.settings[name])]
    near = [place for place in places if above and place.startswith((f"{above}.", f"{above}["))] or places
    return f" Did you mean {' or '.join(near)}?" if 0 < len(near) <= NAMED else ""


def _is_section(value: Any) -> bool:
    """Sections lie at the top, where everybody knows them: one of the same name is not what was meant."""
    return isinstance(value, Node) and issubclass(value.part, Section)


def misfits(root: Node, known: tuple[Problem, ...] = ()) -> list[Problem]:
    """What the parts of a resolved recipe have against one another, each asked by its own ``misfits``.

    With ``known`` problems the tree may lack settings: then what cannot be asked is passed over, and so is
    what concerns a place already complained about.

    Raises:
        RecipeError: a part's own check failed (a fault of the part, not of the recipe).
    """
    found: list[Problem] = []
    for node in root.walk():
        try:
            found.extend(node.part.misfits(node, root))
        except Exception as error:
            if not known:
                problem = Problem(node.path, f"{title(node.part)} failed to check its fit: {error!r}")
                raise RecipeError([problem]) from error
    return [problem for problem in found if not any(_touch(problem.path, other.path) for other in known)]


class _Resolver:
    """One pass over the data of a recipe; collects problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.strange: dict[int, tuple[type[Part], Mapping[str, Setting]]] = {}
        """By its number among the problems, the owner of a name that is no setting of it, and what its settings are."""

    def say(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def part(self, asked: type[Part], data: Any, path: str, usual: Any, depth: int) -> Node | None:
        """A node for ``asked`` from ``data``, over the ``usual`` one where ``data`` names no type."""
        if depth > NESTED:
            self.say(path, f"parts nest deeper than {NESTED} levels")
            return None
        section = issubclass(asked, Section)
        if isinstance(data, str) and not section:
            data = {"type": data}
        elif data is None:
            data = {}
        if not isinstance(data, Mapping):
            due = "a map of settings" if section else f"the name of a {asked.kind}, or a map with its `type:`"
            self.say(path, f"needs {due}; found {shown(data)}.{'' if section else _known(asked)}")
            return None
        if usual is not None and (section or "type" not in data):
            data = merge({"type": usual} if isinstance(usual, str) else usual, data)
        given = self.names(data, path)
        concrete = asked if section else self.choose(asked, given.pop("type", _MISSING), path)
        if concrete is None:
            return None
        try:
            schema = parts.settings(concrete)
        except PartDefinitionError as error:
            self.say(path, str(error))
            return None
        for name in given:
            if name in concrete.supplied:
                self.say(join(path, name), f"the workbench supplies {name!r}; leave it out.")
            elif name not in schema:
                self.strange[len(self.problems)] = concrete, schema
                self.say(join(path, name), "")  # worded when it is known what there is elsewhere
        return self.settings(concrete, schema, given, path, depth)

    def names(self, data: Mapping[Any, Any], path: str) -> dict[str, Any]:
        """The entries of a map whose names are text."""
        for name in data:
            if not isinstance(name, str):
                self.say(path, f"the names of settings are text; found {shown(name)}")
        return {name: value for name, value in data.items() if isinstance(name, str)}

    def choose(self, asked: type[Part], name: Any, path: str) -> type[Part] | None:
        """The registered class that ``type: name`` picks."""
        found = choices(asked)
        if name is _MISSING:
            if KINDS.get(asked.kind) is not asked and asked.type_name:
                return asked  # a concrete class in the signature leaves no choice
            self.say(path, f"needs `type:`, the name of a {asked.kind}.{_known(asked)}")
        elif not isinstance(name, str):
            self.say(join(path, "type"), f"needs the name of a {asked.kind}; found {shown(name)}.{_known(asked)}")
        elif name not in found:
            self.say(join(path, "type"), f"no {asked.kind} {name!r:.60}.{did_you_mean(name[:60], found)}")
        return found.get(name) if isinstance(name, str) else None

    def settings(
        self, owner: type[Part], schema: dict[str, Setting], given: Mapping[str, Any], path: str, depth: int
    ) -> Node:
        """All settings of a part. Those whose ``usual`` speaks for a sibling are resolved before it."""
        done: dict[str, Any] = {}
        pending = list(schema)
        while pending:
            speaking = {name: self.peek(owner, schema[name], given, done) for name in pending}
            name = next(
                (
                    name
                    for name in pending
                    if not any(name in said for other, said in speaking.items() if other != name)
                ),
                pending[0],
            )
            pending.remove(name)
            value = self.setting(owner, schema, schema[name], given, done, join(path, name), depth)
            if value is not _MISSING:
                done[name] = value
        return Node(owner, {name: done[name] for name in schema if name in done}, path)

    def peek(
        self, owner: type[Part], setting: Setting, given: Mapping[str, Any], done: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The ``usual`` of the part that a setting will hold, as far as it can be told now."""
        if setting.part is None or setting.many:
            return {}
        for data in (given.get(setting.name), _usual(owner, setting.name, done), setting.default):
            name = data.get("type") if isinstance(data, Mapping) else data
            if isinstance(name, str):
                found = choices(setting.part).get(name)
                return found.usual if found is not None else {}
        return {}

    def setting(
        self,
        owner: type[Part],
        schema: Mapping[str, Setting],
        setting: Setting,
        given: Mapping[str, Any],
        done: Mapping[str, Any],
        path: str,
        depth: int,
    ) -> Any:
        """The resolved value of one setting; _MISSING where there is a problem."""
        usual = _usual(owner, setting.name, done)
        value = given.get(setting.name, _MISSING)
        if setting.part is not None and value is None and not setting.optional:
            value = _MISSING  # `noise:` with nothing after it
        if value is _MISSING:
            value = usual if usual is not None else _MISSING if setting.required else setting.default
        if value is _MISSING and setting.part is not None and issubclass(setting.part, Section) and not setting.many:
            value = {}  # its own settings say what is missing
        if value is _MISSING:
            if _would_be_usual(schema, setting, done):
                return _MISSING  # the sibling that would have brought it was complained about
            what = describe(setting.annotation) if setting.part is None else _asked(setting.part)
            self.say(path, f"{title(owner)} needs this ({what}).")
            return _MISSING
        if setting.part is None:
            result, faults = convert(setting.annotation, value)
            for place, message in faults:
                self.say(path + place if place.startswith("[") else join(path, place) if place else path, message)
            return _MISSING if faults else result
        if value is None:
            return None
        if setting.many == "list":
            return self.items(setting.part, value, path, depth)
        if setting.many == "map":
            if isinstance(usual, Mapping) and isinstance(value, Mapping) and value is not usual:
                value = merge(usual, value)  # as one part's settings stand over its usual ones, so do a map's parts
            found = self.entries(setting.part, value, path, depth)
            if isinstance(usual, Mapping) and isinstance(found, dict):
                # a usual entry that was dropped stays, as None: what is written must load as this very recipe
                found |= {name: None for name in usual if name in value and value[name] is None}
            return found
        node = self.part(setting.part, value, path, usual, depth + 1)
        return _MISSING if node is None else node

    def items(self, asked: type[Part], value: Any, path: str, depth: int) -> Any:
        """A list of parts."""
        if not isinstance(value, (list, tuple)):
            self.say(
                path,
                f"needs a list of {asked.kind or title(asked)}s, as in [{{…}}, {{…}}]; found {shown(value)}",
            )
            return _MISSING
        nodes = [self.part(asked, item, f"{path}[{i}]", None, depth + 1) for i, item in enumerate(value)]
        return [node for node in nodes if node is not None]

    def entries(self, asked: type[Part], value: Any, path: str, depth: int) -> Any:
        """Parts by name; an entry set to null is left out (so a child recipe can drop an inherited one)."""
        if not isinstance(value, Mapping):
            self.say(path, f"needs a map from names to {asked.kind or title(asked)}s; found {shown(value)}")
            return _MISSING
        found = {}
        for name, item in self.names(value, path).items():
            if not re.fullmatch(r"[\w-]{1,60}", name):
                self.say(path, f"the name {name!r:.60} may hold letters, digits, _ and - only")
            elif item is not None:
                node = self.part(asked, item, join(path, name), None, depth + 1)
                if node is not None:
                    found[name] = node
        return found


def _usual(owner: type[Part], name: str, siblings: Mapping[str, Any]) -> Any:
    """The default that a resolved sibling has for this setting, else the owner's; None where there is
    none."""
    for other, value in siblings.items():
        if other != name and isinstance(value, Node) and name in value.part.usual:
            return value.part.usual[name]
    return owner.usual.get(name)


def _would_be_usual(schema: Mapping[str, Setting], setting: Setting, done: Mapping[str, Any]) -> bool:
    """Whether a sibling that is not resolved, of some type, would have brought a default for this setting."""
    return any(
        setting.name in part.usual
        for other in schema.values()
        if other.part is not None and other.name not in done and other.name != setting.name and not other.many
        for part in choices(other.part).values()
    )


def _asked(part: type[Part]) -> str:
    names = ", ".join(choices(part))
    return f"{part.__name__}: one of {names}" if names else part.__name__


def _known(part: type[Part]) -> str:
    return f" Known: {', '.join(choices(part)) or 'none'}."


def _touch(place: str, other: str) -> bool:
    """Whether one path is the other or lies below it."""
    short, long = sorted((place, other), key=len)
    return long == short or long.startswith((short + ".", short + "[")) if short else place == other
