"""What every predictor, shaper and grid of times must satisfy: run on any registered part, a plug-in's included.

``CHECKS`` maps a kind to a function from a part's class to a list of problems (empty: the part meets its contract).
A part is built from its default settings and those of its ``example()``, and driven by the shipping loop on small
worlds whose scores are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.mixture import Mixture
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform
from samplers.base import Canvas, Law, Predictor, ScoreView, ShapeContext, Shaper, State, Times
from samplers.contract_planning import check_lens, check_order
from samplers.draw import drive
from samplers.enumeration import law_of
from samplers.exact import ExactView
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse, start, turns, walk
from samplers.times import Uniform as UniformTimes
from workbench.core.checks import run_checks
from workbench.core.rng import Rng

VOCAB, LENGTH = 3, 2
"""The small worlds: tokens, positions."""
STEPS, FINE = 4, 24
"""Steps of their walks, and of those whose law is enumerated."""
MIDDLE, NEAR = 0.3, 0.03
"""A time on the way, where the law is compared too; the total variation within which it must come (shipped: 0.01)."""


def check_predictor(part: type[Predictor]) -> list[str]:
    """Problems of a predictor, in words: on the absorbing graph, and on others if it takes any."""
    return run_checks(Predictor, part, _PREDICTOR)


def check_shaper(part: type[Shaper]) -> list[str]:
    """Problems of a shaper, in words."""
    return run_checks(Shaper, part, _SHAPER)


def check_times(part: type[Times]) -> list[str]:
    """Problems of a grid of times, in words."""
    return run_checks(Times, part, _TIMES)


# --- predictors -------------------------------------------------------------------------------------------------


def _worlds(rule: Predictor) -> Iterator[tuple[str, ExactView]]:
    """Exact views on the graphs that the predictor says it takes."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand((VOCAB,) * LENGTH, generator=generator, dtype=torch.float64) + 0.05
    yield "absorbing", ExactView(Absorbing(VOCAB), LogLinear(), joint)
    if rule.graphs == "any":
        yield "uniform", ExactView(Uniform(VOCAB), Geometric(), joint)
        yield "mixture", ExactView(Mixture(VOCAB, 0.3), LogLinear(), joint)


def _sampler(rule: Predictor, shapers: tuple[Shaper, ...] = (), steps: int = STEPS) -> Reverse:
    """A short walk that uses the rule: as its predictor, or after one if it is a corrector."""
    if rule.corrects:
        return Reverse(Normalised(), UniformTimes(), steps, shapers, (rule,))
    return Reverse(rule, UniformTimes(), steps, shapers)


def _proposes_laws(rule: Predictor) -> Iterator[str]:
    """Every law of a walk is one: rows once and free, P(leave) in [0, 1], a target off the row's own state."""
    for name, view in _worlds(rule):
        found: list[str] = []
        canvas = _canvas(8)
        sampler = _sampler(rule)

        def inspected(view: ScoreView = view, canvas: Canvas = canvas, found: list[str] = found) -> Any:
            """The walk, with a look at every law that passes."""
            steps = sampler.walk(view, sampler.begin(view, canvas, Rng(1)))  # noqa: B023
            state, law = next(steps)
            while True:
                found.extend(_faults(state, law, view.graph))
                try:
                    state, law = steps.send((yield state, law))
                except StopIteration as end:
                    return end.value

        drive(inspected(), Rng(1), view)
        yield from (f"on {name}: {fault}" for fault in dict.fromkeys(found))


def _faults(state: State, law: Law, graph: Graph) -> Iterator[str]:
    """What is wrong with one law."""
    rows_R, leave_R = law.rows_R, law.leave_R.cpu()
    if rows_R.device.type != "cpu" or rows_R.dtype != torch.int64:
        yield "rows_R must be int64 on the host"
    if rows_R.numel() != rows_R.unique().numel():
        yield "a row is proposed twice"
    if not bool(state.free_BL.reshape(-1)[rows_R].all()):
        yield "a fixed position is proposed"
    if leave_R.dtype != torch.float64 or leave_R.shape != rows_R.shape:
        yield "leave_R must be float64, one number a row"
    if not bool(((leave_R >= 0) & (leave_R <= 1)).all()):
        yield "P(leave) outside [0, 1]"
    known_R = torch.full_like(rows_R, -1) if law.to_R is None else law.to_R
    asked_R = torch.nonzero((known_R < 0) & (leave_R > 0)).squeeze(-1)
    if asked_R.numel():
        p_RN = law.target(asked_R).exp()
        if not (p_RN.shape[0] == asked_R.numel() and p_RN.shape[1] <= graph.states):
            yield f"target has shape {tuple(p_RN.shape)} for {asked_R.numel()} rows of {graph.states} states"
            return
        if not bool((torch.isfinite(p_RN).all(-1) & (p_RN.sum(-1) > 0)).all()):
            yield "a target holds no probability, or is not a number"
        x_R = state.x_BL.reshape(-1)[rows_R[asked_R]]
        own_R = x_R < p_RN.shape[1]
        if bool((p_RN[own_R].gather(-1, x_R[own_R].unsqueeze(-1)) != 0).any()):
            yield "a target has mass on the row's own state"


