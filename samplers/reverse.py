"""The reverse walk: one loop for every predictor, corrector and graph.

The loop is a generator that yields laws and is sent the next state; whatever persists stands in the state. So
the sampler, which draws (`samplers.draw`), and the enumeration of its exact law (`samplers.enumeration`)
drive the same loop, and a walk resumes from any state it has yielded.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import torch

from samplers.base import (
    Canvas,
    Conditions,
    Law,
    Lens,
    Predictor,
    Sampler,
    Samples,
    ScoreView,
    Shape,
    Shaper,
    State,
    Times,
    View,
)
from samplers.draw import Walk, draw, drive
from samplers.fit import misfits_of
from samplers.predictors.normalised import Normalised
from samplers.race import race
from samplers.shapers import chain
from workbench.core.bounds import Count
from workbench.core.errors import Problem, WorkbenchError
from workbench.core.rng import Rng

if TYPE_CHECKING:
    from workbench.core.spec import Node


class Turn(NamedTuple):
    """One law of a walk: ``rule``'s stage on the way from time t to s."""

    rule: Predictor
    stage: int
    t: float
    s: float


def turns(
    predictor: Predictor,
    grid: Sequence[float],
    correctors: Sequence[Predictor] = (),
    cleanup: Predictor | None = None,
    clock: Sequence[float] | None = None,
) -> list[Turn]:
    """All laws of a walk down ``grid``: after each step the correctors, after the last the clean-up to 0.

    ``clock``: the times that correctors hear, one a time of the grid, where the predictor has a pace of its own.
    """
    steps: list[tuple[Predictor, float, float]] = []
    for (t, s), now in zip(itertools.pairwise(grid), (clock or grid)[1:], strict=True):
        steps += [(predictor, t, s), *((corrector, now, now) for corrector in correctors)]
    if cleanup is not None:
        steps.append((cleanup, grid[-1], 0.0))
    return [Turn(rule, stage, t, s) for rule, t, s in steps for stage in range(rule.stages)]


def walk(view: ScoreView, state: State, plan: Sequence[Turn], shape: Shape | None = None) -> Walk:
    """The loop, from law number ``state.step`` of ``plan`` on: yields (state, law), is sent the next state."""
    for turn in plan[state.step :]:
        here = replace(state, t_B=torch.full_like(state.t_B, turn.t), s_B=torch.full_like(state.s_B, turn.s))
        looks = (*state.looks, view.look(state.x_BL, turn.rule.sigma(turn.stage, here, view)))
        law = turn.rule.law(turn.stage, looks, here, view, shape)
        last = turn.stage + 1 == turn.rule.stages
        state = yield replace(here, looks=() if last else looks), law
    return state


