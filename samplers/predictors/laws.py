"""Laws out of what predictors compute: by the clean law or a leap on blind graphs, by masses elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.base import Law, Look, ScoreView, Shape, ShapeContext, State, rows_map


@dataclass(frozen=True)
class Rows:
    """Rows of a step and what a reverse law needs of each, all [R]: flat position, state, σ before and after, and
    ``pace_R`` = (t − s) · dσ/dt at t, the published step of a rate (all floats float64)."""

    rows_R: Tensor
    x_R: Tensor
    sigma_t_R: Tensor
    sigma_s_R: Tensor
    pace_R: Tensor

    def __getitem__(self, subset: Tensor) -> Rows:
        """The rows at the indices ``subset``."""
        return Rows(*(value[subset] for value in vars(self).values()))

    def sigmas(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(σ_t, σ_s) in the type of the scores: float64 factors would make all of [R, S] float64."""
        return self.sigma_t_R.to(dtype), self.sigma_s_R.to(dtype)


def live_rows(state: State) -> Tensor:
    """Flat positions that a reverse step may move, int64 on the host."""
    return torch.nonzero(state.live_BL.reshape(-1)).squeeze(-1)


def settled_rows(state: State) -> Tensor:
    """Flat positions that are free and written, int64 on the host."""
    return torch.nonzero((state.free_BL & ~state.live_BL).reshape(-1)).squeeze(-1)


def conditional(look: Look, rows_R: Tensor, view: ScoreView) -> Tensor:
    """log law of the state at *settled* rows given the other positions, at the look's noise, [R, V].

    Without a mask the score, normalised, is that law; on masked graphs the network must not see the position.
    """
    if view.graph.blind:
        return look.others(rows_R)
    return look.log_score(rows_R).log_softmax(-1)


def host_sigmas(rows_R: Tensor, state: State, view: ScoreView) -> tuple[Tensor, Tensor]:
    """(σ_t, σ_s) of each row, float64 on the host."""
    item_R = rows_R // state.free_BL.shape[1]
    return view.sigma(state.t_B)[item_R], view.sigma(state.s_B)[item_R]


def device_rows(rows_R: Tensor, state: State, view: ScoreView) -> Rows:
    """The same rows with their terms on the device."""
    item_R = rows_R // state.free_BL.shape[1]
    sigma_t_R, sigma_s_R = host_sigmas(rows_R, state, view)
    pace_R = ((state.t_B - state.s_B) * view.noise.rate(state.t_B))[item_R]
    rows_R = rows_R.to(state.x_BL.device, non_blocking=True)
    terms = (value.to(rows_R.device, non_blocking=True) for value in (sigma_t_R, sigma_s_R, pace_R))
    return Rows(rows_R, state.x_BL.reshape(-1)[rows_R], *terms)


def shaped_clean(look: Look, rows_R: Tensor, state: State, shape: Shape | None) -> Tensor:
    """log law of the clean token at ``rows_R`` (on the device), shaped, [R, V]."""
    log_p_RV = look.clean(rows_R)
    if shape is None:
        return log_p_RV
    return shape(log_p_RV, ShapeContext(state.x_BL, rows_R, ~state.live_BL, state.t_B))


def by_clean(
    rows_R: Tensor, leave_R: Tensor, look: Look, state: State, shape: Shape | None, blind: bool, clipped: Tensor | float
) -> Law:
    """A law on a blind graph: a row that leaves the mask lands by the (shaped) clean law and stays there."""

    def target(subset: Tensor) -> Tensor:
        return shaped_clean(look, rows_R[subset].to(state.x_BL.device, non_blocking=True), state, shape)

    return Law(rows_R, leave_R, target, blind=blind, clipped=clipped, expect=lambda subset: look.expect(rows_R[subset]))


