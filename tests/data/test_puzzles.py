"""Puzzles: generators and checkers against brute force, the corpus' blocks against the instances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.smoke import RECIPES
from workbench.core import index
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.data.base import SPLITS
from workbench.data.puzzles import base, sudoku
from workbench.data.puzzles.base import Puzzle
from workbench.data.puzzles.colouring import Colouring
from workbench.data.puzzles.contract import check_puzzle
from workbench.data.puzzles.corpus import Puzzles
from workbench.data.puzzles.countdown import Countdown
from workbench.data.puzzles.sat import Sat
from workbench.data.puzzles.sudoku import Sudoku, every_grid, solutions
from workbench.data.section import Data
from workbench.data.storage import DataError
from workbench.data.tokenizers import Numbers
from workbench.recipe import load

index.import_parts()


@pytest.mark.parametrize("name", Puzzle.names())
def test_every_puzzle_meets_the_contract(name):
    assert check_puzzle(Puzzle.lookup(name)) == []


class Credulous(Sudoku):
    """Takes everything, blames what is given, and shares its questions between the splits."""

    def broken(self, tokens_NL):
        return np.zeros(tokens_NL.shape, dtype=bool)

    def given(self, tokens_NL):
        return tokens_NL != 0

    def apart(self, tokens_L):
        return b"" if tokens_L[0] else b"other"


def test_a_broken_puzzle_is_told(monkeypatch):
    monkeypatch.setattr(Puzzle, "registered", dict(Puzzle.registered))
    monkeypatch.setattr(base, "PATIENCE", 2000)
    Puzzle.register("credulous")(Credulous)
    told = "\n".join(check_puzzle(Credulous))
    assert "end of the document" in told and "question is not given" in told


# --- Sudoku --------------------------------------------------------------------------------------------------------


def valid_by_rows(size):
    """Grids of permutations as rows, each column and box a permutation: another way than the solver's."""
    root, digits = int(size**0.5), set(range(1, size + 1))
    for rows in itertools.product(itertools.permutations(range(1, size + 1)), repeat=size):
        columns_are = all(set(column) == digits for column in zip(*rows, strict=True))
        if columns_are and all(
            {rows[r + i][c + j] for i in range(root) for j in range(root)} == digits
            for r in range(0, size, root)
            for c in range(0, size, root)
        ):
            yield sum(rows, ())


def test_all_grids_of_size_4_are_the_288():
    found = {tuple(grid) for grid in every_grid(4).tolist()}
    assert len(found) == len(every_grid(4)) == 288
    assert found == set(valid_by_rows(4))


def test_the_sudoku_checker_takes_the_grids_and_nothing_else():
    """One clue and three rows given as free cells: every last row of 4^4 is tried on every tenth grid."""
    puzzle, lasts = Sudoku(), np.array(list(itertools.product(range(1, 5), repeat=4)))
    known = {tuple(grid) for grid in every_grid(4).tolist()}
    for grid in every_grid(4)[::10]:
        tokens_NL = np.zeros((len(lasts), 32), dtype=np.int64)
        tokens_NL[:, 0], tokens_NL[:, 16:28], tokens_NL[:, 28:] = grid[0], grid[:12], lasts
        right = [tuple(row) in known for row in tokens_NL[:, 16:].tolist()]
        assert puzzle.check(tokens_NL).solved_N.tolist() == right


def test_broken_cells_are_those_beside_an_equal_one():
    puzzle = Sudoku(clues=8)
    tokens_L = puzzle.instances("train", 1)[0]
    free = np.flatnonzero(tokens_L[:16] == 0)
    wrong_L = tokens_L.copy()
    wrong_L[16 + free[0]] = tokens_L[16 + free[0]] % 4 + 1
    broken = puzzle.check(wrong_L[None]).broken_NL[0]
    cells = wrong_L[16:]
    beside = [cell for cell in free if (cells[sudoku.peers(4)[cell]] == cells[cell]).any()]
    assert free[0] in beside and np.flatnonzero(broken).tolist() == [16 + cell for cell in beside]


@pytest.mark.parametrize("shared", ["question", "answer"])
def test_clues_leave_one_solution_and_splits_are_apart(shared):
    puzzle = Sudoku(clues=5, shared=shared)
    parts = {}
    for split in SPLITS:
        for tokens_L in (tokens := puzzle.instances(split, 60)):
            assert (tokens_L[:16] != 0).sum() == 5
            (only,) = solutions(tokens_L[:16], 4)
            assert only.tolist() == tokens_L[16:].tolist()
        parts[split] = {puzzle.apart(tokens_L) for tokens_L in tokens}
    assert not parts["train"] & parts["valid"]


def test_a_sudoku_of_size_9_has_one_solution():
    tokens_L = Sudoku(size=9, clues=40).instances("train", 1)[0]
    assert (tokens_L[:81] != 0).sum() == 40
    assert [grid.tolist() for grid in solutions(tokens_L[:81], 9)] == [tokens_L[81:].tolist()]
    assert list(solutions(np.r_[1, 1, np.zeros(79, dtype=np.int64)], 9)) == []


