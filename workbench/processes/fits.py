"""What parts of a diffusion process need of one another, said once: problems while resolving."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.core.errors import Problem

if TYPE_CHECKING:
    from workbench.core.node import Node


def needs_graph(node: Node, root: Node, wanted: type[Any]) -> Iterator[Problem]:
    """A problem where the recipe's graph is not ``wanted`` or derived from it."""
    graph: Any = root.under("process", "graph")
    if graph is None or issubclass(graph.part, wanted):
        return
    fitting = [name for name, one in sorted(graph.part.registered.items()) if issubclass(one, wanted)]
    yield Problem(
        node.path,
        f"{node.part.kind} {node.part.type_name!r} is the formula of one graph, and graph {graph.part.type_name!r} is "
        f"another. Graphs that fit: {', '.join(fitting)}.",
    )


def needs_masks_only(node: Node, root: Node) -> Iterator[Problem]:
    """A problem where tokens of the recipe's graph move other than into a mask and out of it."""
    graph: Any = root.under("process", "graph")
    if graph is None or (graph.part.mask and graph.part.blind):
        return
    fitting = [name for name, one in sorted(graph.part.registered.items()) if one.mask and one.blind]
    why = "tokens move there too" if graph.part.mask else "it has none"
    yield Problem(
        node.path,
        f"{node.part.kind} {node.part.type_name!r} needs a graph with a mask on which only masks move, and graph "
        f"{graph.part.type_name!r} is none: {why}. Graphs that fit: {', '.join(fitting)}.",
    )
