"""What these tests share: exact views beside the oracle, rules with stages, memory and corrections, χ²."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from graphs.noise import Geometric, LogLinear
from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.exact import ExactView
from samplers.predictors.analytic import Analytic
from samplers.predictors.euler import Euler
from samplers.predictors.laws import live_rows
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse
from samplers.times import Uniform
from tests import oracle
from tests.graphs.worlds import WORLDS

RULES = {"analytic": Analytic, "normalised": Normalised, "euler": Euler}
EPS = 1e-6


def law_and_view(name: str, length: int, seed: int = 7) -> tuple[oracle.Array, ExactView]:
    """A random joint law on tokens, and the exact view of it with nearly infinite noise at t = 1.

    Not more noise than that: SEDD's staggered score amplifies rounding by e^Δσ, so that one analytic step from
    σ = 30 to 0 keeps no digit even in float64.
    """
    graph = WORLDS[name].graph
    p0 = oracle.random_joint(graph.vocab, length, seed=seed)
    noise = LogLinear(1e-9) if graph.mask else Geometric(1e-4, 12.0)
    return p0, ExactView(graph, noise, torch.from_numpy(p0))


def reverse(rule: str | Predictor, steps: int, **settings: Any) -> Reverse:
    predictor = RULES[rule]() if isinstance(rule, str) else rule
    return Reverse(predictor, Uniform(EPS), steps, **settings)


def on_tokens(law: Tensor, vocab: int) -> oracle.Array:
    """A law over S^L cut down to V^L; what lies on masks must be nothing."""
    inside = law[(slice(vocab),) * law.dim()].numpy()
    assert abs(inside.sum() - 1) < 1e-9
    return inside


def chi_square(tokens_BL: Tensor, law: oracle.Array) -> float:
    """p-value that the tokens were drawn from ``law`` over V^L; cells of fewer than 5 expected are pooled."""
    place = np.ravel_multi_index(tuple(tokens_BL.numpy().T), law.shape)
    seen = np.bincount(place, minlength=law.size).astype(float)
    due = law.reshape(-1) * len(tokens_BL)
    small = due < 5
    assert seen[due == 0].sum() == 0
    if small.any():
        seen, due = np.append(seen[~small], seen[small].sum()), np.append(due[~small], due[small].sum())
        if due[-1] == 0:
            seen, due = seen[:-1], due[:-1]
    return float(stats.chisquare(seen, due * seen.sum() / due.sum()).pvalue)


class TwoLooks(Predictor):
    """A rule of two stages: half the way by one look, the rest by the mean of two looks' clean laws."""

    stages = 2
    blind = True
    shapes = "clean"

    def time(self, stage: int, t_B: Tensor, s_B: Tensor) -> Tensor:
        return t_B if stage == 0 else (t_B + s_B) / 2

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        assert len(looks) == stage + 1
        rows_R = live_rows(state)
        item_R = rows_R // state.x_BL.shape[1]
        middle_B = self.time(1, state.t_B, state.s_B)
        ends = (state.t_B, middle_B) if stage == 0 else (middle_B, state.s_B)
        leave_R = view.graph.leave(*(view.sigma(end)[item_R] for end in ends))

        def target(subset: Tensor) -> Tensor:
            laws = [look.clean(rows_R[subset]).exp() for look in looks]
            return torch.stack(laws).mean(0).log()

        return Law(rows_R, leave_R, target, blind=True)


class Remask(Predictor):
    """A corrector: masks each settled free position again with a probability, and remembers how often it ran."""

    corrects = True
    graphs = "mask"

    def __init__(self, rate: float = 0.2) -> None:
        self.rate = rate

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        rows_R = torch.nonzero((state.free_BL & ~state.live_BL).reshape(-1)).squeeze(-1)
        leave_R = torch.full(rows_R.shape, self.rate, dtype=torch.float64)
        runs_B = state.memory.get("runs", torch.zeros(len(state.x_BL))) + 1
        to_R = torch.full_like(rows_R, view.vocab)
        return Law(rows_R, leave_R, torch.Tensor.double, to_R=to_R, blind=True, memory={"runs": runs_B})
