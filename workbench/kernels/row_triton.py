"""Triton kernels of `workbench.kernels.row_passes`: one program a row; sums in float32; the gradient where it is due.

Not run on a GPU yet. Triton's interpreter runs them on a CPU (``TRITON_INTERPRET=1``), which is how they are tested;
Triton compiles them for GPUs that are not there (both last with triton 3.9.0).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workbench.kernels.row_passes import ExpPlan, Result, SoftmaxPlan

WIDEST = 4096
"""Largest number of states that a program holds at once."""


@triton.jit
def _exp_rows(
    out_ptr, grad_ptr, x_ptr, target_ptr, shift_ptr, scale_ptr, common_ptr, at_target_ptr, at_mask_ptr, weight_ptr,
    sums_ptr, logs_ptr, own_ptr, mask_log_ptr, out_stride, grad_stride, states, mask, BLOCK: tl.constexpr,
):  # fmt: skip
    """A pass: e^(out + shift) summed, the gradient written. Without a mask ``mask`` is a column that there is not."""
    row = tl.program_id(0).to(tl.int64)
    x, target = tl.load(x_ptr + row), tl.load(target_ptr + row)
    shift, scale, weight = tl.load(shift_ptr + row), tl.load(scale_ptr + row), tl.load(weight_ptr + row)
    common, at_target, at_mask = tl.load(common_ptr + row), tl.load(at_target_ptr + row), tl.load(at_mask_ptr + row)
    # what the gradient may take the place of is read before, by every warp
    own = tl.load(out_ptr + row * out_stride + target) + shift
    tl.store(own_ptr + row, tl.where(target == x, 0.0, own))
    mask_log = tl.load(out_ptr + row * out_stride + mask, mask=mask < states, other=0.0) + shift
    tl.store(mask_log_ptr + row, tl.where((x == mask) | (mask >= states), 0.0, mask_log))
    tl.debug_barrier()
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    logs = tl.zeros([BLOCK], dtype=tl.float32)
    alive = tl.zeros([BLOCK], dtype=tl.float32) < scale  # a block: the interpreter cannot spread a scalar's comparison
    for start in range(0, states, BLOCK):
        y = start + tl.arange(0, BLOCK)
        inside = y < states
        log_score = tl.load(out_ptr + row * out_stride + y, mask=inside, other=0.0) + shift
        counts = inside & (y != x)
        # rows without a scale are dead and may hold anything: their exponentials are not taken
        score = tl.where(counts & alive, tl.exp(tl.where(counts & alive, log_score, 0.0)), 0.0)
        sums += score
        logs += tl.where(counts & (y != mask), log_score, 0.0)
        pull = tl.where(y == target, at_target, tl.where(y == mask, at_mask, common))
        grad = tl.where(counts, (scale * score - pull) * weight, 0.0)
        tl.store(grad_ptr + row * grad_stride + y, grad.to(grad_ptr.dtype.element_ty), mask=inside)
    tl.store(sums_ptr + row, tl.sum(sums, axis=0))
    tl.store(logs_ptr + row, tl.sum(logs, axis=0))


@triton.jit
def _softmax_rows(
    out_ptr, grad_ptr, target_ptr, scale_ptr, weight_ptr, nats_ptr, out_stride, grad_stride, states, columns,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Two passes: the largest output and the sum beside it, then the gradient."""
    row = tl.program_id(0).to(tl.int64)
    target, scale, weight = tl.load(target_ptr + row), tl.load(scale_ptr + row), tl.load(weight_ptr + row)
    top = tl.full([BLOCK], float("-inf"), dtype=tl.float32)
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        y = start + tl.arange(0, BLOCK)
        out = tl.load(out_ptr + row * out_stride + y, mask=y < columns, other=float("-inf"))
        higher = tl.maximum(top, out)
        known = higher > float("-inf")  # a lane that has seen nothing yet has no difference to take
        sums = tl.where(known, sums * tl.exp(tl.where(known, top - higher, 0.0)), 0.0)
        sums += tl.where(known, tl.exp(tl.where(known, out - higher, 0.0)), 0.0)
        top = higher
    highest = tl.max(top, axis=0)
    seen = top > float("-inf")
    total = tl.sum(tl.where(seen, sums * tl.exp(tl.where(seen, top - highest, 0.0)), 0.0), axis=0)
    norm = highest + tl.log(total)
    own = tl.load(out_ptr + row * out_stride + target)
    tl.store(nats_ptr + row, tl.where(scale > 0, scale * (norm - own), 0.0))
    tl.debug_barrier()  # the gradient may take the place of what is read above, by every warp
    factor = scale * weight
    alive = tl.zeros([BLOCK], dtype=tl.float32) < scale
    for start in range(0, states, BLOCK):
        y = start + tl.arange(0, BLOCK)
        counts = y < columns
        out = tl.load(out_ptr + row * out_stride + y, mask=counts, other=0.0)
        law = tl.exp(tl.where(counts, out - norm, 0.0))
        grad = tl.where(counts & alive, (law - tl.where(y == target, 1.0, 0.0)) * factor, 0.0)
        tl.store(grad_ptr + row * grad_stride + y, grad.to(grad_ptr.dtype.element_ty), mask=y < states)