def test_too_many_instances_are_told(monkeypatch):
    monkeypatch.setattr(base, "PATIENCE", 2000)
    with pytest.raises(WorkbenchError, match="clues: 3"):
        Sudoku(clues=3)
    corpus = Puzzles(Sudoku(clues=15), train=20, valid=2000)  # 288 · 16 puzzles with one gap, a tenth of them held out
    with pytest.raises(DataError, match="fewer than 2000"):
        list(corpus.documents("valid"))


# --- the others ----------------------------------------------------------------------------------------------------


def test_sat_is_checked_as_every_assignment_says():
    puzzle = Sat(variables=5)
    every = np.array(list(itertools.product((0, 1), repeat=5)))
    for tokens_L in puzzle.instances("train", 20):
        literals = tokens_L[: puzzle.question].reshape(-1, 3)
        clauses = [[((literal - 2) // 2, 1 - literal % 2) for literal in clause] for clause in literals]
        assert all(len({variable for variable, _ in clause}) == 3 for clause in clauses)
        tokens_NL = np.c_[np.tile(tokens_L[: puzzle.question], (32, 1)), every]
        checked = puzzle.check(tokens_NL)
        for value, solved, broken in zip(every, checked.solved_N, checked.broken_NL, strict=True):
            unmet = [clause for clause in clauses if all(value[variable] != wanted for variable, wanted in clause)]
            assert solved == (not unmet)
            blamed = {puzzle.question + variable for clause in unmet for variable, _ in clause}
            assert set(np.flatnonzero(broken)) == blamed


def test_colouring_is_checked_as_every_colouring_says():
    puzzle = Colouring(nodes=5, colours=3, edges=6)
    every = np.array(list(itertools.product((2, 3, 4), repeat=5)))
    pairs = list(itertools.combinations(range(5), 2))
    for tokens_L in puzzle.instances("train", 20):
        edges = [pair for pair, there in zip(pairs, tokens_L, strict=False) if there]
        assert len(edges) == 6
        checked = puzzle.check(np.c_[np.tile(tokens_L[:10], (len(every), 1)), every])
        for colour, solved, broken in zip(every, checked.solved_N, checked.broken_NL, strict=True):
            bad = {10 + end for a, b in edges if colour[a] == colour[b] for end in (a, b)}
            assert solved == (not bad) and set(np.flatnonzero(broken)) == bad


def test_countdown_is_checked_step_by_step():
    puzzle = Countdown(numbers=3, largest=50)
    add, sub, times, div = 51, 52, 53, 54
    question = [2, 3, 8, 14]
    for answer, broken in [
        ([2, times, 3, 6, 6, add, 8, 14], []),
        ([8, add, 6, 14, 2, times, 3, 6], [*range(8)]),  # 6 is not there yet, and the last step misses
        ([2, times, 3, 7, 7, add, 8, 15], [*range(8)]),  # a wrong result; the last step misses the target
        ([2, times, 3, 7, 7, add, 8, 14], [*range(8)]),  # both results are wrong
        ([2, times, 3, 6, 8, sub, 6, 2], [4, 5, 6, 7]),  # sound, but not the target
        ([8, div, 3, 2, 2, add, 2, 4], [*range(8)]),  # no whole number
        ([2, times, 3, 6, 6, 3, 8, 14], [4, 5, 6, 7]),  # no operation
    ]:
        found = np.flatnonzero(puzzle.check(np.array([question + answer])).broken_NL[0]) - 4
        assert found.tolist() == broken, answer


# --- the corpus ----------------------------------------------------------------------------------------------------


def test_a_block_is_an_instance(tmp_path):
    for puzzle in (Sudoku(clues=8), Sat(variables=5), Colouring(), Countdown()):
        corpus, tokenizer = Puzzles(puzzle, train=30, valid=8), Numbers(puzzle.vocab + 1)
        prepared = Data(corpus, tokenizer, puzzle.length + 1).prepare(tmp_path)
        for split, blocks in (("train", prepared.train), ("valid", prepared.valid)):
            assert len(blocks) == corpus.count(split) and blocks.dropped == 0
            tokens = blocks[np.arange(len(blocks))]
            assert np.array_equal(tokens[:, :-1], puzzle.instances(split, len(blocks)))
            assert (tokens[:, -1] == tokenizer.eos).all()


def test_blocks_that_are_no_instances_are_refused():
    recipe = RECIPES / "puzzles" / "sudoku4-sedd.yaml"
    with pytest.raises(RecipeError, match="set length: 33"):
        load(recipe, ["data.length=32"])
    with pytest.raises(RecipeError, match="vocab: 6"):
        load(recipe, ["data.tokenizer=bytes"])
    with pytest.raises(RecipeError, match="has no checker"):
        load(recipe, ["data.corpus=python_docs"])


def test_other_instances_are_other_text():
    digests = [
        Puzzles(Sudoku(clues=8), 20, 6).digest(),
        Puzzles(Sudoku(clues=8), 20, 6, seed=1).digest(),
        Puzzles(Sudoku(clues=7), 20, 6).digest(),
        Puzzles(Sudoku(clues=8), 21, 6).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == Puzzles(Sudoku(clues=8), 20, 6).digest()
