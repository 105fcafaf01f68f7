"""The only place that draws: who leaves, then where to.

Both by one float64 number a row, keyed by (stream, step, sequence) and indexed by position, so that a
sequence's tokens depend neither on its batch nor on which other rows are live. Only rows that move touch the
vocabulary axis. Gumbel noise in float32, as published samplers draw it, truncates rare tokens and cools the
samples with the number of steps (Zheng et al. 2024); an inverse CDF does not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphs.base import Graph
from samplers.base import Choice, Law, ScoreView, State
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng

Walk = Generator[tuple[State, Law], State, State]
"""A reverse walk: yields where it stands and the law proposed there, is sent the next state, returns the last."""
BLOCK = 256
"""States a block of the two-level inverse CDF: one pass in the law's precision, then float64 on 1/256."""


def land(log_p_RN: Tensor, u_R: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one state a row by inverse CDF: ``log_p_RN`` unnormalised log law, ``u_R`` float64 in [0, 1).

    Returns the states [R] (int64) and which rows had a law to draw from [R] (False: all −inf, or not a
    number). The exponential and the sums over ``BLOCK`` states run in the law's precision (their error is
    *relative*: rare states keep their share); block masses, their CDF and the CDF inside the block drawn run
    in float64. A state of zero probability is never drawn, whatever the order in which the device adds.
    """
    rows, states = log_p_RN.shape
    blocks = -(-states // BLOCK)
    p_RN = log_p_RN.new_zeros(rows, blocks * BLOCK)
    torch.exp(log_p_RN, out=p_RN[:, :states])
    p_RKN = p_RN.view(rows, blocks, BLOCK)
    block_R, at_R, mass_R, total_R = _invert(p_RKN.sum(-1).double(), u_R)
    # the number left over inside the block, in [0, 1): what lies below the block is taken off, the rest rescaled
    v_R = (at_R / mass_R).clamp(0, 1 - 2.0**-53)
    inside_RN = p_RKN[torch.arange(rows, device=p_RN.device), block_R].double()
    inside_R, _, _, _ = _invert(inside_RN, v_R)
    # padding can only be reached where there was no law to draw from
    state_R = (block_R * BLOCK + inside_R).clamp_max(states - 1)
    return state_R, torch.isfinite(total_R) & (total_R > 0)


def _invert(p_RN: Tensor, u_R: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First n with CDF(n) > u · total: (n, u · total − CDF(n − 1), p(n), total), all [R].

    The CDF is made monotone, and only states with mass may raise it, so that rounding cannot land on an empty
    one; u ≤ 1 − 2^-53 keeps u · total below the total in float64.
    """
    cdf_RN = torch.where(p_RN > 0, p_RN.cumsum(-1), 0.0).cummax(-1).values
    total_R = cdf_RN[:, -1]
    aim_R1 = (u_R * total_R).unsqueeze(-1)
    n_R1 = torch.searchsorted(cdf_RN, aim_R1, right=True).clamp_max(p_RN.shape[-1] - 1)
    below_R1 = torch.where(n_R1 > 0, cdf_RN.gather(-1, (n_R1 - 1).clamp_min(0)), 0.0)
    return n_R1.squeeze(-1), (aim_R1 - below_R1).squeeze(-1), p_RN.gather(-1, n_R1).squeeze(-1), total_R


@dataclass(frozen=True)
class Drawn:
    """The next state, how many rows moved, and whether every one of them had a law (a bool on the device)."""

    state: State
    moved: int
    sound: Tensor | None = None


