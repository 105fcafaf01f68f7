"""A small network that can be enumerated: outputs for every state, and what it costs there."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from backbones.base import Backbone

V, L = 3, 3
X0 = np.array([2, 0, 1])
OUT = np.random.default_rng(7).normal(0, 1.5, ((V + 1) ** L, L, V + 1))
"""Outputs of a network that hears no time, for every state."""


class Table(Backbone):
    """The network of ``OUT`` (its head is the identity), in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(V + 1, V + 1, bias=False).double()
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(V + 1))

    def forward(self, x_BL, sigma=None, cache=None):
        return torch.from_numpy(OUT[np.ravel_multi_index(tuple(x_BL.numpy().T), (V + 1,) * L)])


def cost(masked) -> float:
    """Σ over masks of −log p(x0 | x) of the table's normalised law."""
    x = np.where(masked, V, X0)
    out = OUT[np.ravel_multi_index(tuple(x), (V + 1,) * L)][:, :V]
    log_p = out - np.log(np.exp(out).sum(-1, keepdims=True))
    return float(-log_p[np.arange(L), X0][np.array(masked)].sum())


def slack(masked) -> float:
    """Σ over masks of Z − 1 − ln Z, Z the sum of the table's scores times e^σ − 1."""
    x = np.where(masked, V, X0)
    total = np.exp(OUT[np.ravel_multi_index(tuple(x), (V + 1,) * L)][:, :V]).sum(-1) / V
    return float((total - 1 - np.log(total))[np.array(masked)].sum())


MASKS = list(itertools.product([False, True], repeat=L))
def by_count(of=cost) -> float:
    """E over k = 1 … L, even, of L/k times the mean cost of k masks."""
    means = [np.mean([of(mask) for mask in MASKS if sum(mask) == k]) for k in range(1, L + 1)]
    return float(np.mean([L / k * mean for k, mean in enumerate(means, start=1)]))
