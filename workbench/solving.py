"""From a trained model to attempts at held-out puzzles: canvases that fix what is given, rounds by a strategy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from samplers.base import Canvas
from workbench.core.errors import WorkbenchError
from workbench.data.puzzles.corpus import Puzzles
from workbench.metrics.solving import MOST, Attempts, Solving, Strategy
from workbench.train.machine import name_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from workbench.data.base import Ids
    from workbench.data.puzzles.base import Mask, Puzzle
    from workbench.evaluate import Examiner


def attempts_at(
    examiner: Examiner, solving: Solving, tokens_NL: Ids, number_N: Ids, tell: Callable[[float], None]
) -> Attempts:
    """Attempt the puzzles ``tokens_NL`` (blocks: an instance and the end of its document), numbered ``number_N``.

    A sampler that conditions anywhere gets a canvas with all that is given fixed, the end too; one of prefixes gets the
    question and writes the answer. An attempt's random numbers depend on its puzzle's number, its own and its round,
    not on the batch nor on how many attempts and rounds there are.

    Raises:
        WorkbenchError: the run's corpus is no corpus of puzzles.
    """
    corpus = examiner.corpus
    if not isinstance(corpus, Puzzles):
        raise WorkbenchError(f"corpus {corpus.type_name!r} has no checker of answers")
    puzzle, strategy, count = corpus.puzzle, solving.strategy, solving.attempts
    anywhere = examiner.sampler.conditions == "anywhere"
    tokens_NL = tokens_NL if anywhere else tokens_NL[:, : puzzle.length]
    fixed_NL = np.ones(tokens_NL.shape, dtype=bool)  # the end of the document, where there is one
    fixed_NL[:, : puzzle.length] = puzzle.given(tokens_NL[:, : puzzle.length])
    if not anywhere:
        fixed_NL[:, puzzle.question :] = False
    total = len(tokens_NL) * count
    item_A = np.repeat(np.arange(len(tokens_NL)), count)
    key_A = (number_N[:, None] * MOST + np.arange(count)).reshape(-1) * MOST
    solved_AR = np.zeros((total, strategy.rounds + 1), dtype=bool)
    calls_AR = np.zeros((total, strategy.rounds + 1))
    seconds_R = np.zeros(strategy.rounds + 1)
    broken_A = np.zeros(total, dtype=np.int64)
    with examiner.drawing():
        for start in range(0, total, solving.batch):
            part = slice(start, start + solving.batch)
            item_B = item_A[part]
            tried = _tried(examiner, puzzle, strategy, tokens_NL[item_B], fixed_NL[item_B], key_A[part])
            solved_AR[part], calls_AR[part], broken_A[part] = tried[:3]
            seconds_R += tried[3]
            tell(min(1.0, (start + solving.batch) / total))
    shape = (len(tokens_NL), count)
    return Attempts(
        solved_NKR=solved_AR.reshape(*shape, -1),
        calls_NKR=calls_AR.reshape(*shape, -1),
        broken_NK=broken_A.reshape(shape),
        seconds_R=seconds_R,
        batch=solving.batch,
        how=f"{examiner.sampler.type_name}, {strategy.type_name}, {strategy.rounds} rounds more",
        device=f"{examiner.device}, {examiner.precision}",
        machine=name_of(examiner.device),
        key=hashlib.sha256(
            puzzle.type_name.encode() + np.ascontiguousarray(tokens_NL[:, : puzzle.length], dtype=np.int64).tobytes()
        ).hexdigest()[:16],
    )


def _tried(
    examiner: Examiner, puzzle: Puzzle, strategy: Strategy, tokens_BL: Ids, given_BL: Mask, key_B: Ids
) -> tuple[Mask, npt.NDArray[np.float64], Ids, npt.NDArray[np.float64]]:
    """(solved_BR, calls_BR, broken_B, seconds_R) of a batch of attempts; only those not yet solved go on."""
    rounds = strategy.rounds + 1
    x_BL, fixed_BL = np.where(given_BL, tokens_BL, 0), given_BL.copy()
    solved_BR, calls_BR = np.zeros((len(x_BL), rounds), dtype=bool), np.zeros((len(x_BL), rounds))
    broken_B, seconds_R = np.zeros(len(x_BL), dtype=np.int64), np.zeros(rounds)
    going = np.arange(len(x_BL))
    for turn in range(rounds):
        drawn = (x_BL[going], fixed_BL[going], key_B[going] + turn)
        samples = examiner.draw(Canvas(*map(torch.from_numpy, drawn)))
        x_BL[going] = samples.tokens_BL.numpy()
        checked = puzzle.check(x_BL[going, : puzzle.length])
        calls_BR[going, turn:] += samples.calls
        solved_BR[going[checked.solved_N], turn:] = True
        seconds_R[turn:] += samples.seconds
        broken_B[going] = checked.broken_NL.sum(-1)
        wrong = ~checked.solved_N
        going = going[wrong]
        if not len(going) or turn + 1 == rounds:
            break
        broken_GL = np.zeros((len(going), x_BL.shape[1]), dtype=bool)
        broken_GL[:, : puzzle.length] = checked.broken_NL[wrong]
        u_GL = examiner.rng.uniform("strategy", turn, key_B[going], x_BL.shape[1])
        fixed_BL[going] = ~strategy.free(given_BL[going], broken_GL, u_GL)
    return solved_BR, calls_BR, broken_B, seconds_R
