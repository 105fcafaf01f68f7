"""Log-likelihoods of continuations and whole texts by a run, in batches of equal length, windows where text is long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.opening import Opened

Scoring = Literal["suffix", "full"]
Tell = Callable[[int], None]
"""Told how many pieces more are done."""


@dataclass(frozen=True)
class Asked:
    """A text's ids, those that stand ``before`` it, and the number of the question: one number, one noise."""

    before: Sequence[int]
    text: Sequence[int]
    question: int


@dataclass(frozen=True)
class Scored:
    """``log_p`` in nats: exact, or minus an upper bound of −log p; ``greedy``: every token of the text was the
    likeliest of one look; ``tokens``: how many the figure covers.
    """

    log_p: float
    greedy: bool
    tokens: int


@dataclass(frozen=True)
class Piece:
    """What the network sees at once: ids ``given``, then ids that are scored; ``of``: whose text they are of."""

    given: tuple[int, ...]
    ids: tuple[int, ...]
    of: int


def pieces(before: Sequence[int], text: Sequence[int], reach: int, head: Sequence[int] = ()) -> Iterator[Piece]:
    """Cut a text into pieces that fit, each after as much of what stands before it as fits, and ``head`` in front.

    At least one id stands before a piece where there is any. A text that fits is one piece, what stands before it
    cut on the left.
    """
    room = reach - len(head)
    size = room if head else room - 1
    for start in range(0, len(text), size):
        piece = tuple(text[start : start + size])
        past = (*before, *text[:start])
        kept = past[max(0, len(past) - (room - len(piece))) :] if room > len(piece) else ()
        yield Piece((*head, *kept), piece, 0)


def blocks(before: Sequence[int], text: Sequence[int], length: int) -> Iterator[Piece]:
    """Cut a text into blocks of ``length`` that share nothing; what stands before it (cut on the left) is scored with
    the first, where there is room."""
    for start in range(0, len(text), length):
        ids = tuple(text[start : start + length])
        kept = tuple(before)[max(0, len(before) - (length - len(ids))) :] if not start and length > len(ids) else ()
        yield Piece(kept, ids, 0)


class Scorer:
    """Scores texts by a run.

    ``scoring`` "suffix": log p of the text given what stands before it, which stays clean (exact left to right; where
    masks are drawn, `workbench.processes.continuations`). "full": log p of both together by the process's own estimate
    of held-out text, what stands before noised like the rest. ``start``: the end-of-text token in front of everything
    ("suffix" alone). ``per_token``: divided by the number of tokens that the figure covers.
    """

    def __init__(
        self,
        opened: Opened,
        scoring: Scoring = "suffix",
        draws: int = 128,
        start: bool = True,
        pmi: float = 0.0,
        per_token: bool = False,
        batch: int = 32,
        seed: int = 0,
    ) -> None:
        """``draws`` of noise a text; ``pmi``: how much of log p(text) by itself is taken off; ``seed`` of the noise."""
        self.opened, self.process, self.eos = opened, opened.model.process, int(opened.model.tokenizer.eos)
        self.scoring, self.draws, self.start, self.pmi = scoring, draws, start, pmi
        self.per_token, self.batch = per_token, batch
        self.rng = Rng(seed).child("tasks")
        self.cut = self.split = 0
        self._autocast = opened.examiner().autocast

    @property
    def whole(self) -> bool:
        """Whether context and continuation are scored as one text."""
        return self.scoring == "full"

    def continuations(self, asked: Sequence[Asked], tell: Tell | None = None) -> list[Scored]:
        """A figure for each text; less ``pmi`` times that of the text by itself."""
        scored = self.texts(asked, tell)
        if self.pmi:
            alone = self.texts([Asked((), one.text, one.question) for one in asked], count=False)
            scored = [
                Scored(one.log_p - self.pmi * other.log_p, one.greedy, one.tokens)
                for one, other in zip(scored, alone, strict=True)
            ]
        return scored

    def texts(self, asked: Sequence[Asked], tell: Tell | None = None, count: bool = True) -> list[Scored]:
        """The same without ``pmi``. ``count``: what is cut is added up."""
        groups: dict[tuple[int, int], list[Piece]] = defaultdict(list)
        for index, one in enumerate(asked):
            found = list(self._pieces(one))
            if count:
                self.split += len(found) > 1
                # what a piece sees of before, the token in front not counted
                seen = len(found[0].given) - len(self._head())
                self.cut += seen < len(one.before)
            for piece in found:
                groups[len(piece.given), len(piece.ids)].append(Piece(piece.given, piece.ids, index))
        log_p, tokens = np.zeros(len(asked)), np.zeros(len(asked), dtype=np.int64)
        greedy = np.ones(len(asked), dtype=bool)
        for given, n in sorted(groups, key=sum, reverse=True):  # what needs most memory first
            group = groups[given, n]
            for part in (group[i : i + self.batch] for i in range(0, len(group), self.batch)):
                of_B = np.array([piece.of for piece in part])
                nats_B, right_B = self._score(part, given, np.array([asked[piece.of].question for piece in part]))
                np.add.at(log_p, of_B, -nats_B)
                np.add.at(tokens, of_B, given + n if self.whole else n)
                np.logical_and.at(greedy, of_B, right_B)
                if tell is not None:
                    tell(len(part))
        if self.per_token:
            log_p = log_p / np.maximum(1, tokens)
        return [Scored(float(a), bool(b), int(c)) for a, b, c in zip(log_p, greedy, tokens, strict=True)]

    def _head(self) -> tuple[int, ...]:
        return (self.eos,) if self.start and not self.whole else ()

    def _pieces(self, one: Asked) -> Iterable[Piece]:
        if not one.text:
            raise WorkbenchError("a text without tokens has no likelihood; look at the task's empty continuation")
        if self.whole:
            return blocks(one.before, one.text, self.process.length)
        head = self._head()
        return pieces(one.before or (() if head else (self.eos,)), one.text, self.process.reach, head)

    def _score(
        self, part: Sequence[Piece], given: int, question_B: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """(nats_B, every token right_B) of pieces of one shape."""
        x0_BL = np.array([piece.given + piece.ids for piece in part], dtype=np.int64)
        shell, rng = self.opened.model.shell, self.rng
        with self._autocast():
            if not self.whole:
                found = self.process.continuation(shell, x0_BL, given, question_B, rng, self.draws)
                return found.bound.nats_BK.mean(1), np.asarray(found.right_Bn.all(1))
            nats_B = self.process.nll(shell, x0_BL, question_B, rng, self.draws).nats_BK.mean(1)
            if not given:
                x0_BL, given = np.insert(x0_BL, 0, self.eos, axis=1)[:, : self.process.reach], 1
            try:
                right_Bn = self.process.continuation(shell, x0_BL, given, question_B, rng, 0).right_Bn
            except WorkbenchError:  # no masks: nothing is guessed in one look (docs/tasks.md)
                return nats_B, np.zeros(len(part), dtype=bool)
            return nats_B, np.asarray(right_Bn.all(1))
