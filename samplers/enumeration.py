"""The exact law of a sampler's result, by driving the shipping loop over every outcome instead of drawing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graphs.base import Graph
from samplers.base import Canvas, Law, ScoreView, State
from samplers.draw import Walk
from samplers.reverse import Reverse, start

END = 500.0
"""A noise at which any graph has forgotten where it started, to the last bit of float64."""


@torch.no_grad()
def law_of(sampler: Reverse, view: ScoreView, canvas: Canvas | None = None) -> Tensor:
    """The law over S^L, one axis a position, float64, of what ``sampler`` writes on a canvas of one row.

    Costs S^L states a step: for small worlds, L ≤ 3 or so.
    """
    canvas = canvas or Canvas.blank(1, view.length)
    length = canvas.x_BL.shape[1]
    end_S = end_law(view.graph)
    first_LS = torch.stack(
        [
            torch.eye(view.graph.states, dtype=torch.float64)[canvas.x_BL[0, at]] if canvas.fixed_BL[0, at] else end_S
            for at in range(length)
        ]
    )
    weight_N = product(first_LS[None])[0]
    x_NL = every_state(view.graph.states, length)
    begun = weight_N > 0
    many = Canvas(*(value.expand(int(begun.sum()), *value.shape[1:]) for value in vars(canvas).values()))
    state = start(view, many, x_NL[begun])
    return enumerate_walk(sampler.walk(view, state), weight_N[begun], view.graph)


def enumerate_walk(walk: Walk, weight_B: Tensor, graph: Graph) -> Tensor:
    """Drive ``walk`` with every outcome of every law; ``weight_B`` weighs the items it starts with, on one canvas.

    Items that reach the same tokens are merged, unless the walk still holds something of their past (the
    looks of earlier stages, a predictor's memory).
    """
    state, law = next(walk)
    length = state.x_BL.shape[1]
    all_NL = every_state(graph.states, length)
    try:
        while True:
            joint_BN = weight_B[:, None] * product(outcomes(state, law, graph))
            if state.looks or state.memory or law.memory:
                parent_M, index_M = torch.nonzero(joint_BN, as_tuple=True)
                weight_B = joint_BN[parent_M, index_M]
            else:
                total_N = joint_BN.sum(0)
                index_M = torch.nonzero(total_N).squeeze(-1)
                parent_M, weight_B = torch.zeros_like(index_M), total_N[index_M]
            after = replace(state, step=state.step + 1, memory={**state.memory, **law.memory}).select(parent_M)
            x_BL = all_NL[index_M]
            state, law = walk.send(replace(after, x_BL=x_BL, live_BL=after.free_BL & graph.live(x_BL)))
    except StopIteration as end:
        x_BL = end.value.x_BL
    place_B = (x_BL * graph.states ** torch.arange(length - 1, -1, -1)).sum(-1)
    law_N = torch.zeros(graph.states**length, dtype=torch.float64).index_add_(0, place_B, weight_B)
    return law_N.reshape((graph.states,) * length)


def outcomes(state: State, law: Law, graph: Graph) -> Tensor:
    """P(position l of item b holds y after the law), [B, L, S] float64."""
    batch, length = state.x_BL.shape
    here_RS = torch.nn.functional.one_hot(state.x_BL.reshape(-1), graph.states).double()
    rows_R, leave_R1 = law.rows_R, law.leave_R.double().unsqueeze(-1)
    if rows_R.numel():
        moved_RS = torch.zeros(rows_R.numel(), graph.states, dtype=torch.float64)
        known_R = torch.full_like(rows_R, -1) if law.to_R is None else law.to_R
        asked_R = torch.nonzero((known_R < 0) & (leave_R1[:, 0] > 0)).squeeze(-1)
        told_R = torch.nonzero(known_R >= 0).squeeze(-1)
        moved_RS[told_R, known_R[told_R]] = 1.0
        if asked_R.numel():
            p_RN = law.target(asked_R).double().exp()
            moved_RS[asked_R, : p_RN.shape[-1]] = p_RN / p_RN.sum(-1, keepdim=True)
        here_RS[rows_R] = (1 - leave_R1) * here_RS[rows_R] + leave_R1 * moved_RS
    return here_RS.reshape(batch, length, graph.states)


def product(p_BLS: Tensor) -> Tensor:
    """Independent positions' joint law, [B, S^L], the last position fastest."""
    joint_BN = p_BLS[:, 0]
    for at in range(1, p_BLS.shape[1]):
        joint_BN = (joint_BN[:, :, None] * p_BLS[:, at, None, :]).flatten(1)
    return joint_BN


def every_state(states: int, length: int) -> Tensor:
    """All of S^L in the order of `product`, [S^L, L] int64."""
    return torch.cartesian_prod(*[torch.arange(states)] * length).reshape(-1, length)


def end_law(graph: Graph) -> Tensor:
    """The law noise ends in, [S] float64: a column of the kernel at huge noise (below 1e-15 is none)."""
    states_S = torch.arange(graph.states)
    to_S = torch.full((graph.states,), END, dtype=torch.float64)
    law_S = graph.kernel_into(states_S, torch.zeros_like(to_S), to_S)[:, 0]
    law_S = torch.where(law_S > 1e-15, law_S, 0.0)
    return law_S / law_S.sum()
