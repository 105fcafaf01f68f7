"""What fits what in a reverse sampler: declared by the parts, asked while resolving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from graphs.base import Graph
from samplers.base import Lens, Predictor, ScoreView
from workbench.core.errors import Problem
from workbench.core.spec import Node


def misfits_of(node: Node, root: Node) -> Iterator[Problem]:
    """Predictors, correctors, shapers and lenses of a sampler that do not fit the recipe's graph or one another."""
    yield from _views(node.settings["lenses"], root)
    found = root.under("process", "graph") or root.find("graph")
    if found is None:
        return
    graph = cast("type[Graph]", found.part)
    chosen, correctors = node.settings["predictor"], node.settings["correctors"]
    graphs: list[Any] = list(Graph.registered.values())
    predictors: list[Any] = list(Predictor.registered.values())
    yield from _sights([chosen, *correctors], graph, root)
    for child in [chosen, *correctors, *node.settings["lenses"]]:
        if child.part.graphs == "mask" and not (graph.mask and graph.blind):
            why = "tokens move too" if graph.mask else "there is none"
            yield Problem(
                child.path,
                f"{child.part.kind} {child.part.type_name!r} needs a graph with a mask on which only masks move; on "
                f"{graph.type_name!r} {why}. {_these('Graphs', [one for one in graphs if one.mask and one.blind])}",
            )
    for child in correctors:
        if not child.part.corrects:
            yield Problem(
                child.path,
                f"predictor {child.part.type_name!r} does nothing at t = s and cannot be a corrector. "
                f"{_these('Correctors', [one for one in predictors if one.corrects])}",
            )
    if node.settings["shapers"] and not _takes_shapers(chosen.part, graph):
        why = "takes no shapers"
        if chosen.part.shapes == "mask":
            why = f"takes shapers on masked graphs only; on {graph.type_name!r} it never sees the clean law"
        yield Problem(
            f"{node.path}.shapers".lstrip("."),
            f"predictor {chosen.part.type_name!r} {why}. "
            f"{_these('Predictors', [one for one in predictors if _takes_shapers(one, graph)])}",
        )


def _sights(rules: Sequence[Node], graph: type[Graph], root: Node) -> Iterator[Problem]:
    """Rules that read settled tokens' laws beside a backbone that sees them."""
    backbone = root.find("backbone")
    for child in rules if backbone is not None and graph.blind else ():
        rule, net = cast("type[Predictor]", child.part), cast("Any", backbone).part
        if rule.sight != "all" and net.sight(cast("Node", backbone).settings) != rule.sight:
            able = [
                one.type_name
                for one in Predictor.registered.values()
                if cast("type[Predictor]", one).corrects and cast("type[Predictor]", one).sight == "all"
            ]
            yield Problem(
                child.path,
                f"predictor {rule.type_name!r} reads the law of settled tokens given the others, and backbone "
                f"{net.type_name!r} sees them. What would fit: a backbone whose sight is 'others' (hollow), or a "
                f"corrector without that need: {', '.join(sorted(able))}.",
            )


def _views(lenses: Sequence[Node], root: Node) -> Iterator[Problem]:
    """Lenses that ask more of a view than a score: of a process that does not offer it, or of another lens."""
    process = cast("Any", root.find("process"))
    for place, child in enumerate(lenses):
        needs = cast("type[Lens]", child.part).needs
        if needs is ScoreView:
            continue
        if process is not None and not issubclass(process.part.offers, needs):
            able = [one for one in process.part.registered.values() if issubclass(one.offers, needs)]
            yield Problem(
                child.path,
                f"lens {child.part.type_name!r} needs a {needs.__name__}, and process {process.part.type_name!r} "
                f"offers a {process.part.offers.__name__}. {_these('Processes', able)}",
            )
        if place:
            yield Problem(
                child.path,
                f"lens {child.part.type_name!r} looks at the network itself, not through another lens: put it first",
            )


def _takes_shapers(predictor: type[Predictor], graph: type[Graph]) -> bool:
    """Whether the predictor reaches the law of the clean token on this graph."""
    return predictor.shapes == "clean" or (predictor.shapes == "mask" and graph.blind)


def _these(what: str, able: Sequence[type[Any]]) -> str:
    """What would fit, by name."""
    return f"{what} that fit: {', '.join(sorted(part.type_name for part in able)) or 'none yet'}."
