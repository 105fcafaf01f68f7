"""Random satisfiability: 3-SAT near its threshold."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from workbench.core.bounds import Positive
from workbench.data.base import Ids
from workbench.data.puzzles.base import Graded, Mask, Puzzle, placed, within

Variables = Annotated[int, Interval(ge=3, le=20)]
WIDTH = 3


@Puzzle.register("sat")
class Sat(Graded):
    """Random 3-SAT: clauses of three distinct variables with signs by lot, kept where an assignment satisfies all.

    Near 4.27 clauses a variable half of the large formulas can be satisfied and the hard ones gather (Mitchell, Selman
    & Levesque 1992; Mertens, Mézard & Zecchina 2006). Tokens: 0 and 1 for values, 2 + 2i for variable i, one more for
    its negation; the question is the literals, clause by clause, sorted; the answer one value a variable, one of the
    satisfying assignments by lot. Any satisfying one counts. Broken: the variables of a clause that is not satisfied.

    Settings:
        variables: how many; all assignments are looked at.
        ratio: clauses a variable.
    """

    def __init__(self, variables: Variables = 8, ratio: Positive = 4.27) -> None:
        """See Settings."""
        self.variables, self.ratio = variables, ratio
        self.clauses = max(1, round(ratio * variables))
        self.vocab = 2 + 2 * variables
        self.question = WIDTH * self.clauses
        self.length = self.question + variables

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A few variables."""
        return {"variables": 5}

    def as_data(self) -> dict[str, Any]:
        """All settings."""
        return {"variables": self.variables, "ratio": self.ratio}

    def candidate(self, rng: np.random.Generator) -> Ids | None:
        """A formula with one of its satisfying assignments, None where there is none."""
        picks_MV = rng.random((self.clauses, self.variables)).argsort(-1)
        variable_MW = np.sort(picks_MV[:, :WIDTH], -1)
        clause_MW = 2 + 2 * variable_MW + rng.integers(0, 2, variable_MW.shape)
        clause_MW = clause_MW[np.lexsort(clause_MW.T[::-1])]
        every_AV = (np.arange(1 << self.variables)[:, None] >> np.arange(self.variables)) & 1
        holds_A = satisfied(np.broadcast_to(clause_MW, (len(every_AV), *clause_MW.shape)), every_AV).all(-1)
        right = np.flatnonzero(holds_A)
        if not len(right):
            return None
        return np.concatenate([clause_MW.reshape(-1), every_AV[rng.choice(right)]]).astype(np.int64)

    def broken(self, tokens_NL: Ids) -> Mask:
        """Variables of clauses that are not satisfied, and what is no value."""
        clause_NMW = tokens_NL[:, : self.question].reshape(len(tokens_NL), -1, WIDTH)
        value_NV = tokens_NL[:, self.question :]
        open_NM = ~satisfied(clause_NMW, value_NV)
        touches_NMV = (((clause_NMW - 2) // 2)[..., None] == np.arange(self.variables)).any(2)
        return placed(self, (touches_NMV & open_NM[..., None]).any(1) | ~within(value_NV, 0, 2))


def satisfied(clause_NMW: Ids, value_NV: Ids) -> Mask:
    """Which clauses hold, [N, M]: a literal 2 + 2i is variable i, one more its negation."""
    count = len(value_NV)
    variable_NX = ((clause_NMW - 2) // 2).reshape(count, -1)
    chosen_NX = np.take_along_axis(value_NV, variable_NX, 1)
    wanted_NX = 1 - ((clause_NMW - 2) % 2).reshape(count, -1)
    held: Mask = (chosen_NX == wanted_NX).reshape(clause_NMW.shape).any(-1)
    return held
