"""The contract of a puzzle: instances of one length by keyed numbers, what is given, and an exact checker."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.core.part import Part
from workbench.core.rng import Rng
from workbench.data.base import Ids, Split

Mask = npt.NDArray[np.bool_]
HELD_OUT = 10
"""One of so many instances, by a hash of what splits may not share, is held out."""
PATIENCE = 100_000
"""Candidates drawn for one more instance of a split before the settings are held to have too few."""


@dataclass(frozen=True)
class Checked:
    """What the checker says of N answers: ``solved_N``, and ``broken_NL``, the free positions that are to blame.

    An answer is solved exactly where nothing is broken.
    """

    broken_NL: Mask

    @property
    def solved_N(self) -> Mask:
        """Where nothing is broken."""
        return np.asarray(~self.broken_NL.any(-1))


class Puzzle(Part, ABC, kind="puzzle"):
    """A task whose answers are checked exactly: a question of ``question`` tokens, then its answer.

    An instance is ``length`` tokens below ``vocab``: the question first, as a left-to-right network needs it, and a
    right answer. Instances are drawn one by one from keyed numbers; what ``apart`` takes from one decides its split.
    """

    vocab: int
    question: int
    length: int

    # What a puzzle says of itself.

    @abstractmethod
    def candidate(self, rng: np.random.Generator) -> Ids | None:
        """One instance with a right answer, int64 [L]; None where this draw gives none."""

    @abstractmethod
    def given(self, tokens_NL: Ids) -> Mask:
        """The positions that the question tells, itself among them; [N, L] read from the question alone."""

    @abstractmethod
    def broken(self, tokens_NL: Ids) -> Mask:
        """The positions of answers that break a rule, [N, L]; none where an answer is right. Takes any ids."""

    @abstractmethod
    def as_data(self) -> dict[str, Any]:
        """The settings that decide the instances, plain data."""

    def apart(self, tokens_L: Ids) -> bytes:
        """What splits may not share of an instance: its question."""
        return tokens_L[: self.question].tobytes()

    # What follows is the same for all puzzles.

    def check(self, tokens_NL: Ids) -> Checked:
        """Who is right, and which free positions are to blame where not.

        Given positions are never to blame. Where every broken position is given (a prefix sampler may copy wrongly
        what a canvas would have fixed), the answer counts as broken there.
        """
        broken_NL = self.broken(tokens_NL)
        free_NL = broken_NL & ~self.given(tokens_NL)
        only_given_N1 = ~free_NL.any(-1, keepdims=True)
        return Checked(np.where(only_given_N1, broken_NL, free_NL))

    def instances(self, split: Split, count: int, seed: int = 0) -> Ids:
        """The first ``count`` instances of a split, [N, L]: the same for any count, no two of them equal.

        Raises:
            DataError: the settings do not have so many.
        """
        found = [tokens for tokens, _ in zip(self.stream(split, seed), range(count), strict=False)]
        return np.array(found, dtype=np.int64).reshape(-1, self.length)

    def stream(self, split: Split, seed: int = 0) -> Iterator[Ids]:
        """Instances of a split without end, while there are new ones."""
        seen: set[bytes] = set()
        missed = number = 0
        root = Rng(seed).child(f"puzzle/{self.type_name}")
        while missed < PATIENCE:
            tokens_L = self.candidate(np.random.Generator(np.random.Philox(root.integer(str(number)))))
            number += 1
            missed += 1
            if tokens_L is None or self._held_out(tokens_L) != (split == "valid"):
                continue
            if (key := tokens_L.tobytes()) in seen:
                continue
            seen.add(key)
            missed = 0
            yield tokens_L

    def _held_out(self, tokens_L: Ids) -> bool:
        digest = hashlib.blake2b(self.apart(tokens_L), digest_size=8).digest()
        return int.from_bytes(digest, "little") % HELD_OUT == 0


class Graded(Puzzle):
    """A puzzle whose answer's positions correspond to nothing that the question tells: all of the answer is free."""

    def given(self, tokens_NL: Ids) -> Mask:
        """The question."""
        return np.broadcast_to(np.arange(self.length) < self.question, tokens_NL.shape).copy()


def within(tokens_NL: Ids, low: int, high: int) -> Mask:
    """Where an id is one of ``low`` … ``high`` − 1."""
    return (tokens_NL >= low) & (tokens_NL < high)


def placed(puzzle: Puzzle, broken_NA: Mask) -> Mask:
    """Broken positions of the answer [N, A] as positions of the whole instance [N, L]."""
    broken_NL = np.zeros((len(broken_NA), puzzle.length), dtype=bool)
    broken_NL[:, puzzle.question :] = broken_NA
    return broken_NL


