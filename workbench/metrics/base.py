"""The contract of a metric: evidence in, named values with intervals out.

Evidence is gathered once and lazily (a table without sample columns draws no samples) and shared by all
metrics. Nothing here needs torch: whoever evaluates hands over numpy arrays and strings.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import Count, Natural
from workbench.core.errors import Problem, WorkbenchError
from workbench.core.part import Part, Section
from workbench.metrics.solving import Attempts, Solving
from workbench.metrics.value import Better, Value

if TYPE_CHECKING:
    from workbench.core.node import Node

T = TypeVar("T")


class MissingEvidence(WorkbenchError):
    """A metric asked for something this evaluation does not gather."""


# --- what goes in -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """Negative log-likelihood of B held-out blocks.

    ``nats_BK`` [B, K] float64 for K noise draws (K = 1 where exact), in the order of their strata;
    ``bytes_B`` int64, the bytes of text in each block; ``tokens_BL`` int64, the blocks themselves; ``kind``:
    "exact", or "upper" for a bound; ``parts``: the bound's terms by name, nats per block [B]; ``document_B``:
    which document a block belongs to, where known (blocks of one document are one cluster).
    """

    nats_BK: npt.NDArray[np.float64]
    bytes_B: npt.NDArray[np.int64]
    tokens_BL: npt.NDArray[np.int64]
    kind: Literal["exact", "upper"] = "exact"
    parts: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    document_B: npt.NDArray[np.int64] | None = None

    @property
    def relation(self) -> Literal["=", "≤"]:
        """What a figure made of these nats says of the true one."""
        return "=" if self.kind == "exact" else "≤"


@dataclass(frozen=True)
class Texts:
    """N sequences of L tokens, [N, L] int64, beside their decoded texts."""

    tokens_NL: npt.NDArray[np.int64]
    texts: Sequence[str]


@dataclass(frozen=True)
class Drawn(Texts):
    """Texts drawn from a model.

    ``seconds``: wall clock for all of them; ``calls``: network calls each sequence went through, averaged
    over batches; ``batch``: sequences drawn at a time; ``sampler``: how, in words; ``device``: where.
    """

    seconds: float = math.nan
    calls: float = math.nan
    batch: int = 0
    sampler: str = ""
    device: str = ""


@dataclass(frozen=True)
class Cost:
    """What a run took.

    ``tokens_per_second``: the training log's entries; ``seconds``: training's wall clock; ``tokens``: trained
    on; ``parameters`` in all and ``parameters_non_embedding`` (without token and position embeddings).
    """

    tokens_per_second: Sequence[float] = ()
    seconds: float | None = None
    tokens: int | None = None
    parameters: int | None = None
    parameters_non_embedding: int | None = None
    device: str = ""


class _Lazy(Generic[T]):
    """A value made when first asked for; a failure is kept too, so that a slow source fails once."""

    def __init__(self, name: str, source: T | Callable[[], T] | None) -> None:
        self.name, self.source = name, source
        self.value: T | None = None
        self.error: Exception | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        if self.value is None:
            if self.source is None:
                raise MissingEvidence(f"this evaluation gathers no {self.name!r}")
            try:
                self.value = self.source() if callable(self.source) else self.source
            except Exception as error:
                self.error = error
                raise
        return self.value


class Evidence:
    """What metrics may look at. Each entry is a value, or a function that makes it when first asked for.

    ``bound``: likelihood of held-out blocks. ``samples``: drawn texts. ``real``: held-out texts, as many and
    as long as the samples. ``unigram``: token counts [V] of the train split. ``known_words``: the train
    split's words (`diversity.word_set`). ``cost``: training's records. ``attempts``: at held-out puzzles.
    """

    def __init__(
        self,
        *,
        bound: HeldOut | Callable[[], HeldOut] | None = None,
        samples: Drawn | Callable[[], Drawn] | None = None,
        real: Texts | Callable[[], Texts] | None = None,
        unigram: npt.NDArray[np.int64] | Callable[[], npt.NDArray[np.int64]] | None = None,
        known_words: frozenset[str] | Callable[[], frozenset[str]] | None = None,
        cost: Cost | Callable[[], Cost] | None = None,
        attempts: Attempts | Callable[[], Attempts] | None = None,
    ) -> None:
        """What is left out raises `MissingEvidence` when asked for."""
        self._bound = _Lazy[HeldOut]("bound", bound)
        self._samples = _Lazy[Drawn]("samples", samples)
        self._real = _Lazy[Texts]("real", real)
        self._unigram = _Lazy[npt.NDArray[np.int64]]("unigram", unigram)
        self._known_words = _Lazy[frozenset[str]]("known_words", known_words)
        self._cost = _Lazy[Cost]("cost", cost)
        self._attempts = _Lazy[Attempts]("attempts", attempts)

    @property
    def bound(self) -> HeldOut:
        """Likelihood of held-out blocks."""
        return self._bound.get()

    @property
    def samples(self) -> Drawn:
        """Drawn texts."""
        return self._samples.get()

    @property
    def real(self) -> Texts:
        """Held-out texts, as many and as long as the samples."""
        return self._real.get()

    @property
    def unigram(self) -> npt.NDArray[np.int64]:
        """Token counts [V] of the train split."""
        return self._unigram.get()

    @property
    def known_words(self) -> frozenset[str]:
        """The train split's words."""
        return self._known_words.get()

    @property
    def cost(self) -> Cost:
        """Training's records."""
        return self._cost.get()

    @property
    def attempts(self) -> Attempts:
        """Attempts at held-out puzzles."""
        return self._attempts.get()