def by_leap(
    terms: Sequence[tuple[Look, Tensor]],
    span_B: Tensor,
    rows_R: Tensor,
    state: State,
    view: ScoreView,
    shape: Shape | None,
) -> Law:
    """A τ-leap of masked rows over ``span_B`` (float64, host) by the rates μ(y) = (Σ weight · score(y))₊.

    ``terms``: looks and their weights, float64 [R] on the host. A row leaves with probability 1 − exp(−span · Σμ) and
    lands by μ, shaped. ``clipped``: what the clamp adds to span · Σμ, summed over rows.
    """
    if rows_R.numel() == 0:  # nothing left to write: the network is not asked
        return Law(rows_R, torch.zeros(0, dtype=torch.float64), torch.Tensor.double, blind=True)
    device = state.x_BL.device
    at_R = rows_R.to(device, non_blocking=True)
    span_R = span_B[rows_R // state.x_BL.shape[1]].to(device, non_blocking=True)
    placed = [(look, weight_R.to(device, non_blocking=True)) for look, weight_R in terms]

    def signed(subset: Tensor) -> Tensor:
        total_RV: Tensor | None = None
        for look, weight_R in placed:
            score_RV = look.log_score(at_R[subset])[:, : view.graph.vocab].exp_()
            score_RV.mul_(weight_R[subset].to(score_RV.dtype).unsqueeze(-1))
            total_RV = score_RV if total_RV is None else total_RV.add_(score_RV)
        assert total_RV is not None
        return total_RV

    def sums(subset: Tensor) -> Tensor:
        mu_RV = signed(subset)
        kept_R = mu_RV.clamp_min(0).sum(-1, dtype=torch.float64)
        return torch.stack([kept_R, kept_R - mu_RV.sum(-1, dtype=torch.float64)], -1) * span_R[subset].unsqueeze(-1)

    def target(subset: Tensor) -> Tensor:
        subset = subset.to(device, non_blocking=True)
        log_RV = signed(subset).clamp_min_(0).log_()
        if shape is None:
            return log_RV
        return shape(log_RV.log_softmax(-1), ShapeContext(state.x_BL, at_R[subset], ~state.live_BL, state.t_B))

    sums_R2 = rows_map(sums, torch.arange(rows_R.numel(), device=device), view.chunk)
    return Law(rows_R, -torch.expm1(-sums_R2[:, 0]), target, clipped=sums_R2[:, 1].sum())


def by_masses(masses: Callable[[Rows], Tensor], rows_R: Tensor, state: State, view: ScoreView) -> Law:
    """A law by ``masses(rows)`` [r, S]: P(row goes to y); the own entry is not read, negatives count as 0.

    P(leave) is the sum of the off-diagonal masses in float64, at most 1. Two passes, by chunks: sums on all
    live rows, then the landing law on the rows that move.
    """
    if rows_R.numel() == 0:  # every position is fixed: the network is not asked
        return Law(rows_R, torch.zeros(0, dtype=torch.float64), torch.Tensor.double, blind=True)
    terms = device_rows(rows_R, state, view)
    index_R = torch.arange(rows_R.numel(), device=terms.rows_R.device)

    def off_diagonal(rows: Rows) -> Tensor:
        return masses(rows).scatter_(-1, rows.x_R.unsqueeze(-1), 0.0)

    def sums(piece: Tensor) -> Tensor:
        mass_RS = off_diagonal(terms[piece])
        kept_R = mass_RS.clamp_min(0).sum(-1, dtype=torch.float64)
        return torch.stack([kept_R, kept_R - mass_RS.sum(-1, dtype=torch.float64)], -1)

    def target(subset: Tensor) -> Tensor:
        return off_diagonal(terms[subset.to(index_R.device, non_blocking=True)]).clamp_min_(0).log_()

    sums_R2 = rows_map(sums, index_R, view.chunk)
    leave_R = sums_R2[:, 0].clamp(max=1.0)
    clipped = (sums_R2[:, 0] - leave_R + sums_R2[:, 1]).sum()
    return Law(rows_R, leave_R, target, lands_live=True, clipped=clipped)
