"""What passes between a rule and the draw: the state of a walk, the law of a step; and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from samplers.views import Look
from workbench.core.errors import WorkbenchError


@dataclass(frozen=True)
class State:
    """All that a resumable sampler needs between two laws.

    ``x_BL`` int64 on the device; ``free_BL`` bool on the host (False: fixed by the canvas); ``live_BL`` bool
    on the host: free and may be moved by a reverse step (kept without asking the device); ``t_B``, ``s_B``
    the times of the step under way, float64 on the host; ``seq_B`` the sequences' numbers, which key their
    randomness; ``step`` the number of laws drawn so far; ``looks`` those of the earlier stages of a step
    under way (empty between steps); ``memory`` what predictors keep: tensors whose first axis is the batch.
    """

    x_BL: Tensor
    free_BL: Tensor
    live_BL: Tensor
    seq_B: Tensor
    t_B: Tensor
    s_B: Tensor
    step: int = 0
    looks: tuple[Look, ...] = ()
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def select(self, parent_B: Tensor) -> State:
        """The state of a batch whose row b descends from row ``parent_B[b]`` (int64, host): for drivers that
        change the batch, as an enumeration does."""

        def pick(value: Tensor) -> Tensor:
            return value[parent_B.to(value.device)]

        kept: dict[str, Any] = {name: pick(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        looks = tuple(look.select(parent_B) for look in self.looks)
        return replace(self, **kept, looks=looks, memory={name: pick(value) for name, value in self.memory.items()})


@dataclass(frozen=True)
class Choice:
    """Which rows of a sequence may move, drawn together: exactly ``count_B`` of them, without replacement.

    One after the other with probabilities ∝ exp(``score_R`` / ``tau``) among those left (Plackett–Luce, which is
    Gumbel-top-k); ``tau`` = 0 takes the highest score, equal ones by lot. ``score_R`` float64, −inf for never;
    ``count_B`` int64 on the host, cut to the number of rows that a sequence has.
    """

    score_R: Tensor
    count_B: Tensor
    tau: float = 0.0


@dataclass(frozen=True)
class Law:
    """A factorised law of one step: each row leaves with its probability and lands by its own law.

    ``rows_R``: flat positions that may move, int64 on the host. ``leave_R``: float64, P(row leaves its
    state), the *sum* of the off-diagonal mass, never 1 − stay. ``target(subset)``: for indices into
    ``rows_R`` (int64, host; at most a chunk of them), log law of the landing state given that the row leaves,
    [r, n] with n ≤ S (states from n on have no mass), −inf at the row's own state; a constant may be missing
    from it, the draw divides by the total. ``to_R``: known destinations, int64 on the host; −1 where the
    target is to be asked. ``blind``: no network was asked for ``leave_R``. ``lands_live``: rows that land by
    the target stay live (graphs without a mask). ``clipped``: mass that had to be clamped into [0, 1], summed
    over rows (a diagnostic). ``memory``: what the predictor wants kept in the next state.

    ``choice``: only rows chosen together may move; those then leave with ``leave_R``. ``exact(subset)``: P(leave) of
    rows, float64 [r], where ``leave_R`` is but a bound of it that costs nothing: asked for the rows whose number
    falls below the bound (thinning). ``expect(subset)``: told of all rows that ``target`` or ``exact`` is to be asked
    for, before the first piece of them (see `Look.expect`). ``notes``: the name under which the state's memory keeps,
    [B, L] float64, log of the probability with which ``target`` drew each position's present state.
    """

    rows_R: Tensor
    leave_R: Tensor
    target: Callable[[Tensor], Tensor]
    to_R: Tensor | None = None
    blind: bool = False
    lands_live: bool = False
    clipped: float | Tensor = 0.0
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    choice: Choice | None = None
    exact: Callable[[Tensor], Tensor] | None = None
    expect: Callable[[Tensor], None] | None = None
    notes: str = ""


@dataclass(frozen=True)
class Canvas:
    """What to write on, on the host: ``x_BL`` int64, ``fixed_BL`` bool (given, never changes), ``seq_B`` int64."""

    x_BL: Tensor
    fixed_BL: Tensor
    seq_B: Tensor

    @classmethod
    def blank(cls, batch: int, length: int, first: int = 0) -> Canvas:
        """An empty canvas of ``batch`` sequences numbered from ``first``."""
        return cls(
            torch.zeros(batch, length, dtype=torch.long),
            torch.zeros(batch, length, dtype=torch.bool),
            torch.arange(first, first + batch),
        )


    def require_tokens(self, vocab: int) -> None:
        """Raises ``WorkbenchError`` where something is fixed that is no token."""
        given = self.x_BL[self.fixed_BL]
        if bool(((given < 0) | (given >= vocab)).any()):
            raise WorkbenchError(f"the canvas fixes ids outside the vocabulary 0 … {vocab - 1}")

    def pieces(self, size: int) -> Iterator[Canvas]:
        """Canvases of ``size`` positions, the last one filled up by free positions."""
        more = -self.x_BL.shape[1] % size
        x_BL, fixed_BL = F.pad(self.x_BL, (0, more)), F.pad(self.fixed_BL, (0, more))
        for x_BS, fixed_BS in zip(x_BL.split(size, 1), fixed_BL.split(size, 1), strict=True):
            yield Canvas(x_BS, fixed_BS, self.seq_B)


@dataclass(frozen=True)
class Samples:
    """Drawn tokens [B, L] (int64, host), network calls, wall-clock seconds, named traces (a list each)."""

    tokens_BL: Tensor
    calls: int
    seconds: float
    trace: Mapping[str, Any] = field(default_factory=dict)
