"""Sudoku of 4×4 and 9×9 cells."""

from __future__ import annotations

import functools
import itertools
from typing import Any, Literal

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.data.base import Ids
from workbench.data.puzzles.base import Mask, Puzzle, placed, within

LEAST = {4: 4, 9: 17}
"""The fewest clues with which a Sudoku of a size can have one solution (9×9: McGuire, Tugemann & Civario 2012)."""
KNOWN = 4
"""Sizes up to which all grids are listed (288 of size 4), so that solutions are counted by looking."""


@Puzzle.register("sudoku")
class Sudoku(Puzzle):
    """Sudoku with one solution: the grid with 0 for an empty cell, then the full grid, row by row.

    Broken: a cell that stands in its row, column or box beside an equal one, holds no digit, or differs from its clue.
    Size 9 is made by digging clues out of a grid as long as one solution is left, size 4 by trying sets of clues.

    Settings:
        size: cells of a side.
        clues: how many cells are given.
        shared: what splits do not share: the question, or the answer (a grid that is held out answers no question
            that is trained on).
    """

    def __init__(
        self, size: Literal[4, 9] = 4, clues: int = 6, shared: Literal["question", "answer"] = "question"
    ) -> None:
        """See Settings."""
        cells = size * size
        if not LEAST[size] <= clues < cells:
            raise WorkbenchError(f"clues: {clues}; a Sudoku of size {size} takes {LEAST[size]} to {cells - 1}")
        self.size, self.clues, self.shared = size, clues, shared
        self.vocab, self.question, self.length = size + 1, cells, 2 * cells

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Many clues: found at once."""
        return {"clues": 8}

    def as_data(self) -> dict[str, Any]:
        """All settings."""
        return {"size": self.size, "clues": self.clues, "shared": self.shared}

    def apart(self, tokens_L: Ids) -> bytes:
        """The question or the answer, as ``shared`` says."""
        part = tokens_L[: self.question] if self.shared == "question" else tokens_L[self.question :]
        return part.tobytes()

    def candidate(self, rng: np.random.Generator) -> Ids | None:
        """A grid and as many clues as wanted, if they leave one solution."""
        if self.size <= KNOWN:
            grids_GC = every_grid(self.size)
            full_C = grids_GC[rng.integers(len(grids_GC))]
            clue_C = np.zeros(self.question, dtype=bool)
            clue_C[rng.permutation(self.question)[: self.clues]] = True
            if (grids_GC[:, clue_C] == full_C[clue_C]).all(-1).sum() != 1:
                return None
        else:
            full_C = next(solutions(np.zeros(self.question, dtype=np.int64), self.size, rng))
            clue_C = self._dug(full_C, rng)
            if clue_C.sum() != self.clues:
                return None
        return np.concatenate([np.where(clue_C, full_C, 0), full_C])

    def given(self, tokens_NL: Ids) -> Mask:
        """The question, and the cells of the answer that have a clue."""
        clue_NC = tokens_NL[:, : self.question] != 0
        return np.concatenate([np.ones_like(clue_NC), clue_NC], axis=1)

    def broken(self, tokens_NL: Ids) -> Mask:
        """Cells beside an equal one, with no digit, or unlike their clue."""
        asked_NC, cell_NC = tokens_NL[:, : self.question], tokens_NL[:, self.question :]
        same_NCC = (cell_NC[:, :, None] == cell_NC[:, None, :]) & peers(self.size)
        broken_NC = same_NCC.any(-1) | ~within(cell_NC, 1, self.size + 1) | ((asked_NC != 0) & (asked_NC != cell_NC))
        return placed(self, broken_NC)

    def _dug(self, full_C: Ids, rng: np.random.Generator) -> Mask:
        """Clues left after taking away all that can be, in an order by lot, down to the number wanted."""
        puzzle_C = full_C.copy()
        for cell in rng.permutation(self.question):
            if (puzzle_C != 0).sum() == self.clues:
                break
            puzzle_C[cell] = 0
            if len(list(itertools.islice(solutions(puzzle_C, self.size), 2))) > 1:
                puzzle_C[cell] = full_C[cell]
        return puzzle_C != 0


@functools.cache
def units(size: int) -> Ids:
    """The cells of each row, column and box, [3 · size, size]."""
    root, grid = round(size**0.5), np.arange(size * size).reshape(size, size)
    boxes = grid.reshape(root, root, root, root).swapaxes(1, 2).reshape(size, size)
    return np.concatenate([grid, grid.T, boxes])


@functools.cache
def peers(size: int) -> Mask:
    """Which two cells share a unit, [C, C], without a cell and itself."""
    cells = size * size
    together_CC = np.zeros((cells, cells), dtype=bool)
    for unit in units(size):
        together_CC[np.ix_(unit, unit)] = True
    return together_CC & ~np.eye(cells, dtype=bool)


@functools.cache
def every_grid(size: int) -> Ids:
    """All full grids, [G, C]."""
    return np.array(list(solutions(np.zeros(size * size, dtype=np.int64), size)))


def solutions(puzzle_C: Ids, size: int, rng: np.random.Generator | None = None) -> itertools.chain[Ids]:
    """All full grids that agree with the clues (0: none), by trying the cell with the fewest digits left first.

    ``rng``: digits are tried in an order by lot.
    """
    near = [np.flatnonzero(row).tolist() for row in peers(size)]
    cells = [int(digit) for digit in puzzle_C]
    full = (1 << (size + 1)) - 2

    def left(cell: int) -> int:
        taken = 0
        for other in near[cell]:
            taken |= 1 << cells[other]
        return full & ~taken

    def search():  # type: ignore[no-untyped-def]
        best, digits = -1, full + 2
        for cell, digit in enumerate(cells):
            if digit == 0:
                free = left(cell)
                if best < 0 or free.bit_count() < digits.bit_count():
                    best, digits = cell, free
                    if free.bit_count() < 2:
                        break
        if best < 0:
            yield np.array(cells, dtype=np.int64)
            return
        choices = [digit for digit in range(1, size + 1) if digits >> digit & 1]
        for digit in rng.permutation(choices).tolist() if rng is not None else choices:
            cells[best] = digit
            yield from search()
        cells[best] = 0

    legal = all(cells[c] == 0 or left(c) >> cells[c] & 1 for c in range(size * size))
    return itertools.chain(search() if legal else ())
