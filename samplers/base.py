"""The contracts of sampling: what a network shows (View, Look), what a step proposes (Law), what draws.

A predictor proposes *laws* (who leaves with what probability, and where to); one place draws from them
(`samplers.draw`); one loop (`samplers.reverse`) walks the times. The loop is a generator that yields laws and
is sent the next state, so that the sampler and the test that enumerates its law drive the same loop. Samplers
see views, never networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from graphs.base import Noise
from samplers.state import Canvas, Choice, Law, Samples, State
from samplers.views import BlockView, HintedView, Look, NextTokenView, ScoreView, Stats, View, rows_map
from workbench.core.errors import Problem
from workbench.core.part import Part
from workbench.core.rng import Rng

if TYPE_CHECKING:
    from workbench.core.spec import Node

__all__ = [
    "BlockView", "Canvas", "Choice", "Conditions", "HintedView", "Law", "Lens", "Look", "NextTokenView", "Order",
    "OrderContext", "Predictor", "Sampler", "Samples", "ScoreView", "Shape", "ShapeContext", "Shaper", "State", "Stats",
    "Times", "View", "rows_map",
]  # fmt: skip

Conditions = Literal["prefix", "anywhere"]


@dataclass(frozen=True)
class ShapeContext:
    """What a shaper may look at: the tokens, the rows being shaped, which positions are settled, the time.

    ``x_BL`` and ``rows_R`` (flat positions) on the device; ``settled_BL`` (bool: no step will move it) and
    ``t_B`` (float64) on the host.
    """

    x_BL: Tensor
    rows_R: Tensor
    settled_BL: Tensor | None = None
    t_B: Tensor | None = None


class Shaper(Part, ABC, kind="shaper"):
    """A change of the law of the clean token given the rest; GPT-2's next-token law takes the same."""

    @abstractmethod
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """A new normalised log law [R, V] (−inf where excluded); pure, each row by itself."""


Shape = Callable[[Tensor, ShapeContext], Tensor]


@dataclass(frozen=True)
class OrderContext:
    """What an order may look at: the state, the rows it ranks, how many rows the pace asks for.

    ``rows_R`` int64 on the host; ``due_B`` int64: by how many settled positions each sequence should grow in this
    step; ``drawn_R`` float64: log of the probability with which the present token of each row was drawn, and
    ``was_masked_R`` whether that was in this step (both for orders that need ``drawn``).
    """

    state: State
    rows_R: Tensor
    due_B: Tensor
    drawn_R: Tensor | None = None
    was_masked_R: Tensor | None = None


class Order(Part, ABC, kind="order"):
    """Which masked positions are written next: numbers, no draws (the draw takes the highest, by Gumbel-top-k).

    ``needs``: of what it is told, subset of {"entropy", "top1", "top2", "drawn"}; with "drawn" the tokens are drawn
    first and the order says which of them stay. ``remasks``: with "drawn", whether tokens of earlier steps may be
    taken back too. ``clocked``: writes only when the grid's pace asks for it. ``tau``: temperature of the choice.
    ``faithful``: as in `Predictor`.
    """

    needs: frozenset[str] = frozenset()
    remasks: bool = False
    clocked: bool = True
    faithful: bool = False
    tau: float = 0.0

    @abstractmethod
    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """A number a row, float64 [R], on the host as all that it is told: higher ones are written first.

        ``stats``: of the clean law before shapers, which would favour what they cut.
        """

    def count(self, score_BL: Tensor, context: OrderContext) -> Tensor:
        """How many positions to write now, int64 [B]; ``score_BL`` is −inf where there is no row."""
        return context.due_B

    def steps(self, steps: int, length: int) -> int:
        """How many laws a walk needs, given the sampler's ``steps``."""
        return steps


class Lens(Part, ABC, kind="lens"):
    """Another way to look through the same network: a view made of a view, for one canvas.

    ``graphs``: "mask" where it needs a masked graph. ``needs``: the view it is made of; one that needs more than a
    score stands before other lenses, whose views offer no more.
    """

    graphs: ClassVar[Literal["any", "mask"]] = "any"
    needs: ClassVar[type[View]] = ScoreView

    @abstractmethod
    def __call__(self, view: ScoreView, canvas: Canvas) -> ScoreView:
        """The view to sample through; its calls are counted by ``view``."""