def draw(state: State, law: Law, rng: Rng, graph: Graph, chunk: int) -> Drawn:
    """Draw the next state from a law. Reads ``leave_R`` from the device once, not at all where it is blind.

    Raises:
        WorkbenchError: the probability of leaving is not a number.
    """
    rows_R = law.rows_R
    if rows_R.numel() == 0:
        return settle(state, law, graph, rows_R, rows_R)
    moved_M = movers(state, law, rng, chunk)
    if moved_M.numel() == 0:
        return settle(state, law, graph, moved_M, moved_M)
    known_M = torch.full_like(moved_M, -1) if law.to_R is None else law.to_R[moved_M]
    asked_A = moved_M[known_M < 0]
    to_M, log_p_M, sound = known_M.to(state.x_BL.device, non_blocking=True), None, None
    if asked_A.numel() > 0:
        if law.expect is not None:
            law.expect(asked_A)
        u_A = _numbers(rng, "land", state, rows_R[asked_A]).to(state.x_BL.device, non_blocking=True)
        pieces = [
            _landed(law, piece, u) for piece, u in zip(asked_A.split(chunk), u_A.split(chunk), strict=True)
        ]
        at_A = torch.nonzero(known_M < 0).squeeze(-1).to(to_M.device, non_blocking=True)
        to_M[at_A] = torch.cat([y for y, _, _ in pieces])
        sound = torch.cat([ok for _, ok, _ in pieces]).all()
        if law.notes:
            log_p_M = torch.zeros(len(to_M), dtype=torch.float64, device=to_M.device)
            log_p_M[at_A] = torch.cat([log_p for _, _, log_p in pieces])
    return replace(settle(state, law, graph, moved_M, to_M, log_p_M), sound=sound)


def movers(state: State, law: Law, rng: Rng, chunk: int) -> Tensor:
    """Which rows leave: indices into ``law.rows_R``, int64 on the host.

    Raises:
        WorkbenchError: the probability of leaving is not a number.
    """
    rows_R, leave_R = law.rows_R, law.leave_R.to("cpu", torch.float64)
    require_numbers(leave_R, state)
    u_R = _numbers(rng, "leave", state, rows_R)
    leaves_R = (u_R < leave_R) & state.free_BL.reshape(-1)[rows_R]
    if law.choice is not None:
        leaves_R &= _chosen(_numbers(rng, "choose", state, rows_R), law.choice, rows_R, state.free_BL.shape)
    moved_M = torch.nonzero(leaves_R).squeeze(-1)
    if law.exact is not None and moved_M.numel():
        if law.expect is not None:
            law.expect(moved_M)
        exact_M = torch.cat([law.exact(piece) for piece in moved_M.split(chunk)]).to("cpu", torch.float64)
        require_numbers(exact_M, state)
        moved_M = moved_M[u_R[moved_M] < exact_M]
    return moved_M


def settle(
    state: State, law: Law, graph: Graph, moved_M: Tensor, to_M: Tensor, log_p_M: Tensor | None = None
) -> Drawn:
    """The state after rows ``moved_M`` (indices into the law's, host) have gone to ``to_M`` (device)."""
    memory = {**state.memory, **law.memory}
    after = replace(state, step=state.step + 1, memory=memory)
    if law.notes:
        noted_BL = memory.get(law.notes, torch.zeros(state.x_BL.shape, dtype=torch.float64, device=state.x_BL.device))
        noted_BL = noted_BL.clone()
        if moved_M.numel():
            at_M = law.rows_R[moved_M].to(noted_BL.device, non_blocking=True)
            noted_BL.view(-1)[at_M] = 0.0 if log_p_M is None else log_p_M
        after = replace(after, memory={**memory, law.notes: noted_BL})
    if moved_M.numel() == 0:
        return Drawn(after, 0)
    rows_M, device = law.rows_R[moved_M], state.x_BL.device
    known_M = torch.full_like(moved_M, -1) if law.to_R is None else law.to_R[moved_M]
    live_BL, x_BL = state.live_BL.clone(), state.x_BL.clone()
    live_BL.view(-1)[rows_M] = torch.where(known_M >= 0, graph.live(known_M), law.lands_live)
    x_BL.view(-1)[rows_M.to(device, non_blocking=True)] = to_M
    return Drawn(replace(after, x_BL=x_BL, live_BL=live_BL), int(moved_M.numel()))


