"""Puzzles as a corpus: one instance a document, so that one block is one instance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.core.bounds import Count, Natural
from workbench.core.build import build
from workbench.core.errors import Problem, RecipeError
from workbench.data.base import Corpus, Ids, Split, Tokenizer
from workbench.data.puzzles.base import PATIENCE, Puzzle
from workbench.data.storage import DataError, fingerprint

if TYPE_CHECKING:
    from workbench.core.node import Node

LOOKED_AT = 4
"""Instances of each split that go into the hash: a puzzle that makes others has other text."""


@Corpus.register("puzzles")
class Puzzles(Corpus):
    """Instances of a puzzle, question and answer, as decimal numbers: one a document, one document a block.

    Blocks are cut end to end, so ``data.length`` is the puzzle's length and one more for the end of the document, and
    the tokenizer gives each number itself: ``{type: ids, vocab: …}``. Both are checked while resolving.

    Settings:
        puzzle: what is asked.
        train: instances to train on.
        valid: instances held out.
        seed: of the instances.
    """

    answers: ClassVar[bool] = True

    def __init__(self, puzzle: Puzzle, train: Count = 20000, valid: Count = 1000, seed: Natural = 0) -> None:
        """See Settings."""
        self.puzzle, self.seed = puzzle, seed
        self.counts: dict[Split, int] = {"train": train, "valid": valid}

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A few small ones."""
        return {"puzzle": {"type": "sudoku", "clues": 8}, "train": 20, "valid": 6}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Blocks that would not be instances; ids that would not be the puzzle's tokens."""
        yield from super().misfits(node, root)
        data, tokenizer = root.find("data"), root.find("data.tokenizer")
        if data is None or tokenizer is None:
            return
        try:
            puzzle, made = build(node.settings["puzzle"]), build(tokenizer)
        except RecipeError as error:
            yield from error.problems
            return
        if data.settings["length"] != puzzle.length + 1:
            yield Problem(
                f"{data.path}.length",
                f"one block is one instance: puzzle {puzzle.type_name!r} has {puzzle.length} tokens and the end of the "
                f"document is one more; set length: {puzzle.length + 1}",
            )
        if not speaks(made, puzzle.vocab):
            yield Problem(
                tokenizer.path,
                f"puzzle {puzzle.type_name!r} speaks in the numbers 0 … {puzzle.vocab - 1}; take tokenizer "
                f"{{type: ids, vocab: {puzzle.vocab + 1}}}",
            )

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The instances as numbers, one space behind each."""
        count = self.counts[split]
        for number, tokens_L in enumerate(itertools.islice(self.puzzle.stream(split, self.seed), count)):
            if number >= start:
                yield written(tokens_L)
            if number + 1 == count:
                return
        raise DataError(
            f"puzzle `{self.puzzle.type_name}` has fewer than {count} instances of the {split} split (the last "
            f"{PATIENCE:,} draws gave no new one): ask for fewer, or take settings that have more"
        )

    def digest(self) -> str:
        """Hash of the settings and of the first instances."""
        first = {
            split: [tokens_L.tolist() for tokens_L in itertools.islice(self.puzzle.stream(split, self.seed), LOOKED_AT)]
            for split in self.counts
        }
        settings = {"type": self.puzzle.type_name, **self.puzzle.as_data()}
        return fingerprint(
            {"corpus": "puzzles", "puzzle": settings, "counts": self.counts, "seed": self.seed, "first": first}
        )

    def count(self, split: Split) -> int:
        """As the settings say."""
        return self.counts[split]


def written(tokens: Sequence[int] | Ids) -> str:
    """Numbers as text that the tokenizer ``ids`` gives back as they are."""
    return "".join(f"{int(token)} " for token in tokens)


def speaks(tokenizer: Tokenizer, vocab: int) -> bool:
    """Whether a tokenizer's ids are the numbers 0 … vocab − 1 and an end."""
    if not tokenizer.ready or tokenizer.vocab != vocab + 1:
        return False
    try:
        return np.array_equal(tokenizer.encode(written(range(vocab))), np.arange(vocab))
    except DataError:
        return False
