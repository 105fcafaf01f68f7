"""A small world of parts for tests of the core: no torch, no package parts."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Literal

from workbench.core.bounds import Count, Natural, NonNegative, Positive, Probability
from workbench.core.errors import Problem
from workbench.core.part import Maker, Part, Section


class Chain(Part, ABC, kind="toy_chain", supplied=("vocab",)):
    """A toy graph."""

    def __init__(self) -> None:
        """Nothing."""


class Pace(Part, ABC, kind="toy_pace"):
    """A toy noise."""


class Layer(Part, ABC, kind="toy_layer", supplied=("dim", "place")):
    """A toy mixer: wants what only its owner knows."""


class Law(Part, ABC, kind="toy_law", supplied=("vocab",)):
    """A toy process."""


class Filter(Part, ABC, kind="toy_filter"):
    """A toy shaper."""


@Pace.register("even")
class Even(Pace):
    """Even.

    Settings:
        eps: where it
            ends.
        steps: how many.
    """

    def __init__(self, eps: Positive = 1e-3, steps: Count = 8) -> None:
        """Keep."""
        self.eps, self.steps = eps, steps


@Pace.register("steep")
class Steep(Pace):
    """Steep.

    Settings:
        low: first.
        high: last.
    """

    def __init__(self, low: Positive = 1e-3, high: Positive = 20.0) -> None:
        """Keep."""
        self.low, self.high = low, high


@Chain.register("sink")
class Sink(Chain):
    """A chain with its own pace.

    Settings:
        floor: lowest.
    """

    usual: ClassVar = {"pace": {"type": "even", "steps": 4}}

    def __init__(self, vocab: int, floor: Probability = 0.0) -> None:
        """Keep."""
        self.vocab, self.floor = vocab, floor


@Chain.register("flat")
class Flat(Chain):
    """A chain without settings."""

    usual: ClassVar = {"pace": "steep"}

    def __init__(self, vocab: int) -> None:
        """Keep."""
        self.vocab = vocab


@Filter.register("cut")
class Cut(Filter):
    """Cut.

    Settings:
        p: share kept.
        mode: how.
    """

    def __init__(self, p: Probability, mode: Literal["hard", "soft"] = "hard") -> None:
        """Keep."""
        self.p, self.mode = p, mode


@Filter.register("chain")
class ChainOfFilters(Filter):
    """Filters in a row.

    Settings:
        inner: the filters.
    """

    def __init__(self, inner: list[Filter]) -> None:
        """Keep."""
        self.inner = inner


@Layer.register("mix")
class Mix(Layer):
    """A layer.

    Settings:
        heads: how many.
    """

    def __init__(self, dim: int, place: int, heads: Count = 2) -> None:
        """Keep."""
        self.dim, self.place, self.heads = dim, place, heads


@Law.register("spread")
class Spread(Law):
    """The main toy: a sibling's usual, its own usual, lists, maps, makers.

    Settings:
        pace: the schedule.
        chain: the graph; before ``pace`` in time though not in the signature.
        filters: a list.
        named: a map.
        dim: width.
        layer: a maker.
        odd: weights.
    """

    usual: ClassVar = {"chain": {"type": "sink"}, "layer": "mix", "dim": 12}

    def __init__(
        self,
        vocab: int,
        pace: Pace,
        chain: Chain,
        layer: Maker[Layer],
        dim: Count,
        filters: list[Filter] | None = None,
        named: dict[str, Filter] | None = None,
        odd: tuple[float, ...] = (1.0, 2.0),
    ) -> None:
        """Keep."""
        self.vocab, self.pace, self.chain, self.filters = vocab, pace, chain, filters
        self.named, self.dim, self.odd = named, dim, odd
        self.layers = [layer(place=place) for place in range(3)]

    @classmethod
    def misfits(cls, node, root):
        """A width beyond the trainer's."""
        yield from super().misfits(node, root)
        if node.settings["dim"] > root.settings["fit"].settings["batch"] * 100:
            yield Problem(f"{node.path}.dim", "is too wide for this batch")


class Fit(Section):
    """How.

    Settings:
        steps: how long.
        batch: how many.
        rate: how fast.
        clip: how far.
        loud: whether to speak.
        device: where.
    """

    def __init__(
        self,
        steps: Count,
        batch: Natural = 4,
        rate: Positive = 1e-3,
        clip: NonNegative | None = None,
        loud: bool = False,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        """Keep."""
        self.steps, self.batch, self.rate, self.clip, self.loud = steps, batch, rate, clip, loud
        self.device = device


class Study(Section):
    """A toy recipe.

    Settings:
        name: of the study.
        law: the process.
        fit: the training.
        tests: evaluations.
        seed: of chance.
        plugins: files.
    """

    def __init__(
        self,
        name: str,
        law: Law,
        fit: Fit,
        tests: dict[str, Fit] | None = None,
        seed: Natural = 0,
        plugins: list[str] | None = None,
    ) -> None:
        """Keep."""
        self.name, self.law, self.fit, self.tests, self.seed, self.plugins = name, law, fit, tests, seed, plugins


def valid() -> dict:
    """A recipe that uses everything."""
    return {
        "name": "toy",
        "law": {
            "type": "spread",
            "chain": {"type": "sink", "floor": 0.25},
            "filters": [{"type": "cut", "p": 0.5}, {"type": "chain", "inner": [{"type": "cut", "p": "1e-1"}]}],
            "named": {"last": {"type": "cut", "p": 0.1, "mode": "soft"}},
            "odd": [1, 2.5],
        },
        "fit": {"steps": 10, "rate": "1e-4"},
        "tests": {"valid": {"steps": 2}},
    }