def _is_pure(rule: Predictor) -> Iterator[str]:
    """The same state gives the same law, and is left as it was."""
    for name, view in _worlds(rule):
        state = _midway(view)
        before_BL = state.x_BL.clone()
        plan = turns(rule, [0.5, 0.5 if rule.corrects else 0.3])[:1]
        laws = [next(walk(view, state, plan))[1] for _ in range(2)]
        if not torch.equal(laws[0].leave_R, laws[1].leave_R) or not torch.equal(laws[0].rows_R, laws[1].rows_R):
            yield f"on {name}: two laws of the same state differ"
        if not torch.equal(state.x_BL, before_BL):
            yield f"on {name}: the state's tokens were changed in place"


def _is_blind_where_it_says_so(rule: Predictor) -> Iterator[str]:
    """On a blind graph a blind rule's first law asks no network before a target is asked."""
    view = next(_worlds(rule))[1]
    law = next(walk(view, _midway(view), turns(rule, [0.5, 0.3])))[1]
    if rule.blind and (view.calls or not law.blind):
        yield "declared blind, but the network was asked for who leaves (or the law does not say blind)"


def _ends_in_text(rule: Predictor) -> Iterator[str]:
    """After the clean-up there are only tokens, the fixed ones are as given, and no sequence hears its batch."""
    for name, view in _worlds(rule):
        canvas = _canvas(8)
        tokens_BL = _sampler(rule).draw(view, canvas, Rng(2)).tokens_BL
        if not bool(((tokens_BL >= 0) & (tokens_BL < VOCAB)).all()):
            yield f"on {name}: the samples hold ids that are no tokens"
        if not torch.equal(tokens_BL[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL]):
            yield f"on {name}: a fixed position changed"
        alone = Canvas(canvas.x_BL[5:6], canvas.fixed_BL[5:6], canvas.seq_B[5:6])
        if not torch.equal(_sampler(rule).draw(view, alone, Rng(2)).tokens_BL, tokens_BL[5:6]):
            yield f"on {name}: a sequence drawn alone differs from the same one in a batch"


def _is_faithful(rule: Predictor) -> Iterator[str]:
    """With the exact score, the enumerated law comes near the text's, and midway near the noised text's."""
    if not rule.faithful:
        return
    for name, view in _worlds(rule):
        plan = turns(rule, [0.5, 0.5 if rule.corrects else 0.3])
        if next(walk(view, _midway(view), plan))[1].memory:
            return  # what is remembered makes pasts differ: too many to enumerate
        late = _sampler(rule, steps=FINE)
        early = Reverse(late.predictor, UniformTimes(MIDDLE), FINE, correctors=late.correctors, cleanup=False)
        noised = view.tables(float(view.noise.total(torch.tensor(MIDDLE, dtype=torch.float64))))[0]
        text = (slice(VOCAB),) * LENGTH
        end = (law_of(late, view)[text], view.joint, "at the end")
        checks = [end] + [(law_of(early, view), noised, f"at t = {MIDDLE}")] * rule.paced
        for law, due, when in checks:
            apart = float((law - due).abs().sum()) / 2
            if apart > NEAR:
                yield f"on {name}: {FINE} steps with the exact score give a law {apart:.6g} off {when} (≤ {NEAR})"


def _heeds_shapers(rule: Predictor) -> Iterator[str]:
    """Where it says it takes shapers, a shaper that leaves one token leaves one token."""
    for name, view in _worlds(rule):
        if rule.shapes == "clean" or (rule.shapes == "mask" and view.graph.blind):
            tokens_BL = _sampler(rule, (_Only(),)).draw(view, Canvas.blank(8, LENGTH), Rng(3)).tokens_BL
            if bool((tokens_BL != 0).any()):
                yield f"on {name}: tokens that the shaper excludes were drawn"