@Sampler.register("reverse")
class Reverse(Sampler):
    """SEDD's sampler: from pure noise down a grid of times, then to clean text.

    Fixed positions hold the canvas's tokens from the start and never change; that conditions exactly on
    masked graphs in the limit of many steps, approximately on others.

    Settings:
        predictor: the rule of one step
        times: the grid of times
        steps: number of predictor steps; the clean-up adds one
        shapers: changes of the law of the clean token, applied in order
        correctors: rules applied at the end of each step, in order
        cleanup: SEDD's last step, from the last time to clean text, by the ``normalised`` law
        lenses: other ways to look through the network (guidance, what σ it hears), the first one innermost
        precision: float64 draws exactly in two stages; float32_race as published code does, with its bias (`race`)
    """

    needs: ClassVar[type[View]] = ScoreView
    conditions: ClassVar[Conditions] = "anywhere"
    usual: ClassVar[dict[str, Any]] = {"predictor": {"type": "analytic"}, "times": {"type": "uniform"}}

    def __init__(
        self,
        predictor: Predictor,
        times: Times,
        steps: Count = 128,
        shapers: Sequence[Shaper] = (),
        correctors: Sequence[Predictor] = (),
        cleanup: bool = True,
        lenses: Sequence[Lens] = (),
        precision: Literal["float64", "float32_race"] = "float64",
    ) -> None:
        """Keep the parts."""
        self.predictor, self.times, self.steps = predictor, times, steps
        self.shape = chain(shapers)
        self.correctors = correctors
        self.cleanup = Normalised() if cleanup else None
        self.lenses = lenses
        self.draws = race if precision == "float32_race" else draw

    def plan(self, view: ScoreView) -> list[Turn]:
        """The laws of this sampler on a view's noise schedule."""
        grid = self.times.grid(self.predictor.steps(self.steps, view.length), view.noise)
        clock = self.predictor.clock(grid, view)
        return turns(self.predictor, grid.tolist(), self.correctors, self.cleanup, clock.tolist())

    def begin(self, view: ScoreView, canvas: Canvas, rng: Rng) -> State:
        """The state at t = 1: noise at the free positions, the canvas's tokens at the fixed ones.

        Raises:
            WorkbenchError: the canvas is longer than the view's length or fixes something that is no token.
        """
        u_BL = torch.from_numpy(rng.uniform("prior", 0, canvas.seq_B.numpy(), canvas.x_BL.shape[1]))
        state = start(view, canvas, view.graph.prior(u_BL))
        names = [name for rule in (self.predictor, *self.correctors) for name in rule.begins]
        drawn = {name: torch.from_numpy(rng.uniform(name, 0, canvas.seq_B.numpy(), u_BL.shape[1])) for name in names}
        return replace(state, memory=drawn)

    def through(self, view: ScoreView, canvas: Canvas) -> ScoreView:
        """The view through this sampler's lenses, for a canvas."""
        for lens in self.lenses:
            view = lens(view, canvas)
        return view

    def walk(self, view: ScoreView, state: State) -> Walk:
        """The loop from ``state`` to the end."""
        return walk(view, state, self.plan(view), self.shape)

    @torch.no_grad()
    def draw(self, view: View, canvas: Canvas, rng: Rng, progress: Callable[[float], None] | None = None) -> Samples:
        """See the base. The trace holds, per law, rows ``moved`` and then ``live``, end ``times``, mass ``clipped``."""
        view = cast("ScoreView", view)
        began, calls, laws = time.perf_counter(), view.calls, len(self.plan(view))
        moved: list[int] = []
        live: list[int] = []
        times: list[float] = []
        clipped: list[torch.Tensor] = []

        def heard(state: State, law: Law, rows: int) -> None:
            moved.append(rows)
            live.append(int(state.live_BL.sum()))
            times.append(float(state.s_B[0]))
            clipped.append(torch.as_tensor(law.clipped, dtype=torch.float64))
            if progress is not None:
                progress(state.step / laws)

        seen = self.through(view, canvas)
        last = drive(self.walk(seen, self.begin(view, canvas, rng)), rng, view, heard, self.draws)
        trace = {"moved": moved, "live": live, "times": times, "clipped": _read(clipped)}
        return Samples(last.x_BL.cpu(), view.calls - calls, time.perf_counter() - began, trace)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """What does not fit the recipe's graph, its backbone or one another."""
        yield from super().misfits(node, root)
        yield from misfits_of(node, root)


def _read(masses: list[torch.Tensor]) -> list[float]:
    """Numbers of either device, in order: what lies on a GPU is read at once, not number by number."""
    there = [mass for mass in masses if mass.device.type != "cpu"]
    read = iter(torch.stack(there).tolist() if there else [])
    return [float(mass) if mass.device.type == "cpu" else next(read) for mass in masses]


def start(view: ScoreView, canvas: Canvas, noise_BL: torch.Tensor) -> State:
    """The state at t = 1 with given noise (int64, host) at the free positions.

    Raises:
        WorkbenchError: the canvas is longer than the view's length or fixes something that is no token.
    """
    batch, length = canvas.x_BL.shape
    if length > view.length:
        raise WorkbenchError(f"the canvas has {length} positions, the model {view.length}: write on fewer")
    canvas.require_tokens(view.vocab)
    x_BL = torch.where(canvas.fixed_BL, canvas.x_BL, noise_BL)
    free_BL = ~canvas.fixed_BL
    ones_B = torch.ones(batch, dtype=torch.float64)
    return State(x_BL.to(view.device), free_BL, free_BL & view.graph.live(x_BL), canvas.seq_B, ones_B, ones_B)
