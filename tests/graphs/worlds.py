"""The small worlds of these tests: a graph of the package beside the oracle's rate matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch

import graphs.absorbing
import graphs.dense
import graphs.uniform
from graphs.base import Graph
from tests import oracle


class World(NamedTuple):
    graph: Graph
    Q: oracle.Array

    @property
    def states(self) -> int:
        return len(self.Q)


WORLDS = {
    "absorbing": World(graphs.absorbing.Absorbing(4), oracle.absorbing(4)),
    "uniform": World(graphs.uniform.Uniform(4), oracle.uniform(4)),
    "ring": World(graphs.dense.Ring(5, forward=1.0, backward=0.3), oracle.ring(5, 1.0, 0.3)),
    "random": World(graphs.dense.Dense(4, rates=oracle.random(4, seed=3).tolist()), oracle.random(4, seed=3)),
}


def full(like: torch.Tensor, value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """``value`` at every row of ``like``."""
    return torch.full(like.shape, value, dtype=dtype)
