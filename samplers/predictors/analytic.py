"""SEDD's analytic step (Tweedie τ-leaping)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State, rows_map
from samplers.predictors.laws import Rows, by_clean, by_masses, device_rows, host_sigmas, live_rows
from workbench.core.errors import Problem

if TYPE_CHECKING:
    from workbench.core.spec import Node

NOTES = "analytic/sums"
"""Where the memory of a walk keeps what bounds the sums. Notes are written in place as rows are asked: they are true of
the network whatever the text, so that they change what a step costs and never what it draws."""


@Predictor.register("analytic")
class Analytic(Predictor):
    """SEDD's analytic predictor: staggered score times forward kernel (Lou, Meng & Ermon 2024, eq. 19).

    P(x_s = y) = push(score, σ_t → σ_s)(y) · P(y at σ_s → x at σ_t): Bayes' law where the score is exact. With
    a network's it need not sum to one: the off-diagonal mass is who leaves, negatives count as 0, a sum above
    1 as 1 (``clipped`` says how much). On a blind graph it reads P(y) = (e^{σ_t − σ_s} − 1) · s_y. Shapers
    act there on the landing law and leave the pace alone; on other graphs use ``normalised`` with shapers.

    Only rows whose number falls below a bound of P(leave) are summed over the vocabulary, to be accepted with their
    own probability: the same tokens by the same numbers. A network bounds each row's sum by the last one it took there
    and how far its features have moved since (`workbench.processes.totals`); that is always true. With ``thin`` (blind
    graphs) the bound is a guess that needs no network, ``thin`` times a calibrated one's P(leave): steps that propose
    nothing ask nothing, and where a row's sum is beyond it the law is the bounded one (``clipped`` counts that mass).

    Settings:
        thin: how far above the calibrated sum a row's may lie; left out, bounds are never exceeded
    """

    shapes = "mask"

    def __init__(self, thin: Annotated[float, Ge(1)] | None = None) -> None:
        """Keep the bound."""
        self.thin = thin

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Thinning on a graph where no pace is known beforehand."""
        yield from super().misfits(node, root)
        graph: Any = root.under("process", "graph")
        if node.settings["thin"] is not None and graph is not None and not graph.part.blind:
            yield Problem(
                f"{node.path}.thin",
                f"thins where who leaves is known without the network, and graph {graph.part.type_name!r} is not such; "
                "leave it out",
            )

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        look, rows_R = looks[stage], live_rows(state)
        if view.graph.blind and self.thin is not None:
            return self._thinned(self.thin, rows_R, look, state, view, shape)
        if view.graph.blind and rows_R.numel() and look.bounds_total():
            return self._bounded(rows_R, look, state, view, shape)
        if view.graph.blind:
            rows = device_rows(rows_R, state, view)
            factor_R = torch.expm1(rows.sigma_t_R - rows.sigma_s_R)
            mass_R = factor_R * score_sum(look, rows, view)
            leave_R = mass_R.clamp(max=1.0)
            return by_clean(rows_R, leave_R, look, state, shape, blind=False, clipped=(mass_R - leave_R).sum())

        def masses(rows: Rows) -> Tensor:
            log_score_RS = look.log_score(rows.rows_R)
            return view.graph.reverse_from_score(log_score_RS, rows.x_R, *rows.sigmas(log_score_RS.dtype))

        return by_masses(masses, rows_R, state, view)

    def _bounded(self, rows_R: Tensor, look: Look, state: State, view: ScoreView, shape: Shape | None) -> Law:
        """The same law with a true bound in front of it."""
        rows, vocab = device_rows(rows_R, state, view), view.graph.vocab
        factor_R = torch.expm1(rows.sigma_t_R - rows.sigma_s_R)
        log_R, notes_BLK = look.log_total_bound(rows.rows_R, vocab, state.memory.get(NOTES))
        # inf − inf of a network that has diverged: such rows are asked, and say so
        bound_R = (factor_R * log_R.exp()).nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)
        beyond = torch.zeros((), dtype=torch.float64, device=state.x_BL.device)  # rows below their bound add nothing

        def exact(subset: Tensor) -> Tensor:
            subset = subset.to(rows.rows_R.device, non_blocking=True)
            mass_R = factor_R[subset] * look.log_total_noted(rows.rows_R[subset], vocab, notes_BLK).exp()
            leave_R = mass_R.clamp(max=1.0)
            beyond.add_((mass_R - leave_R).sum())
            return leave_R

        law = by_clean(rows_R, bound_R, look, state, shape, blind=False, clipped=beyond)
        return replace(law, exact=exact, memory={NOTES: notes_BLK})

    def _thinned(
        self, thin: float, rows_R: Tensor, look: Look, state: State, view: ScoreView, shape: Shape | None
    ) -> Law:
        """The same law with a bound in front of it."""
        bound_R = (thin * view.graph.leave(*host_sigmas(rows_R, state, view))).clamp(max=1.0)
        beyond = torch.zeros((), dtype=torch.float64, device=state.x_BL.device)  # grows as rows are asked

        def exact(subset: Tensor) -> Tensor:
            rows = device_rows(rows_R[subset], state, view)
            mass_R = torch.expm1(rows.sigma_t_R - rows.sigma_s_R) * score_sum(look, rows, view)
            leave_R = torch.minimum(mass_R, bound_R[subset].to(mass_R.device))
            beyond.add_((mass_R - leave_R).sum())
            return leave_R

        law = by_clean(rows_R, bound_R, look, state, shape, blind=True, clipped=beyond)
        return replace(law, exact=exact)


def score_sum(look: Look, rows: Rows, view: ScoreView) -> Tensor:
    """Σ over tokens of the score, [R] float64, by chunks: the pace of a raw score on a blind graph."""
    if rows.rows_R.numel() == 0:  # nothing left to move: the network is not asked
        return torch.zeros_like(rows.pace_R)
    return rows_map(lambda piece: look.log_total(piece, view.graph.vocab), rows.rows_R, view.chunk).exp()
