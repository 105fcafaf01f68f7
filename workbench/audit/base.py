"""The contract of a target: texts whose law is known exactly, with the exact score in place of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from graphs.base import Graph, Noise
from samplers.base import Canvas, ScoreView
from workbench.core.part import Part
from workbench.core.rng import Rng

REPEATS = 8
"""Sets of exact texts that give the noise floor."""


class Target(Part, ABC, kind="target"):
    """A law of texts: ``vocab`` tokens, ``length`` positions, ``texts`` drawn at a time."""

    vocab: int
    length: int
    texts: int

    @abstractmethod
    def view(self, graph: Graph, noise: Noise) -> ScoreView:
        """The exact score on a graph of ``vocab`` tokens."""

    @abstractmethod
    def exact(self, rng: Rng, set_number: int) -> Tensor:
        """``texts`` texts by the law itself, [B, L] int64."""

    @abstractmethod
    def figures(self, tokens_BL: Tensor) -> Mapping[str, float]:
        """Figures of texts by name; the same for any number of texts, but for their noise."""

    def truths(self) -> Mapping[str, float]:
        """Those of the figures whose true value is known in closed form."""
        return {}

    def canvas(self) -> Canvas:
        """What the sampler writes on."""
        return Canvas.blank(self.texts, self.length)


def floor(target: Target, rng: Rng) -> dict[str, tuple[float, float]]:
    """(mean, standard deviation) of every figure over sets of exact texts as large as a sampler's."""
    sets = [target.figures(target.exact(rng, number)) for number in range(REPEATS)]
    found = {}
    for name in sets[0]:
        values = torch.tensor([one[name] for one in sets], dtype=torch.float64)
        found[name] = float(values.mean()), float(values.std())
    return found


def text_entropy(tokens_BL: Tensor, vocab: int) -> float:
    """Mean entropy of a text's own token frequencies, in nats."""
    total = 0.0
    for row in tokens_BL:
        share = torch.bincount(row, minlength=vocab).double() / len(row)
        total -= float((share * share.clamp_min(1e-300).log()).sum())
    return total / len(tokens_BL)


def distance(seen_N: Tensor, law_N: Tensor) -> float:
    """Total variation of frequencies to a law."""
    return float((seen_N.double() / seen_N.sum() - law_N).abs().sum()) / 2
