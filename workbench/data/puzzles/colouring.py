"""Colouring the nodes of a random graph."""

from __future__ import annotations

import functools
import itertools
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from workbench.core.errors import WorkbenchError
from workbench.data.base import Ids
from workbench.data.puzzles.base import Graded, Mask, Puzzle, placed, within

Nodes = Annotated[int, Interval(ge=3, le=12)]
Colours = Annotated[int, Interval(ge=2, le=5)]


@Puzzle.register("colouring")
class Colouring(Graded):
    """Colour a random graph so that no edge joins equal colours; graphs that cannot be coloured are left out.

    The hard region of three colours is near 4.69 / 2 edges a node (Krzakala, Pagnani & Weigt 2004). Tokens: 0 and 1 for
    no edge and an edge, 2 … for colours; the question is the upper triangle of the adjacency matrix, row by row, the
    answer one colour a node, of a colouring by lot. Any proper colouring counts. Broken: both ends of a bad edge.

    Settings:
        nodes: how many.
        colours: how many.
        edges: how many; between nodes by lot.
    """

    def __init__(self, nodes: Nodes = 8, colours: Colours = 3, edges: int = 16) -> None:
        """See Settings."""
        self.nodes, self.colours, self.edges = nodes, colours, edges
        self.ends = np.array(list(itertools.combinations(range(nodes), 2)))
        if not 1 <= edges <= len(self.ends):
            raise WorkbenchError(f"edges: {edges}; {nodes} nodes have 1 to {len(self.ends)}")
        self.vocab = 2 + colours
        self.question = len(self.ends)
        self.length = self.question + nodes

    def as_data(self) -> dict[str, Any]:
        """All settings."""
        return {"nodes": self.nodes, "colours": self.colours, "edges": self.edges}

    def candidate(self, rng: np.random.Generator) -> Ids | None:
        """A graph with one of its colourings, None where there is none."""
        edge_E = np.zeros(self.question, dtype=np.int64)
        edge_E[rng.permutation(self.question)[: self.edges]] = 1
        proper = properly(every_colouring(self.nodes, self.colours), self.ends[edge_E == 1])
        if not len(proper):
            return None
        return np.concatenate([edge_E, 2 + proper[rng.integers(len(proper))]])

    def broken(self, tokens_NL: Ids) -> Mask:
        """Ends of edges that join equal colours, and what is no colour."""
        edge_NE, colour_NK = tokens_NL[:, : self.question] == 1, tokens_NL[:, self.question :]
        bad_NE = edge_NE & (colour_NK[:, self.ends[:, 0]] == colour_NK[:, self.ends[:, 1]])
        at_EK = (self.ends[:, :, None] == np.arange(self.nodes)).any(1)
        return placed(self, (bad_NE[..., None] & at_EK).any(1) | ~within(colour_NK, 2, 2 + self.colours))


@functools.lru_cache(maxsize=2)
def every_colouring(nodes: int, colours: int) -> Ids:
    """All ways to give each node a colour, [colours^nodes, nodes]."""
    return (np.arange(colours**nodes)[:, None] // colours ** np.arange(nodes)) % colours


def properly(colour_NK: Ids, ends_E2: Ids) -> Ids:
    """Those colourings in which no edge joins equal colours."""
    for left, right in ends_E2.tolist():
        colour_NK = colour_NK[colour_NK[:, left] != colour_NK[:, right]]
    return colour_NK
