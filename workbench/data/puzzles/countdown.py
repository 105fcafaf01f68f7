"""Countdown: reach a number with others and the four operations."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from workbench.data.base import Ids
from workbench.data.puzzles.base import Graded, Mask, Puzzle, placed

Few = Annotated[int, Interval(ge=2, le=5)]
Largest = Annotated[int, Interval(ge=5, le=999)]
ADD, SUBTRACT, TIMES, DIVIDE = range(4)
STEP = 4
"""Tokens of a step: a left operand, an operation, a right operand, the result."""


@Puzzle.register("countdown")
class Countdown(Graded):
    """Countdown: combine all numbers, two at a time, until the target is left (cf. Gandhi et al. 2024, §3).

    Tokens: n is the number n itself, 0 … ``largest``; after them + − × ÷. The question is the numbers, sorted, and the
    target; the answer one step after another: left operand, operation, right operand, result. Operands are used up,
    results are there for later steps; all results are whole numbers from 0 to ``largest``. Any way to the target
    counts. Broken: a step whose operands are not there or whose result is wrong, and the last if it misses the target.

    Settings:
        numbers: how many are to be combined.
        largest: the largest number, of results too.
        start: the largest of the numbers that one begins with.
    """

    def __init__(self, numbers: Few = 4, largest: Largest = 99, start: Annotated[int, Interval(ge=2)] = 20) -> None:
        """See Settings."""
        self.numbers, self.largest, self.start = numbers, largest, min(start, largest)
        self.vocab = largest + 5
        self.question = numbers + 1
        self.length = self.question + STEP * (numbers - 1)

    def as_data(self) -> dict[str, Any]:
        """All settings."""
        return {"numbers": self.numbers, "largest": self.largest, "start": self.start}

    def candidate(self, rng: np.random.Generator) -> Ids | None:
        """Numbers by lot, combined by lot; None where a draw leads out of the numbers allowed."""
        numbers = sorted(rng.integers(1, self.start + 1, self.numbers).tolist())
        left, steps = list(numbers), list[int]()
        for _ in range(self.numbers - 1):
            a, b = (left.pop(int(rng.integers(len(left)))) for _ in range(2))
            able = [(op, found) for op in range(4) if (found := self.result(a, op, b)) is not None]
            if not able:
                return None
            op, found = able[int(rng.integers(len(able)))]
            steps += [a, self.largest + 1 + op, b, found]
            left.append(found)
        return np.array([*numbers, left[0], *steps], dtype=np.int64)

    def result(self, a: int, op: int, b: int) -> int | None:
        """What an operation gives, None where that is no number of this puzzle."""
        if op == DIVIDE:
            return a // b if b and a % b == 0 else None
        found = {ADD: a + b, SUBTRACT: a - b, TIMES: a * b}[op]
        return found if 0 <= found <= self.largest else None

    def broken(self, tokens_NL: Ids) -> Mask:
        """Steps that are wrong, whole; the last one too where the target is missed."""
        return placed(self, np.array([self._wrong(row) for row in tokens_NL.tolist()]).reshape(len(tokens_NL), -1))

    def _wrong(self, row: list[int]) -> list[bool]:
        """The broken positions of one answer. A wrong result stands for later steps, which then are not to blame."""
        left, target, answer = row[: self.numbers], row[self.numbers], row[self.question :]
        wrong: list[bool] = []
        found = -1
        for at in range(0, len(answer), STEP):
            a, op, b, found = answer[at : at + STEP]
            there = True
            for operand in (a, b):
                if operand in left:
                    left.remove(operand)
                else:
                    there = False
            sound = there and 0 <= op - self.largest - 1 < 4 and found == self.result(a, op - self.largest - 1, b)
            wrong += [not sound] * STEP
            left.append(found)
        if found != target:
            wrong[-STEP:] = [True] * STEP
        return wrong
