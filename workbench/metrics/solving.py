"""Attempts at puzzles: how they are made, and what share of them an exact checker accepts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import Count, Fraction, Natural
from workbench.core.errors import Problem
from workbench.core.part import Part, Section

if TYPE_CHECKING:
    from workbench.core.node import Node

Mask = npt.NDArray[np.bool_]
MOST = 1 << 16
"""Attempts at a puzzle, and draws of an attempt: each has a number of its own, whatever the totals."""


@dataclass(frozen=True)
class Attempts:
    """K attempts at each of N puzzles, in R rounds each (round 0 is the first draw).

    ``solved_NKR``: whether the checker has accepted by the end of a round; ``calls_NKR``: network calls up to then, of
    the batches that an attempt was in (none after it is solved); ``broken_NK``: broken positions at the end;
    ``seconds_R``: wall clock of all attempts up to the end of a round; ``batch``: attempts drawn at a time; ``how``:
    the sampler and the strategy in words; ``device``: where; ``machine``: its name, by which seconds are told apart;
    ``key``: digest of the puzzles: runs with the same key are compared puzzle by puzzle.
    """

    solved_NKR: Mask
    calls_NKR: npt.NDArray[np.float64]
    broken_NK: npt.NDArray[np.int64]
    seconds_R: npt.NDArray[np.float64]
    batch: int = 0
    how: str = ""
    device: str = ""
    machine: str = ""
    key: str = ""


class Strategy(Part, ABC, kind="strategy"):
    """What is drawn anew after an attempt that the checker refuses, up to ``rounds`` times.

    ``anywhere``: frees positions in the middle, so that the sampler must condition anywhere.
    """

    anywhere: ClassVar[bool] = False
    rounds: int = 0

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A strategy that frees positions anywhere beside a sampler of prefixes."""
        yield from super().misfits(node, root)
        sampler = root.find("sampler")
        if sampler is not None and cls.anywhere:
            part: Any = sampler.part
            if part.conditions != "anywhere":
                able = [name for name, one in sorted(cls.registered.items()) if not _part(one).anywhere]
                yield Problem(
                    node.path,
                    f"strategy {cls.type_name!r} draws positions anew between others that stay, and sampler "
                    f"{part.type_name!r} continues prefixes only. What would fit: {', '.join(able)}.",
                )

    @abstractmethod
    def free(self, given_NL: Mask, broken_NL: Mask, u_NL: npt.NDArray[np.float64]) -> Mask:
        """The positions drawn anew, [N, L], none of them given, one at least in each row that has a free one.

        ``broken_NL``: what the checker blames; ``u_NL``: uniform numbers for lots.
        """


def _part(part: Any) -> type[Strategy]:
    """A registered class as what it is."""
    found: type[Strategy] = part
    return found


@Strategy.register("restart")
class Restart(Strategy):
    """All that is not given is drawn anew: independent attempts until one is right, by any sampler.

    Settings:
        rounds: how many times at most; 0 draws once.
    """

    def __init__(self, rounds: Natural = 0) -> None:
        """See Settings."""
        self.rounds = rounds

    def free(self, given_NL: Mask, broken_NL: Mask, u_NL: npt.NDArray[np.float64]) -> Mask:
        """All but what is given."""
        return ~given_NL


@Strategy.register("resample")
class Resample(Strategy):
    """Only what the checker calls broken is drawn anew, given all that stands.

    It can get stuck where nothing that is broken can be mended without changing what is not; ``also`` frees more.

    Settings:
        rounds: how many times at most.
        also: chance of each other free position to be drawn anew too.
    """

    anywhere = True

    def __init__(self, rounds: Count = 4, also: Fraction = 0.0) -> None:
        """See Settings."""
        self.rounds, self.also = rounds, also

    def free(self, given_NL: Mask, broken_NL: Mask, u_NL: npt.NDArray[np.float64]) -> Mask:
        """What is broken, and others by lot."""
        return ~given_NL & (broken_NL | (u_NL < self.also))


class Solving(Section):
    """How puzzles are attempted.

    Settings:
        instances: held-out puzzles, evenly spread; 0 takes all of them.
        attempts: attempts at each.
        batch: attempts drawn at a time.
        strategy: what follows an attempt that the checker refuses.
    """

    usual: ClassVar[Mapping[str, Any]] = {"strategy": {"type": "restart"}}

    def __init__(self, strategy: Strategy, instances: Natural = 200, attempts: Count = 16, batch: Count = 256) -> None:
        """See Settings."""
        self.strategy, self.instances, self.attempts, self.batch = strategy, instances, attempts, batch

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A corpus without a checker; more attempts or rounds than have numbers."""
        yield from super().misfits(node, root)
        rounds = node.settings["strategy"].settings.get("rounds")
        for path, count in (("attempts", node.settings["attempts"]), ("strategy.rounds", rounds)):
            if count is not None and count >= MOST:
                yield Problem(f"{node.path}.{path}", f"{count:,} are too many; take less than {MOST:,}")
        corpus = root.find("data.corpus")
        if corpus is not None:
            part: Any = corpus.part
            if not part.answers:
                able = [name for name, one in sorted(part.registered.items()) if one.answers]
                yield Problem(
                    node.path,
                    f"corpus {part.type_name!r} has no checker of answers. What would fit: {', '.join(able)}.",
                )


def pass_at(k: int, right_N: npt.NDArray[np.int64], attempts: int) -> npt.NDArray[np.float64]:
    """pass@k of N puzzles, ``right_N`` of ``attempts`` attempts at each being right: 1 − C(n − c, k)/C(n, k), [N].

    Unbiased for 1 − (1 − p)^k (Chen et al. 2021, "Evaluating large language models trained on code", eq. 1).

    Raises:
        ValueError: k is larger than the number of attempts.
    """
    if not 1 <= k <= attempts:
        raise ValueError(f"pass@{k} of {attempts} attempts")
    every = math.comb(attempts, k)
    return np.array([1 - math.comb(attempts - int(right), k) / every for right in right_N], dtype=np.float64)


def largest(wanted: Sequence[int]) -> int:
    """The number of attempts that figures of pass@k need."""
    return max(wanted, default=1)
