"""Drawing as published code does, for comparison: one float32 race of exponentials over all states of a row.

SEDD's ``sample_categorical`` takes the argmax of p/(1e-10 − log(u + 1e-10)) with u float32 in [0, 1), 24 random bits.
The smallest exponential that u can give is about 2^-24, so that tokens whose probability *of this step* is below that
never win against the mask: more steps draw colder (Zheng et al. 2024, "Masked diffusion models are secretly
time-agnostic masked models", §4). Nothing here is used unless a recipe asks for ``precision: float32_race``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphs.base import Graph
from samplers.base import Law, State
from samplers.draw import Drawn, draw, require_numbers, settle
from workbench.core.rng import Rng

BITS = 24
"""Random bits of a float32 uniform number."""


def race(state: State, law: Law, rng: Rng, graph: Graph, chunk: int) -> Drawn:
    """Draw the next state by the race, keyed like `draw`; laws that choose rows together, only know where rows go, or
    note how probable what they draw is, are drawn by `draw`.

    Raises:
        WorkbenchError: the network's scores are not numbers.
    """
    rows_R = law.rows_R
    if law.choice is not None or law.to_R is not None or law.notes or rows_R.numel() == 0:
        return draw(state, law, rng, graph, chunk)
    index_R = torch.arange(rows_R.numel())
    leave_R = law.leave_R.to("cpu", torch.float64)
    if law.expect is not None:
        law.expect(index_R)
    if law.exact is not None:
        leave_R = torch.minimum(leave_R, torch.cat([law.exact(piece).cpu() for piece in index_R.split(chunk)]))
    require_numbers(leave_R, state)
    moved, landed, sound = [], [], []
    for piece in index_R[leave_R > 0].split(chunk):
        log_p_RN, leave_P = law.target(piece), leave_R[piece].to(state.x_BL.device)
        p_RN = (log_p_RN.float().softmax(-1) * leave_P.float().unsqueeze(-1)).nan_to_num(0.0)
        stay_R1 = (1 - leave_P.float()).unsqueeze(-1)
        u_RS = _numbers(rng, state, rows_R[piece], p_RN.shape[-1] + 1).to(p_RN.device)
        key_RS = torch.cat([p_RN, stay_R1], -1) / (1e-10 - (u_RS + 1e-10).log())
        to_R = key_RS.argmax(-1)
        leaves_R = (to_R < p_RN.shape[-1]).cpu()
        moved.append(piece[leaves_R])
        landed.append(to_R[leaves_R.to(to_R.device)])
        sound.append(log_p_RN.isfinite().any(-1).all())
    if not moved:
        return settle(state, law, graph, rows_R[:0], state.x_BL.new_zeros(0))
    moved_M, to_M = torch.cat(moved), torch.cat(landed)
    drawn = settle(state, law, graph, moved_M, to_M)
    return Drawn(drawn.state, drawn.moved, torch.stack(sound).all())


def race_weights(p_V: Tensor, leave: float, bits: int = BITS) -> Tensor:
    """The odds at which a race of ``bits`` bits moves a row to each token against its staying, [V] float64.

    2^-b/(exp(1/A_y) − 1) with A_y = p_y · D · 2^b/(1 − D), D = ``leave`` < 1: the smallest exponential is 2^-b. An
    exact draw has p_y · D/(1 − D), to which this comes for many bits.
    """
    reach_V = p_V.double() * leave * 2.0**bits / (1 - leave)
    return 2.0**-bits / torch.expm1(1 / reach_V)


def _numbers(rng: Rng, state: State, rows_R: Tensor, n: int) -> Tensor:
    """``n`` numbers a row, float32 with 24 random bits as ``torch.rand`` gives them."""
    length = state.free_BL.shape[1]
    out_RS = torch.empty(rows_R.numel(), n, dtype=torch.float32)
    for index, row in enumerate(rows_R.tolist()):
        u_S = rng.uniform(f"race/{row % length}", state.step, [int(state.seq_B[row // length])], n)[0]
        out_RS[index] = torch.from_numpy((u_S * 2**BITS) // 1 / 2**BITS)
    return out_RS