# --- parts --------------------------------------------------------------------------------------------------


class Metric(Part, ABC, kind="metric"):
    """A figure, or a family of figures, of a trained model.

    ``better``: which way is better, where that can be said. ``needs``: the entries of `Evidence` it reads.
    """

    better: ClassVar[Better] = "neither"
    needs: ClassVar[frozenset[str]] = frozenset()

    def columns(self) -> tuple[str, ...]:
        """Names of the values it gives: one, its own, unless said otherwise."""
        return (self.type_name,)

    @abstractmethod
    def __call__(self, evidence: Evidence) -> list[Value]:
        """The values, one for each of `columns`. Pure: the same evidence gives the same values."""


class Evaluation(Section):
    """One evaluation of a recipe: what is measured, on how much, how often.

    Settings:
        metrics: what to measure.
        blocks: held-out blocks whose likelihood is measured; 0 takes all of them.
        draws: noise draws a block, where the likelihood is a bound.
        samples: sequences to draw; 0 draws none.
        batch: blocks or sequences handled at a time.
        every: steps between evaluations while training; 0 evaluates once, at the end.
        solving: how held-out puzzles are attempted, on a corpus that has a checker.
    """

    usual: ClassVar[Mapping[str, Any]] = {
        "metrics": [{"type": "bits_per_byte"}, {"type": "unigram_bits_per_byte"}],
    }

    def __init__(
        self,
        metrics: list[Metric],
        blocks: Natural = 0,
        draws: Count = 1,
        samples: Natural = 0,
        batch: Count = 64,
        every: Natural = 0,
        solving: Solving | None = None,
    ) -> None:
        """Keep the settings."""
        self.metrics = metrics
        self.blocks, self.draws, self.samples, self.batch, self.every = blocks, draws, samples, batch, every
        self.solving = solving

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A metric that looks at samples where none are drawn."""
        yield from super().misfits(node, root)
        for metric in node.settings["metrics"]:
            if "samples" in metric.part.needs and not node.settings["samples"]:
                message = f"{metric.part.type_name} measures samples and none are drawn; set samples: 64, say"
                yield Problem(f"{node.path}.samples" if node.path else "samples", message)
                break
        for metric in node.settings["metrics"]:
            if "attempts" in metric.part.needs and node.settings["solving"] is None:
                message = f"{metric.part.type_name} measures attempts at puzzles and none are made; set solving: {{}}"
                yield Problem(f"{node.path}.solving".lstrip("."), message)
                break


def needed(metrics: Iterable[Metric]) -> frozenset[str]:
    """The entries of `Evidence` that these metrics read."""
    return frozenset().union(*(metric.needs for metric in metrics))


def measure(metrics: Iterable[Metric], evidence: Evidence) -> list[Value]:
    """All values of all metrics. A metric that raises is reported in its cells and fails nothing else."""
    values: list[Value] = []
    for metric in metrics:
        try:
            values += metric(evidence)
        except Exception as error:
            reason = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
            values += [Value(name, None, better=metric.better, error=reason) for name in metric.columns()]
    return values
