"""What metrics look at: gathered once and lazily (a table without sample columns draws no samples), shared by all.

Nothing here needs torch: whoever evaluates hands over numpy arrays and strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from workbench.core.errors import WorkbenchError
from workbench.metrics.asking import Answered
from workbench.metrics.judge import Judge
from workbench.metrics.sets import OnSet
from workbench.metrics.solving import Attempts
from workbench.metrics.timing import Timed

T = TypeVar("T")


class MissingEvidence(WorkbenchError):
    """A metric asked for something this evaluation does not gather."""


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
    """N sequences of L tokens, [N, L] int64, beside their decoded texts.

    ``tokenizer``: digest of the tokenizer whose ids they are, where known: a judge of the same ids reads them as
    they stand.
    """

    tokens_NL: npt.NDArray[np.int64]
    texts: Sequence[str]
    tokenizer: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Drawn(Texts):
    """Texts drawn from a model.

    ``seconds``: wall clock for all of them; ``calls``: network calls each sequence went through, averaged
    over batches; ``batch``: sequences drawn at a time; ``sampler``: how, in words; ``device``: where;
    ``machine``: its name, by which seconds are told apart.
    """

    seconds: float = math.nan
    calls: float = math.nan
    batch: int = 0
    sampler: str = ""
    device: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Continued:
    """P prompts and what a model made of them, ``each`` times: sequences [P · each, T], those of a prompt side by side.

    ``before`` and ``after``: how many tokens at the two ends are given (``after`` = 0 but where a gap is filled);
    ``drawn``: the drawn sequences, prompt included; ``real``: the held-out ones [P, T] that the prompts were cut
    from; ``given``: the text of the ``before`` tokens of each prompt [P]; ``drawn_rest`` [P · each] and ``real_rest``
    [P]: the texts of all tokens after those (at a gap, with the given end); ``key``: digest of the prompts: runs with
    the same key are compared prompt by prompt.
    """

    before: int
    after: int
    each: int
    drawn: Drawn
    real: Texts
    given: Sequence[str]
    drawn_rest: Sequence[str]
    real_rest: Sequence[str]
    key: str

    @property
    def free(self) -> slice:
        """The drawn positions."""
        return slice(self.before, self.drawn.tokens_NL.shape[1] - self.after)

    @property
    def prompt_N(self) -> npt.NDArray[np.int64]:
        """Which prompt a drawn sequence belongs to: sequences of one prompt are one cluster."""
        return np.repeat(np.arange(len(self.given)), self.each)


@dataclass(frozen=True)
class Cost:
    """What a run took.

    ``tokens_per_second``: the training log's entries; ``seconds``: training's wall clock; ``tokens``: trained
    on; ``parameters`` in all and ``parameters_non_embedding`` (without token and position embeddings); ``machine``:
    the name of that which trained, where it is known.
    """

    tokens_per_second: Sequence[float] = ()
    seconds: float | None = None
    tokens: int | None = None
    parameters: int | None = None
    parameters_non_embedding: int | None = None
    device: str = ""
    machine: str = ""


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
    as long as the samples; ``calibration``: what no model wrote, made of them, by name (`value.SHUFFLED`); nothing
    where it is left out. ``unigram``: token counts [V] of the train split. ``known_words``: the train split's words
    (`diversity.word_set`). ``cost``: training's records. ``attempts``: at held-out puzzles. ``timings``: draws timed
    alone, by size of the batch. ``answers``: to downstream tasks. ``sets``: the likelihood of evaluation sets.
    """

    def __init__(
        self,
        *,
        bound: HeldOut | Callable[[], HeldOut] | None = None,
        samples: Drawn | Callable[[], Drawn] | None = None,
        real: Texts | Callable[[], Texts] | None = None,
        calibration: Mapping[str, Texts] | Callable[[], Mapping[str, Texts]] = MappingProxyType({}),
        unigram: npt.NDArray[np.int64] | Callable[[], npt.NDArray[np.int64]] | None = None,
        known_words: frozenset[str] | Callable[[], frozenset[str]] | None = None,
        cost: Cost | Callable[[], Cost] | None = None,
        judge: Judge | None = None,
        continuations: Mapping[str, Continued] | Callable[[], Mapping[str, Continued]] | None = None,
        attempts: Attempts | Callable[[], Attempts] | None = None,
        timings: Sequence[Timed] | Callable[[], Sequence[Timed]] | None = None,
        answers: Mapping[str, Answered] | Callable[[], Mapping[str, Answered]] | None = None,
        kinds: Mapping[str, Sequence[str]] | None = None,
        sets: Mapping[str, OnSet] | Callable[[], Mapping[str, OnSet]] | None = None,
    ) -> None:
        """What is left out raises `MissingEvidence` when asked for. ``kinds``: `Evaluation.kinds`."""
        self.kinds = dict(kinds or {})
        self._bound = _Lazy[HeldOut]("bound", bound)
        self._samples = _Lazy[Drawn]("samples", samples)
        self._real = _Lazy[Texts]("real", real)
        self._calibration = _Lazy[Mapping[str, Texts]]("calibration", calibration)
        self._unigram = _Lazy[npt.NDArray[np.int64]]("unigram", unigram)
        self._known_words = _Lazy[frozenset[str]]("known_words", known_words)
        self._cost = _Lazy[Cost]("cost", cost)
        self._judge = _Lazy[Judge]("judge", judge)
        self._attempts = _Lazy[Attempts]("attempts", attempts)
        self._answers = _Lazy[Mapping[str, Answered]]("answers", answers)
        self._timings = _Lazy[Sequence[Timed]]("timings", timings)
        self._sets = _Lazy[Mapping[str, OnSet]]("sets", sets)
        self._continuations = _Lazy[Mapping[str, Continued]]("continuations", continuations)

    @property
    def bound(self) -> HeldOut:
        """Likelihood of held-out blocks."""
        return self._bound.get()

    @property
    def attempts(self) -> Attempts:
        """Attempts at held-out puzzles."""
        return self._attempts.get()

    @property
    def answers(self) -> Mapping[str, Answered]:
        """Answers to downstream tasks, by task."""
        return self._answers.get()

    @property
    def timings(self) -> Sequence[Timed]:
        """Draws timed alone."""
        return self._timings.get()

    @property
    def samples(self) -> Drawn:
        """Drawn texts."""
        return self._samples.get()

    @property
    def real(self) -> Texts:
        """Held-out texts, as many and as long as the samples."""
        return self._real.get()

    @property
    def calibration(self) -> Mapping[str, Texts]:
        """What no model wrote, as many texts and as long as the real ones."""
        return self._calibration.get()

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
    def judge(self) -> Judge:
        """A language model that reads texts."""
        return self._judge.get()

    @property
    def continuations(self) -> Mapping[str, Continued]:
        """What was made of prompts, by the prompts' name."""
        return self._continuations.get()

    @property
    def sets(self) -> Mapping[str, OnSet]:
        """Likelihood of evaluation sets, by their names."""
        return self._sets.get()
