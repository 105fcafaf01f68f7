"""The exact law of a sampler's result, by driving the shipping loop over every outcome instead of drawing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from graphs.base import Graph
from samplers.base import BlockView, Canvas, Law, ScoreView, State
from samplers.blockwise import Blockwise
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
    view = sampler.through(view, canvas)
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


@torch.no_grad()
def blocks_law(sampler: Blockwise, view: BlockView, blocks: int) -> Tensor:
    """The law over V^(blocks · size) of what ``sampler``, around a `Reverse`, writes: Π of its blocks' own laws.

    Costs an enumeration for each text of all blocks but the last.
    """

    def after(context: Any, left: int) -> Tensor:
        inner = cast("Reverse", sampler.inner)
        law = law_of(inner, view.block(context))[(slice(view.vocab),) * view.size]
        if left == 1:
            return law
        texts = [
            law[tuple(x_S)] * after(view.commit(x_S[None], context), left - 1)
            for x_S in every_state(view.vocab, view.size)
        ]
        return torch.stack(texts).reshape(*law.shape, *texts[0].shape)

    return after(view.start(1, sampler.cache), blocks)


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
            joint_BN = weight_B[:, None] * joint(state, law, graph)
            if state.looks or state.memory or law.memory or law.notes:
                parent_M, index_M = torch.nonzero(joint_BN, as_tuple=True)
                weight_B = joint_BN[parent_M, index_M]
            else:
                total_N = joint_BN.sum(0)
                index_M = torch.nonzero(total_N).squeeze(-1)
                parent_M, weight_B = torch.zeros_like(index_M), total_N[index_M]
            after = replace(state, step=state.step + 1, memory={**state.memory, **law.memory}).select(parent_M)
            x_BL = all_NL[index_M]
            if law.notes:
                after = replace(after, memory={**after.memory, law.notes: _noted(state, law, parent_M, x_BL)})
            state, law = walk.send(replace(after, x_BL=x_BL, live_BL=after.free_BL & graph.live(x_BL)))
    except StopIteration as end:
        x_BL = end.value.x_BL
    place_B = (x_BL * graph.states ** torch.arange(length - 1, -1, -1)).sum(-1)
    law_N = torch.zeros(graph.states**length, dtype=torch.float64).index_add_(0, place_B, weight_B)
    return law_N.reshape((graph.states,) * length)


def joint(state: State, law: Law, graph: Graph) -> Tensor:
    """P(item b is in state n of S^L after the law), [B, S^L]: over all sets of rows that may be chosen together."""
    moved_BLS = outcomes(state, law, graph)
    if law.choice is None:
        return product(moved_BLS)
    batch, length = state.x_BL.shape
    here_BLS = torch.nn.functional.one_hot(state.x_BL, graph.states).double()
    out_BN = torch.zeros(batch, graph.states**length, dtype=torch.float64)
    for item in range(batch):
        mine_K = torch.nonzero(law.rows_R // length == item).squeeze(-1)
        at_K = (law.rows_R[mine_K] % length).tolist()
        found = subsets(law.choice.score_R[mine_K], int(law.choice.count_B[item]), law.choice.tau)
        for chosen, weight in found.items():
            p_LS = here_BLS[item].clone()
            places = [at_K[index] for index in chosen]
            p_LS[places] = moved_BLS[item, places]
            out_BN[item] += weight * product(p_LS[None])[0]
    return out_BN


def subsets(score_K: Tensor, count: int, tau: float) -> dict[frozenset[int], float]:
    """P(exactly these indices are chosen), by taking one after the other (Plackett–Luce; ties by lot at τ = 0)."""
    found: dict[frozenset[int], float] = {frozenset(): 1.0}
    for _ in range(count):
        grown: dict[frozenset[int], float] = {}
        for taken, weight in found.items():
            left_K = score_K.double().clone()
            left_K[list(taken)] = -torch.inf
            if bool(left_K.isneginf().all()):
                grown[taken] = grown.get(taken, 0.0) + weight
                continue
            p_K = (left_K == left_K.max()).double() if tau == 0 else ((left_K - left_K.max()) / tau).exp()
            for index, p in enumerate((p_K / p_K.sum()).tolist()):
                if p > 0:
                    both = taken | {index}
                    grown[both] = grown.get(both, 0.0) + weight * p
        found = grown
    return found


def _noted(state: State, law: Law, parent_M: Tensor, x_BL: Tensor) -> Tensor:
    """The memory of drawn probabilities after a law, for every outcome ``x_BL`` of items ``parent_M``."""
    before_BL = state.memory.get(law.notes, torch.zeros(state.x_BL.shape, dtype=torch.float64))
    log_p_BLN = torch.zeros(*state.x_BL.shape, int(x_BL.max()) + 1, dtype=torch.float64)
    known_R = torch.full_like(law.rows_R, -1) if law.to_R is None else law.to_R
    asked_R = torch.nonzero((known_R < 0) & (law.leave_R > 0)).squeeze(-1)
    if asked_R.numel():
        p_RN = law.target(asked_R).double().log_softmax(-1)
        wide = min(p_RN.shape[-1], log_p_BLN.shape[-1])
        log_p_BLN.view(-1, log_p_BLN.shape[-1])[law.rows_R[asked_R], :wide] = p_RN[:, :wide]
    drawn_ML = log_p_BLN[parent_M].gather(-1, x_BL.unsqueeze(-1)).squeeze(-1)
    return torch.where(x_BL != state.x_BL[parent_M], drawn_ML, before_BL[parent_M])


def outcomes(state: State, law: Law, graph: Graph) -> Tensor:
    """P(position l of item b holds y after the law, if it may move), [B, L, S] float64."""
    batch, length = state.x_BL.shape
    here_RS = torch.nn.functional.one_hot(state.x_BL.reshape(-1), graph.states).double()
    rows_R, leave_R1 = law.rows_R, law.leave_R.double().unsqueeze(-1)
    if law.exact is not None and rows_R.numel():
        leave_R1 = torch.minimum(leave_R1, law.exact(torch.arange(rows_R.numel())).double().unsqueeze(-1))
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
