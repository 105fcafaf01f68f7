"""Resolved parts: a tree of nodes, pure data, between a recipe and its objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.core.part import Part, Section
from workbench.core.values import plain


@dataclass(frozen=True)
class Node:
    """A resolved part: its class, its settings (plain values and nodes) and its dotted path in the recipe."""

    part: type[Part]
    settings: dict[str, Any] = field(default_factory=dict)
    path: str = ""

    def as_data(self) -> dict[str, Any]:
        """Plain data that resolves to this node again: ``type`` first (sections have none), then the
        settings."""
        head = {} if issubclass(self.part, Section) else {"type": self.part.type_name}
        return head | {name: _as_data(value, Node.as_data) for name, value in self.settings.items()}

    def material(self, afterwards: bool = True) -> dict[str, Any]:
        """``as_data`` without what parts declare immaterial or neutral; without what comes after training if asked.

        What names other things stands by their content (`Part.known_as`).
        """
        out = self.part.immaterial if afterwards else self.part.immaterial | self.part.afterwards
        head = {} if issubclass(self.part, Section) else {"type": self.part.type_name}
        neutral = {name for name, value in self.part.neutral.items() if self.settings.get(name) == value}
        known = self.part.known_as(self.settings)
        kept = {name: value for name, value in known.items() if name not in out | neutral}
        return head | {name: _as_data(value, lambda node: node.material(afterwards)) for name, value in kept.items()}

    def find(self, path: str) -> Node | None:
        """The node at a dotted path below this one (``process.graph``, ``sampler.shapers[0]``), None if none is."""
        value: Any = self
        for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
            if index:
                value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
            else:
                held = value.settings if isinstance(value, Node) else value
                value = held.get(name) if isinstance(held, Mapping) else None
        return value if isinstance(value, Node) else None

    def under(self, path: str, kind: str) -> Node | None:
        """The first part of a kind at or below a dotted path, owners first: a process may stand around another."""
        start = self.find(path)
        return None if start is None else next((node for node in start.walk() if node.part.kind == kind), None)

    def walk(self, afterwards: bool = True) -> Iterator[Node]:
        """This node and all below it, owners first; ``afterwards``: what comes after training too."""
        yield self
        for name, value in self.settings.items():
            if afterwards or name not in self.part.afterwards:
                for inner in nodes(value):
                    yield from inner.walk(afterwards)


def choices(part: type[Part]) -> dict[str, type[Part]]:
    """The registered parts that fit where ``part`` is asked for, by name."""
    return {name: found for name, found in sorted(part.registered.items()) if issubclass(found, part)}


def title(part: type[Part]) -> str:
    """How messages call a part: ``graph 'absorbing'``, or a section's own name."""
    return f"{part.kind} {part.type_name!r}" if part.type_name else part.__name__.lower()


def nodes(value: Any) -> Iterator[Node]:
    """The nodes that a setting's value is or holds."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, Node):
                yield item


def _as_data(value: Any, of_node: Callable[[Node], dict[str, Any]]) -> Any:
    if isinstance(value, Node):
        return of_node(value)
    if isinstance(value, dict):
        return {name: _as_data(item, of_node) for name, item in value.items()} if any(nodes(value)) else plain(value)
    if isinstance(value, list):
        return [_as_data(item, of_node) for item in value] if any(nodes(value)) else plain(value)
    return plain(value)