class _Only(Shaper):
    """Leaves token 0."""

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        out_RV = torch.full_like(log_p_RV, -math.inf)
        out_RV[:, 0] = 0.0
        return out_RV


def _canvas(batch: int) -> Canvas:
    """Half of the sequences with their first token given."""
    canvas = Canvas.blank(batch, LENGTH, first=10)
    canvas.fixed_BL[::2, 0] = True
    canvas.x_BL[::2, 0] = 1
    return canvas


def _midway(view: ScoreView) -> State:
    """Sequences half noised."""
    noise_BL = torch.tensor([[0, 1], [2, 2]])
    noise_BL[:, 1] = view.graph.states - 1
    return start(view, Canvas.blank(2, LENGTH), noise_BL)


# --- shapers ----------------------------------------------------------------------------------------------------


def _laws(dtype: torch.dtype) -> tuple[Tensor, ShapeContext]:
    """Laws of six rows (2 × 3 positions) over eleven tokens, one of them excluded, and their context."""
    generator = torch.Generator().manual_seed(1)
    logits_RV = 2 * torch.randn(6, 11, generator=generator, dtype=torch.float64)
    logits_RV[:, 4] = -math.inf
    x_BL = torch.tensor([[1, 2, 3], [3, 3, 3]])
    context = ShapeContext(
        x_BL, torch.arange(6), torch.tensor([[True, False, True]] * 2), torch.full((2,), 0.5, dtype=torch.float64)
    )
    return logits_RV.log_softmax(-1).to(dtype), context


def _returns_laws(shaper: Shaper) -> Iterator[str]:
    """A normalised law of the same shape and type; what was excluded stays so."""
    for dtype, near in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        log_p_RV, context = _laws(dtype)
        out_RV = shaper(log_p_RV.clone(), context)
        if out_RV.shape != log_p_RV.shape or out_RV.dtype != dtype:
            yield f"{dtype} [6, 11] became {out_RV.dtype} {list(out_RV.shape)}"
        elif not bool(((out_RV.exp().sum(-1) - 1).abs() < near).all()):
            yield f"{dtype}: the law is not normalised"
        elif not bool(out_RV[:, 4].isneginf().all()):
            yield f"{dtype}: a token of probability zero got some"


def _is_by_rows(shaper: Shaper) -> Iterator[str]:
    """Each row by itself, so that chunks make no difference; the input is left as it was."""
    log_p_RV, context = _laws(torch.float64)
    given_RV = log_p_RV.clone()
    together_RV = shaper(log_p_RV, context)
    if not torch.equal(log_p_RV, given_RV):
        yield "its input was changed in place"
    for row in range(6):
        one = ShapeContext(context.x_BL, context.rows_R[row : row + 1], context.settled_BL, context.t_B)
        alone_1V = shaper(given_RV[row : row + 1].clone(), one)
        if not torch.allclose(alone_1V.exp(), together_RV[row : row + 1].exp(), rtol=0, atol=1e-12):
            yield f"row {row} alone is shaped otherwise than among the others"


# --- times ------------------------------------------------------------------------------------------------------


def _descends(times: Times) -> Iterator[str]:
    """From 1 down, strictly, never to 0, as many as asked."""
    for noise in (LogLinear(), Geometric()):
        for steps in (1, 2, 7, 1024):
            grid = times.grid(steps, noise)
            if grid.shape != (steps + 1,) or grid.dtype != torch.float64:
                yield f"{steps} steps need {steps + 1} float64 times; got {grid.dtype} {list(grid.shape)}"
            elif float(grid[0]) != 1.0 or not bool((grid[1:] < grid[:-1]).all()) or float(grid[-1]) <= 0:
                yield f"{steps} steps: times must fall strictly from 1 and stay above 0"


_PREDICTOR = (
    _proposes_laws, _is_pure, _is_blind_where_it_says_so, _ends_in_text, _is_faithful, _heeds_shapers
)  # fmt: skip
_SHAPER = (_returns_laws, _is_by_rows)
_TIMES = (_descends,)

CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "predictor": check_predictor,
    "order": check_order,
    "lens": check_lens,
    "shaper": check_shaper,
    "times": check_times,
}
"""Kind → the function that checks a part of it."""
