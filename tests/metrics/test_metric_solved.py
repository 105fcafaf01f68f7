"""pass@k against enumeration, what strategies free, and attempts through samplers whose law is known."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest
import torch

from samplers.base import Samples
from tests.smoke import RECIPES
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.rng import Rng
from workbench.data.puzzles.corpus import Puzzles
from workbench.data.puzzles.sudoku import Sudoku
from workbench.metrics.base import Evidence, MissingEvidence, measure
from workbench.metrics.comparison import paired
from workbench.metrics.contract import CHECKS
from workbench.metrics.solved import Solved
from workbench.metrics.solving import MOST, Attempts, Resample, Restart, Solving, Strategy, pass_at
from workbench.recipe import load
from workbench.solving import attempts_at

RECIPE = RECIPES / "puzzles" / "sudoku4-sedd.yaml"


@pytest.mark.parametrize("n", [1, 4, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for k, c in itertools.product(range(1, n + 1), range(n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at(k, np.array([c]), n)[0] == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_is_unbiased():
    """Its mean over the binomial law of right attempts is 1 − (1 − p)^k, exactly."""
    n, p = 6, Fraction(1, 3)
    for k in range(1, n + 1):
        law = [len(list(itertools.combinations(range(n), c))) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        found = pass_at(k, np.arange(n + 1), n)
        assert float(sum(map(float, law)) - 1) == pytest.approx(0, abs=1e-15)
        assert sum(float(w) * f for w, f in zip(law, found, strict=True)) == pytest.approx(float(1 - (1 - p) ** k))
    with pytest.raises(ValueError, match="pass@7"):
        pass_at(7, np.array([1]), 6)


def test_what_strategies_free():
    given = np.array([[1, 1, 0, 0, 0]], dtype=bool)
    broken = np.array([[0, 0, 1, 0, 0]], dtype=bool)
    u = np.array([[0.1, 0.1, 0.1, 0.1, 0.9]])
    assert Restart().free(given, broken, u).tolist() == [[False, False, True, True, True]]
    assert Resample().free(given, broken, u).tolist() == [[False, False, True, False, False]]
    assert Resample(also=0.5).free(given, broken, u).tolist() == [[False, False, True, True, False]]


class Greedy(Strategy):
    """Frees what is given, keeps what is broken, and says nothing of it."""

    def free(self, given_NL, broken_NL, u_NL):
        return given_NL


def test_a_broken_strategy_is_told(monkeypatch):
    monkeypatch.setattr(Strategy, "registered", dict(Strategy.registered))
    Strategy.register("greedy")(Greedy)
    told = "\n".join(CHECKS["strategy"](Greedy))
    for words in ("frees a given position", "keeps a broken position", "does not declare `anywhere`"):
        assert words in told


class Guess:
    """Stands for a trained model: writes digits by lot on what is free, and remembers its canvases."""

    conditions, type_name = "anywhere", "guess"

    def __init__(self, corpus, conditions="anywhere", calls=3):
        self.corpus, self.sampler, self.conditions, self.calls = corpus, self, conditions, calls
        self.rng, self.device, self.precision, self.canvases = Rng(0), "cpu", "fp32", []

    def drawing(self):
        return nullcontext()

    def draw(self, canvas, progress=None):
        self.canvases.append(canvas)
        u_BL = self.rng.uniform("guess", 0, canvas.seq_B.numpy(), canvas.x_BL.shape[1])
        lots_BL = torch.from_numpy(1 + np.floor(4 * u_BL).astype(np.int64))
        return Samples(torch.where(canvas.fixed_BL, canvas.x_BL, lots_BL), self.calls, 0.5)


def blocks(count, clues=11):
    puzzle = Sudoku(clues=clues)
    tokens = puzzle.instances("valid", count)
    return Puzzles(puzzle), puzzle, np.c_[tokens, np.full(count, 5)]


def attempted(guess, tokens_NL, solving):
    return attempts_at(guess, solving, tokens_NL, np.arange(len(tokens_NL)), lambda share: None)


@pytest.mark.parametrize("strategy", [Restart(5), Resample(5), Resample(5, also=0.3)])
def test_given_positions_never_change(strategy):
    corpus, puzzle, tokens_NL = blocks(6)
    guess = Guess(corpus)
    attempted(guess, tokens_NL, Solving(strategy, attempts=4, batch=7))
    given_NL = np.c_[puzzle.given(tokens_NL[:, :32]), np.ones(6, dtype=bool)]
    seen = 0
    for canvas in guess.canvases:
        item_B = canvas.seq_B.numpy() // MOST // MOST
        fixed_BL, x_BL = canvas.fixed_BL.numpy(), canvas.x_BL.numpy()
        assert (fixed_BL | ~given_NL[item_B]).all()
        assert (x_BL[given_NL[item_B]] == tokens_NL[item_B][given_NL[item_B]]).all()
        later_B = canvas.seq_B.numpy() % MOST > 0
        seen += later_B.sum()
        if isinstance(strategy, Resample) and not strategy.also:
            # what a round begins with is broken exactly where it is free
            again_BL = puzzle.check(x_BL[later_B][:, :32]).broken_NL
            assert np.array_equal(again_BL, ~fixed_BL[later_B][:, :32])
    assert seen > 10


def test_attempts_are_those_of_the_law():
    """Two free cells by lot: a first draw is right with probability 4^-2, and R more rounds of restarts multiply."""
    corpus, _, tokens_NL = blocks(40, clues=14)
    made = attempted(Guess(corpus), tokens_NL, Solving(Restart(3), attempts=25, batch=300))
    p, n = 4.0**-2, 1000
    for turn in range(4):
        chance = 1 - (1 - p) ** (turn + 1)
        assert abs(made.solved_NKR[:, :, turn].mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / n)
    # calls go on as long as an attempt is not solved
    before_NK = made.solved_NKR[:, :, :3].sum(-1)
    assert np.array_equal(made.calls_NKR[:, :, 3], 3.0 * (4 - before_NK))
    assert ((made.broken_NK == 0) == made.solved_NKR[:, :, -1]).all()


def test_mending_solves_more_than_starting_again():
    corpus, _, tokens_NL = blocks(30)
    again = attempted(Guess(corpus), tokens_NL, Solving(Restart(6), attempts=10))
    mended = attempted(Guess(corpus), tokens_NL, Solving(Resample(6), attempts=10))
    assert np.array_equal(again.solved_NKR[:, :, 0], mended.solved_NKR[:, :, 0])  # common random numbers
    assert mended.solved_NKR[:, :, -1].mean() > again.solved_NKR[:, :, -1].mean() + 0.1


def test_the_batch_changes_nothing():
    corpus, _, tokens_NL = blocks(5)
    made = [attempted(Guess(corpus), tokens_NL, Solving(Resample(3), attempts=4, batch=batch)) for batch in (3, 20)]
    assert np.array_equal(made[0].solved_NKR, made[1].solved_NKR)
    assert np.array_equal(made[0].broken_NK, made[1].broken_NK)


@pytest.mark.parametrize("kind", [Restart, Resample])
def test_an_attempt_is_the_same_whatever_the_totals(kind):
    corpus, _, tokens_NL = blocks(5, clues=14)
    many = attempted(Guess(corpus), tokens_NL, Solving(kind(5), attempts=6))
    few = attempted(Guess(corpus), tokens_NL, Solving(kind(2), attempts=3))
    assert np.array_equal(few.solved_NKR, many.solved_NKR[:, :3, :3])
    assert few.solved_NKR.any() and not few.solved_NKR.all()
    guess = Guess(corpus)
    attempted(guess, tokens_NL, Solving(kind(5), attempts=6))
    seq_B = torch.cat([canvas.seq_B for canvas in guess.canvases])
    assert len(seq_B.unique()) == len(seq_B)  # no two draws share their numbers


def test_runs_are_compared_puzzle_by_puzzle():
    corpus, _, tokens_NL = blocks(30)
    again, mended = (
        {value.name: value for value in Solved([1, 2])(Evidence(attempts=attempted(guess, tokens_NL, one)))}
        for guess, one in (
            (Guess(corpus, conditions="prefix"), Solving(Restart(6), attempts=10)),
            (Guess(corpus), Solving(Resample(6), attempts=10)),
        )
    )
    for name in ("pass_1", "pass_2", "broken", "attempt_calls"):
        found = paired(mended[name], again[name])
        assert found.n == 30 and found.se is not None
        assert found.value == pytest.approx(mended[name].value - again[name].value, abs=1e-5)
    other, _, others_NL = blocks(31)
    strange = Solved([1])(Evidence(attempts=attempted(Guess(other), others_NL[1:], Solving(Restart(1), attempts=2))))
    with pytest.raises(WorkbenchError, match="other units"):
        paired(again["pass_1"], strange[0])


def test_prefix_samplers_get_the_question_alone():
    corpus, _, tokens_NL = blocks(3)
    guess = Guess(corpus, conditions="prefix")
    attempted(guess, tokens_NL, Solving(Restart(1), attempts=2))
    for canvas in guess.canvases:
        assert canvas.x_BL.shape[1] == 32
        assert torch.equal(canvas.fixed_BL, (torch.arange(32) < 16).expand_as(canvas.fixed_BL))


def test_figures():
    solved = np.zeros((2, 4, 2), dtype=bool)
    solved[0, :2, 0], solved[0, :3, 1] = True, True
    calls = np.broadcast_to(np.array([2.0, 3.0]), (2, 4, 2))
    made = Attempts(solved, calls, np.array([[0, 0, 0, 2], [3, 3, 3, 3]]), np.array([4.0, 6.0]), 8, "guess")
    values = {value.name: value for value in Solved([1, 2])(Evidence(attempts=made))}
    assert values["pass_1"].value == pytest.approx(3 / 8)
    assert values["pass_2"].value == pytest.approx((1 + 0) / 2)
    assert values["broken"].value == pytest.approx(14 / 8)
    assert values["attempt_calls"].value == 3 and values["calls_per_solution"].value == pytest.approx(24 / 3)
    assert values["attempt_seconds"].value == 6 / 8 and values["seconds_per_solution"].value == 2
    assert values["pass_1"].extra["solved_after_0"] == 2 / 8 and values["pass_1"].extra["calls_after_1"] == 3
    none = Attempts(np.zeros_like(solved), calls, np.ones((2, 4), dtype=np.int64), np.array([4.0, 6.0]))
    values = {value.name: value for value in Solved([1])(Evidence(attempts=none))}
    assert values["pass_1"].value == 0 and values["calls_per_solution"].error == "no attempt was right"
    assert all(value.error for value in measure([Solved([5])], Evidence(attempts=made)))
    with pytest.raises(MissingEvidence):
        Solved([1])(Evidence())


def test_what_does_not_fit_is_told():
    with pytest.raises(RecipeError, match="pass@64 needs 64 attempts"):
        load(RECIPE, ["evaluations.final.metrics=[{type: solved, k: [64]}]"])
    with pytest.raises(RecipeError, match="take less than 65,536"):
        load(RECIPE, ["evaluations.final.solving.strategy.rounds=70000"])
    with pytest.raises(RecipeError, match="none are made"):
        load(RECIPE, ["evaluations.final.solving=null"])
    with pytest.raises(RecipeError, match="continues prefixes only"):
        load(RECIPES / "puzzles" / "sudoku4-gpt2.yaml", ["evaluations.final.solving.strategy=resample"])
