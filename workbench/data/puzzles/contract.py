"""What every puzzle must satisfy: run on any registered part, a plug-in's included.

``CHECKS`` maps the kind to a function from a part's class to a list of problems; none: the contract is met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workbench.core.checks import run_checks
from workbench.data.base import SPLITS
from workbench.data.puzzles.base import Puzzle

COUNT = 24
"""Instances of each split that are looked at."""


def check_puzzle(part: type[Puzzle]) -> list[str]:
    """Problems of a puzzle, in words."""
    return run_checks(Puzzle, part, (_instances, _answers, _blames_no_question))


def _instances(puzzle: Puzzle) -> Iterator[str]:
    """Of one length and vocabulary, keyed, all different, splits apart."""
    found = {split: puzzle.instances(split, COUNT) for split in SPLITS}
    for split, tokens_NL in found.items():
        if tokens_NL.shape != (COUNT, puzzle.length) or tokens_NL.min() < 0 or tokens_NL.max() >= puzzle.vocab:
            yield f"{split}: {tokens_NL.shape} tokens, {COUNT} × {puzzle.length} below {puzzle.vocab} are due"
            return
        if not np.array_equal(puzzle.instances(split, 5), tokens_NL[:5]):
            yield f"{split}: the first five are others when five are asked for"
        if np.array_equal(puzzle.instances(split, 5, seed=1), tokens_NL[:5]):
            yield f"{split}: the seed changes nothing"
        if len({row.tobytes() for row in tokens_NL}) < COUNT:
            yield f"{split}: an instance comes twice"
    if {puzzle.apart(row) for row in found["train"]} & {puzzle.apart(row) for row in found["valid"]}:
        yield "the splits share what they may not"


def _answers(puzzle: Puzzle) -> Iterator[str]:
    """Its own answers are right; those of another instance are not always; ids that are no tokens are wrong."""
    tokens_NL = puzzle.instances("train", COUNT)
    if not puzzle.check(tokens_NL).solved_N.all():
        yield "refuses an answer of its own"
    strange_NL = tokens_NL.copy()
    strange_NL[:, puzzle.question :] = np.roll(tokens_NL[:, puzzle.question :], 1, axis=0)
    if puzzle.check(strange_NL).solved_N.all():
        yield "takes another instance's answer for every question"
    for position in range(puzzle.question, puzzle.length):
        ended_NL = tokens_NL.copy()
        ended_NL[:, position] = puzzle.vocab  # the end of the document: an id that a network can write anywhere
        if puzzle.check(ended_NL).solved_N.any():
            yield f"takes an answer with the end of the document at position {position}"


def _blames_no_question(puzzle: Puzzle) -> Iterator[str]:
    """What is given is the whole question, is read from the question alone, and is not to blame for a bad answer."""
    tokens_NL = puzzle.instances("train", COUNT)
    given_NL = puzzle.given(tokens_NL)
    if not given_NL[:, : puzzle.question].all():
        yield "a part of the question is not given"
    lots = np.random.default_rng(0)
    drawn_NL = np.where(given_NL, tokens_NL, lots.integers(0, puzzle.vocab, tokens_NL.shape))
    if not np.array_equal(puzzle.given(drawn_NL), given_NL):
        yield "what is given depends on the answer"
    checked = puzzle.check(drawn_NL)
    if (checked.broken_NL & given_NL).any():
        yield "blames a given position for a free one"


CHECKS: dict[str, Callable[[Any], list[str]]] = {"puzzle": check_puzzle}
"""Kind → contract check."""