def exp_rows(plan: ExpPlan, out_RS: Tensor, weight_R: Tensor, low: torch.dtype) -> Result:
    """`row_passes.by_triton` of exponential rows; overwrites ``out_RS`` where ``low`` is its type."""
    rows, states = out_RS.shape
    own, grad_RS = tuple(_floats(rows, out_RS) for _ in range(4)), _grad(out_RS, low)
    numbers = (plan.shift_R, plan.scale_R, plan.common_R, plan.at_target_R, plan.at_mask_R, weight_R)
    _exp_rows[(rows,)](
        out_RS, grad_RS, plan.x_R.contiguous(), plan.target_R.contiguous(), *(_plain(one) for one in numbers), *own,
        out_RS.stride(0), grad_RS.stride(0), states, states if plan.mask < 0 else plan.mask, BLOCK=_block(states),
        num_warps=_warps(states),
    )  # fmt: skip
    nats_R = plan.nats(*own)
    return nats_R, plan.aux(nats_R, own[2]), grad_RS


def softmax_rows(plan: SoftmaxPlan, out_RS: Tensor, weight_R: Tensor, low: torch.dtype) -> Result:
    """`row_passes.by_triton` of softmax rows; overwrites ``out_RS`` where ``low`` is its type."""
    rows, states = out_RS.shape
    nats_R, grad_RS = _floats(rows, out_RS), _grad(out_RS, low)
    _softmax_rows[(rows,)](
        out_RS, grad_RS, plan.target_R.contiguous(), _plain(plan.scale_R), _plain(weight_R), nats_R,
        out_RS.stride(0), grad_RS.stride(0), states, plan.columns or states, BLOCK=_block(states),
        num_warps=_warps(states),
    )  # fmt: skip
    return nats_R, plan.aux(nats_R), grad_RS


def _block(states: int) -> int:
    return min(WIDEST, triton.next_power_of_2(states))


def _warps(states: int) -> int:
    """Eight states a thread: with more, compiled for sm_80 and sm_90, a program takes so many registers that few run
    side by side, and rows wait for memory. One warp of a few states never reads what another has stored.
    """
    return max(1, _block(states) // 256)


def _grad(out_RS: Tensor, low: torch.dtype) -> Tensor:
    return out_RS if out_RS.dtype == low else torch.empty(out_RS.shape, dtype=low, device=out_RS.device)


def _floats(rows: int, like: Tensor) -> Tensor:
    return torch.empty(rows, dtype=torch.float32, device=like.device)


def _plain(value: Any) -> Tensor:
    """Numbers as the kernels read them."""
    return value.to(torch.float32).contiguous()  # type: ignore[no-any-return]
