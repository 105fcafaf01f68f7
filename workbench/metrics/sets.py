"""Evaluation sets and the protocols that cut them into blocks: their contracts, and what is measured on one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from workbench.core.part import Part

if TYPE_CHECKING:
    from workbench.metrics.evidence import HeldOut

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The texts of a set, detokenised, in the set's order.

    ``texts``: a passage, a line or a sentence each, whatever the set's own rows are; ``group_N`` int64: which article,
    book or file a row is of: rows of one are not independent. ``source``: the set, split and size in words; ``note``:
    with what reserve (another split than the published one, tokens that were replaced).
    """

    texts: Sequence[str]
    group_N: Ids
    source: str
    note: str = ""


class EvalSet(Part, ABC, kind="eval_set"):
    """A text set whose likelihood is measured: read from files that the user names, or from the hub."""

    @abstractmethod
    def rows(self, protocol: str) -> Rows:
        """Its rows, of the split that ``protocol`` (its name) publishes figures of where none is set.

        Raises:
            WorkbenchError: the files are absent, not of this set, cut off or mis-encoded: what was expected, and what
                was found.
        """


@dataclass(frozen=True)
class Cut:
    """A set cut into N blocks of equal length T.

    ``tokens_NT`` int64; ``told_N`` int64: so many first tokens of a block are told to a model that reads left to right
    and count nothing (0: all of them count, after the end-of-document token); a model that reads all at once is asked
    for all. ``start_N`` int64: where in the stream (rows, each with its end) the first token that counts stands.
    ``stream``: tokens of the whole set, ends of rows included; ``dropped``: those in no block.
    """

    tokens_NT: Ids
    told_N: Ids
    start_N: Ids
    stream: int
    dropped: int


class Protocol(Part, ABC, kind="protocol"):
    """How the rows of a set become blocks, and which of their tokens count.

    Figures of two protocols are never compared: their names stand in the columns. ``about``: the protocol in a few
    words, for notes.
    """

    about: ClassVar[str] = ""

    @abstractmethod
    def cut(self, rows: Sequence[Ids], eos: int, length: int) -> Cut:
        """Blocks for a network that reads ``length`` tokens; ``rows``: ids of each row, ``eos``: the id of an end.

        Raises:
            WorkbenchError: the set is shorter than a block.
        """


@dataclass(frozen=True)
class OnSet:
    """Likelihood of the blocks of a set: what was measured, or why nothing was (``error``).

    ``held``: nats, bytes and blocks, documents as clusters; ``counted_B`` int64: tokens of each block that count;
    ``size``: blocks that the whole set has; ``stream`` and ``dropped``: tokens of it, and those in no block; ``rows``:
    how many it has.
    """

    protocol: str
    about: str = ""
    held: HeldOut | None = None
    counted_B: Ids | None = None
    source: str = ""
    note: str = ""
    size: int = 0
    stream: int = 0
    dropped: int = 0
    rows: int = 0
    error: str = ""
