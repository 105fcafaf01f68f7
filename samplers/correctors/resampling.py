"""Correctors that draw some written tokens anew from their law given the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from samplers.base import Choice, Law, Look, Predictor, ScoreView, Shape, ShapeContext, State, rows_map
from samplers.predictors.laws import conditional, live_rows, settled_rows, shaped_clean
from workbench.core.bounds import Count, NonNegative, Positive


@Predictor.register("gibbs")
class Gibbs(Predictor):
    """Gibbs sampling: ``k`` written positions by lot, each drawn anew from its law given all others. One network call.

    With the exact score ``k`` = 1 leaves the noised law exactly as it is, on any graph; more at a time are drawn
    independently. On masked graphs the chosen positions are masked first and then written, so that the network does
    not see what it is asked about; shapers act on that law, elsewhere they do not fit.

    Settings:
        k: positions a turn
    """

    stages = 2
    shapes = "mask"
    corrects = True

    def __init__(self, k: Count = 1) -> None:
        """Keep the number."""
        self.k = k

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        if not view.graph.blind:
            rows_R = live_rows(state)[: 0 if stage else None]
            zeros_R = torch.zeros(rows_R.numel(), dtype=torch.float64)
            return redrawn(rows_R, zeros_R, self.k, 0.0, looks[0], state, view, None)
        if stage == 0:
            rows_R = settled_rows(state)
            zeros_R = torch.zeros(rows_R.numel(), dtype=torch.float64)
            choice = Choice(zeros_R, torch.full((len(state.x_BL),), self.k))
            to_R = torch.full_like(rows_R, view.graph.vocab)
            return Law(rows_R, zeros_R + 1, torch.Tensor.double, to_R=to_R, blind=True, choice=choice)
        rows_R = torch.nonzero((state.live_BL & (looks[0].x_BL.cpu() != view.graph.vocab)).reshape(-1)).squeeze(-1)

        def target(subset: Tensor) -> Tensor:
            return shaped_clean(looks[1], rows_R[subset].to(state.x_BL.device, non_blocking=True), state, shape)

        return Law(rows_R, torch.ones(rows_R.numel(), dtype=torch.float64), target, blind=True)


@Predictor.register("informed")
class Informed(Predictor):
    """The informed corrector: the tokens that fit worst are drawn anew (Zhao et al. 2024, alg. 1). One network call.

    c = log p(x | the others) − the largest log p of another token; ``k`` written positions, each ∝ exp(−c/τ) and
    without replacement, drawn anew together. On masked graphs it takes a network whose output at a position does not
    see that position (sight "others"). Unfaithful: what is chosen depends on the token that is replaced.

    Settings:
        k: positions a turn
        tau: temperature of the choice; 0 takes the worst
    """

    shapes = "mask"
    corrects = True
    faithful = False
    sight = "others"

    def __init__(self, k: Count = 4, tau: NonNegative = 1.0) -> None:
        """Keep the settings."""
        self.k, self.tau = k, tau

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        rows_R = settled_rows(state) if view.graph.blind else live_rows(state)
        x_R = state.x_BL.reshape(-1)

        def misfit(piece_R: Tensor) -> Tensor:
            log_p_RV = conditional(looks[stage], piece_R, view)
            own_R1 = x_R[piece_R].unsqueeze(-1)
            best_R = log_p_RV.scatter(-1, own_R1, -torch.inf).amax(-1)
            return (best_R - log_p_RV.gather(-1, own_R1).squeeze(-1)).double()

        if rows_R.numel() == 0:
            score_R = torch.zeros(0, dtype=torch.float64)
        else:
            score_R = rows_map(misfit, rows_R.to(x_R.device, non_blocking=True), view.chunk).cpu()
        return redrawn(rows_R, score_R, self.k, self.tau, looks[stage], state, view, shape)


@Predictor.register("self_correction")
class SelfCorrection(Predictor):
    """GIDD's self-correction: the network's surest objections replace tokens (von Rütte et al. 2025, §5.3). One call.

    A token is drawn for every position from its law given the others, tempered; of those that differ from what stands
    there the ``k`` of the highest probability replace it. The law is that of clean tokens, never of a mask. For
    networks trained on noise that is not only masks; on masked graphs it needs the sight "others", as `informed`.
    Unfaithful.

    Settings:
        k: positions a turn
        tau: temperature of the law that objections are drawn from
    """

    stages = 2
    corrects = True
    faithful = False
    sight = "others"

    def __init__(self, k: Count = 1, tau: Positive = 0.1) -> None:
        """Keep the settings."""
        self.k, self.tau = k, tau

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        if stage == 1:
            before_BL, here_BL = looks[0].x_BL.cpu(), state.x_BL.cpu()
            changed_BL = before_BL != here_BL
            rows_R = torch.nonzero(changed_BL.reshape(-1)).squeeze(-1)

            def objection(piece_R: Tensor) -> Tensor:
                log_p_RV = (tokens(looks[0], piece_R, view) / self.tau).log_softmax(-1)
                return log_p_RV.gather(-1, state.x_BL.reshape(-1)[piece_R].unsqueeze(-1)).squeeze(-1).double()

            device_R = rows_R.to(state.x_BL.device, non_blocking=True)
            surest_R = rows_map(objection, device_R, view.chunk).cpu() if rows_R.numel() else rows_R.double()
            choice = Choice(-surest_R, (changed_BL.sum(-1) - self.k).clamp_min(0))
            ones_R = torch.ones(rows_R.numel(), dtype=torch.float64)
            to_R = before_BL.reshape(-1)[rows_R]
            return Law(rows_R, ones_R, torch.Tensor.double, to_R=to_R, blind=True, choice=choice)
        rows_R = settled_rows(state) if view.graph.blind else live_rows(state)
        if view.graph.mask:  # what is masked is the predictor's to write
            rows_R = rows_R[(state.x_BL.reshape(-1)[rows_R.to(state.x_BL.device)] < view.vocab).cpu()]
        return redrawn(rows_R, None, self.k, 0.0, looks[0], state, view, None, self.tau, tokens)


def tokens(look: Look, rows_R: Tensor, view: ScoreView) -> Tensor:
    """log law of the clean token at written rows given the other positions, [R, V]."""
    return look.others(rows_R) if view.graph.blind else look.clean(rows_R)


def redrawn(
    rows_R: Tensor,
    score_R: Tensor | None,
    k: int,
    tau: float,
    look: Look,
    state: State,
    view: ScoreView,
    shape: Shape | None,
    temper: float = 1.0,
    law: Callable[[Look, Tensor, ScoreView], Tensor] = conditional,
) -> Law:
    """A law that draws rows anew from the law given the others, ``k`` of each text by ``score_R`` (None: all).

    P(leave) is that of another token; it is summed for chosen rows only, and by chunks.
    """
    flat = state.x_BL.reshape(-1)

    def law_of(subset: Tensor) -> tuple[Tensor, Tensor]:
        at_R = rows_R[subset].to(flat.device, non_blocking=True)
        log_p_RV = law(look, at_R, view)
        if shape is not None:
            log_p_RV = shape(log_p_RV, ShapeContext(state.x_BL, at_R, ~state.live_BL, state.t_B))
        return (log_p_RV / temper).log_softmax(-1), flat[at_R].unsqueeze(-1)

    def exact(subset: Tensor) -> Tensor:
        log_p_RV, own_R1 = law_of(subset)
        return log_p_RV.scatter(-1, own_R1, -torch.inf).exp().sum(-1, dtype=torch.float64).clamp(max=1.0)

    def target(subset: Tensor) -> Tensor:
        log_p_RV, own_R1 = law_of(subset)
        return log_p_RV.scatter(-1, own_R1, -torch.inf)

    choice = None if score_R is None else Choice(score_R, torch.full((len(state.x_BL),), k), tau)
    ones_R = torch.ones(rows_R.numel(), dtype=torch.float64)
    return Law(rows_R, ones_R, target, blind=True, lands_live=not view.graph.blind, choice=choice, exact=exact)