def _landed(law: Law, piece: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States drawn for a piece of rows, which had a law, log p of each drawn state (only where the law notes it)."""
    log_p_RN = law.target(piece)
    y_R, ok_R = land(log_p_RN, u)
    if not law.notes:
        return y_R, ok_R, u
    own_R = log_p_RN.gather(-1, y_R.unsqueeze(-1)).squeeze(-1).double()
    return y_R, ok_R, own_R - log_p_RN.logsumexp(-1).double()


def _chosen(u_R: Tensor, choice: Choice, rows_R: Tensor, shape: torch.Size) -> Tensor:
    """Which rows are among the first ``count_B`` of their sequence by score/τ + Gumbel noise, bool [R]."""
    score_R = choice.score_R.to("cpu", torch.float64)
    gumbel_R = -(-(u_R + 2.0**-54).log()).log()
    noise_BL = torch.full(shape, -torch.inf, dtype=torch.float64)
    score_BL = torch.full(shape, -torch.inf, dtype=torch.float64)
    noise_BL.view(-1)[rows_R] = gumbel_R
    score_BL.view(-1)[rows_R] = score_R if choice.tau == 0 else score_R / choice.tau + gumbel_R
    # the first sort breaks the second's ties: by lot where τ = 0
    by_lot_BL = noise_BL.argsort(-1, descending=True)
    order_BL = by_lot_BL.gather(-1, score_BL.gather(-1, by_lot_BL).argsort(dim=-1, descending=True, stable=True))
    rank_BL = torch.empty_like(order_BL).scatter_(-1, order_BL, torch.arange(shape[1]).expand(shape))
    chosen_BL = (rank_BL < choice.count_B.unsqueeze(-1)) & ~score_BL.isneginf()
    return chosen_BL.reshape(-1)[rows_R]


def require_numbers(leave_R: Tensor, state: State) -> None:
    """Raises ``WorkbenchError`` where a probability of leaving is NaN: the network has diverged."""
    if bool(torch.isnan(leave_R).any()):
        raise WorkbenchError(
            f"the network's scores are not numbers at sampling step {state.step} (t = {float(state.t_B[0]):.4g}): "
            "look at the training log for a diverged loss, or sample from an earlier checkpoint"
        )


def _numbers(rng: Rng, stream: str, state: State, rows_R: Tensor) -> Tensor:
    """Uniform numbers at flat positions, float64 [R] on the host; only for sequences that have one."""
    length = state.free_BL.shape[1]
    items, of_R = torch.unique(rows_R // length, return_inverse=True)
    u_IL = torch.from_numpy(rng.uniform(stream, state.step, state.seq_B[items].numpy(), length))
    return u_IL[of_R, rows_R % length]


Draw = Callable[[State, Law, Rng, Graph, int], Drawn]
"""A way to draw the next state from a law: `draw`, or `samplers.race`'s."""


def drive(
    walk: Walk,
    rng: Rng,
    view: ScoreView,
    heard: Callable[[State, Law, int], None] | None = None,
    draw: Draw = draw,
) -> State:
    """Walk to the end, drawing each law. ``heard(next state, law, rows moved)`` is called after each.

    Raises:
        WorkbenchError: the network's scores are not numbers.
    """
    doubts: list[Tensor] = []
    try:
        state, law = next(walk)
        while True:
            drawn = draw(state, law, rng, view.graph, view.chunk)
            if drawn.sound is not None:
                doubts.append(drawn.sound)
            if heard is not None:
                heard(drawn.state, law, drawn.moved)
            state, law = walk.send(drawn.state)
    except StopIteration as end:
        last: State = end.value
    # read once, here: a check a step would make the host wait for the device at every step
    if doubts and not bool(torch.stack(doubts).all()):
        raise WorkbenchError(
            "the network's law of a token that had to be drawn holds no probability or is not a number: look at the "
            "training log for a diverged loss, or loosen the sampler's shapers"
        )
    return last