class Times(Part, ABC, kind="times"):
    """A grid of times for the reverse walk."""

    @abstractmethod
    def grid(self, steps: int, noise: Noise) -> Tensor:
        """``steps`` + 1 times from 1 down to the last, float64, strictly decreasing, all in (0, 1]."""


class Predictor(Part, ABC, kind="predictor"):
    """A rule for one step from time t to s < t (a corrector is one at t = s).

    ``stages``: laws per step, a draw between them. ``blind``: on a blind graph, who leaves is known without
    the network. ``shapes``: "clean" where shapers act on the law of the clean token on every graph, "mask"
    where only on masked graphs (there the landing law *is* the clean law). ``graphs``: "any" or "mask" (needs
    a masked graph). ``corrects``: does something at t = s, so that it may stand among the correctors.
    ``faithful``: with the exact score and many steps it writes by the text's own law; False for rules that prefer
    some texts on purpose (by confidence, say).
    """

    stages: int = 1
    blind: ClassVar[bool] = False
    shapes: ClassVar[Literal["clean", "mask", "none"]] = "none"
    graphs: ClassVar[Literal["any", "mask"]] = "any"
    corrects: ClassVar[bool] = False
    faithful: bool = True
    paced: bool = True
    sight: ClassVar[Literal["all", "others"]] = "all"
    begins: ClassVar[tuple[str, ...]] = ()

    def steps(self, steps: int, length: int) -> int:
        """How many steps a walk over ``length`` positions takes, given the sampler's ``steps``."""
        return steps

    def clock(self, t: Tensor, view: ScoreView) -> Tensor:
        """The schedule's time whose noise a text has when the walk is at ``t`` (any shape, float64): another one for
        rules with a pace of their own. What corrects beside this rule hears it."""
        return t

    def sigma(self, stage: int, state: State, view: ScoreView) -> Tensor:
        """σ [B] at which the network is asked for this stage: that of ``time``."""
        return view.sigma(self.time(stage, state.t_B, state.s_B))

    def time(self, stage: int, t_B: Tensor, s_B: Tensor) -> Tensor:
        """The time at which the network is asked for this stage."""
        return t_B

    @abstractmethod
    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """The law of this stage: pure, draws nothing. ``looks[stage]`` is at ``state`` and ``time(stage)``.

        ``state.t_B`` → ``state.s_B`` is the step. Only rows of ``state.free_BL`` may be proposed.
        """


class Sampler(Part, ABC, kind="sampler", supplied=()):
    """From a view and a canvas to samples.

    ``needs``: the kind of view. ``conditions``: where fixed tokens may stand. ``any_length``: writes texts that are
    longer than those the network was trained on.
    """

    any_length: ClassVar[bool] = False

    needs: ClassVar[type[View]]
    conditions: ClassVar[Conditions]

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A process that does not offer the view this sampler needs; one around another sampler speaks for both."""
        yield from super().misfits(node, root)
        process = root.find("process")
        if process is not None and root.find("sampler") in (None, node):
            part: Any = process.part
            if not issubclass(offers := part.offers, cls.needs):
                known: Mapping[str, Any] = cls.registered
                fitting = [name for name in sorted(known) if issubclass(offers, known[name].needs)]
                yield Problem(
                    node.path,
                    f"sampler {cls.type_name!r} needs a {cls.needs.__name__}, and process {part.type_name!r} offers "
                    f"a {offers.__name__}. What would fit: {', '.join(fitting) or 'no sampler at hand'}.",
                )

    @abstractmethod
    def draw(self, view: View, canvas: Canvas, rng: Rng, progress: Callable[[float], None] | None = None) -> Samples:
        """Fill the free positions of ``canvas``. ``progress`` hears the share done, in [0, 1].

        Raises:
            WorkbenchError: the canvas fixes positions this sampler cannot condition on.
        """
