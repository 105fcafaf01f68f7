"""Head and objective together, on the rows that need them, by chunks: the vocabulary axis is never whole.

A *row function* turns a chunk of head outputs into nats (and diagnostics) and, in the same pass, into the gradient
with respect to those outputs. ``fused_rows`` walks the chunks: head → row function → gradients of features and head.
Nothing of size rows × vocabulary survives a chunk, and the backward pass has nothing left to compute.

Precision: outputs are float32 (float64 in float64 models) whatever autocast says, summed in float32; under autocast
the product may take its *inputs* in bfloat16 where the device has instructions for that (`relaxed_products`), and the
two products of the backward pass, which only carry gradients, run in the autocast type.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workbench.kernels.head_gradients import HeadGradients
from workbench.kernels.precision import full_precision, relaxed_products
from workbench.kernels.products import linear
from workbench.kernels.row_passes import kernel_for, plan_for

CPU_CHUNK_BYTES = 26 << 20
"""Bytes of one chunk × vocabulary buffer on a CPU. Smaller ones stay in the cache, but each adds to the gradient of
the whole head."""
DEVICE_CHUNK_BYTES = 512 << 20
"""The same on an accelerator: large enough that launches do not show."""

CPU_GRANULE, DEVICE_GRANULE = 16, 512
"""Rows are padded to multiples of this: a CPU wants no idle work, compiled code on an accelerator few shapes (a last
chunk has at most four)."""


def chunk_rows(outputs: int, device: torch.device | str = "cpu") -> int:
    """Rows of one chunk for a head of ``outputs`` columns: whole granules, at least one, at most 2048 rows."""
    on_cpu = torch.device(device).type == "cpu"
    granule, budget = (CPU_GRANULE, CPU_CHUNK_BYTES) if on_cpu else (DEVICE_GRANULE, DEVICE_CHUNK_BYTES)
    return min(2048, max(1, budget // (4 * outputs) // granule) * granule)


def padded_rows(rows: int, device: torch.device | str = "cpu") -> int:
    """The number of rows after padding: whole granules, at least one, so that the head is always touched."""
    granule = CPU_GRANULE if torch.device(device).type == "cpu" else DEVICE_GRANULE
    return max(1, -(-rows // granule)) * granule


class RowFunction(Protocol):
    """What an objective is to the kernel. ``context`` holds per-row tensors ([R] each), sliced with the chunk."""

    def values(self, out_RS: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(nats_R, aux_RK) of a chunk of head outputs; may overwrite ``out_RS``."""
        ...

    def values_and_grad(self, out_RS: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(nats_R, aux_RK, d nats_r / d out_rS); may overwrite ``out_RS`` and return it as the gradient."""
        ...


class CompiledRows:
    """A row function whose chunk pass goes through torch.compile: one graph for whole chunks, one for the last.

    On a CPU, where rows are padded to few more, one graph is made for any number of them.
    """

    def __init__(
        self, function: RowFunction, device: torch.device | str = "cuda", backend: str = "inductor"
    ) -> None:
        """``function``: the row function to compile, for chunks on ``device``."""
        self.values, self.plan = function.values, getattr(function, "plan", None)
        self.values_and_grad = torch.compile(
            function.values_and_grad, dynamic=torch.device(device).type == "cpu", backend=backend
        )


def head_rows(head: nn.Linear, h_RD: Tensor) -> Tensor:
    """Head outputs of feature rows in float32 (float64 for a float64 head), outside autocast: [R, S].

    Every use of a head goes through here. On CUDA under autocast the product is taken in the autocast type with
    float32 accumulation *and output*; rounding scores to bfloat16 would cost 1–2 % of each score.
    """
    low = _low_dtype(h_RD, head.weight)
    with full_precision(h_RD):
        return _product(h_RD, head.weight, head.bias, low)


def gather_features(h_BLD: Tensor, rows_R: Tensor) -> Tensor:
    """The features of flat positions b·L + l: [R, D]."""
    return h_BLD.reshape(-1, h_BLD.shape[-1]).index_select(0, rows_R)


def rows_values(
    head: nn.Linear, h_RD: Tensor, function: RowFunction, context: dict[str, Tensor], chunk: int
) -> tuple[Tensor, Tensor]:
    """(nats_R, aux_RK) of all rows by chunks, without gradient; there may be none."""
    nats, aux = [], []
    with torch.no_grad():
        for start in range(0, max(1, h_RD.shape[0]), chunk):
            piece = slice(start, start + chunk)
            out_RS = head_rows(head, h_RD[piece])
            values = function.values(out_RS, {name: value[piece] for name, value in context.items()})
            nats.append(values[0])
            aux.append(values[1])
    return torch.cat(nats), torch.cat(aux)


def fused_rows(
    head: nn.Linear,
    h_RD: Tensor,
    weight_R: Tensor,
    function: RowFunction,
    context: dict[str, Tensor],
    chunk: int,
    over: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(Σ_r weight_r · nats_r / ``over`` with gradient, nats_R, aux_RK), the last two detached.

    ``context`` values are per-row tensors; the gradient flows to ``h_RD`` and the head's parameters only. Divided
    here, a mean costs nothing; divided afterwards, one more pass over the gradient of the head.
    """
    bias = head.bias if head.bias is not None else head.weight.new_zeros(0)
    share_R = weight_R.to(torch.promote_types(weight_R.dtype, head.weight.dtype)) / over
    return _FusedRows.apply(h_RD, head.weight, bias, share_R, function, context, chunk)


class _FusedRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_RD: Tensor,
        weight: Tensor,
        bias: Tensor,
        weight_R: Tensor,
        function: RowFunction,
        context: dict[str, Tensor],
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        low = _low_dtype(h_RD, weight)
        wants = ctx.needs_input_grad[:3]
        gradients = HeadGradients(h_RD, weight, bias, wants, low, chunk) if any(wants) else None
        nats_R, aux_RK, total = [], [], weight.new_zeros(())
        with full_precision(h_RD):
            for start in range(0, h_RD.shape[0], chunk):
                piece = slice(start, start + chunk)
                weight_low = None if gradients is None else gradients.weight_low
                out_RS = _product(h_RD[piece], weight, bias if bias.numel() else None, low, weight_low)
                rows = {name: value[piece] for name, value in context.items()}
                if gradients is None:
                    nats, aux = function.values(out_RS, rows)
                else:
                    nats, aux, grad_RS = _gradient(function, out_RS, rows, weight_R[piece], low)
                    gradients.take(grad_RS)
                    del grad_RS
                del out_RS  # not beside the next chunk's
                total = total + (weight_R[piece].to(nats.dtype) * nats).sum()
                nats_R.append(nats)
                aux_RK.append(aux)
        # made here, seen by nobody else: scaled in place below
        ctx.grads = (None,) * 3 if gradients is None else (gradients.h, gradients.weight, gradients.bias)
        nats, aux = torch.cat(nats_R), torch.cat(aux_RK)
        ctx.mark_non_differentiable(nats, aux)
        return total, nats, aux

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the fused rows' gradient can be taken once; compute the loss again")
        grads, ctx.grads = ctx.grads, None
        # a pass over the head's gradient for nothing where the factor is 1; asking a GPU for it would wait for it
        unscaled = grad_total.device.type == "cpu" and float(grad_total.detach().float().numpy()) == 1.0
        for grad in grads:
            if grad is not None and not unscaled:
                grad.mul_(grad_total.to(grad.dtype))
        return (*grads, None, None, None, None)


def _gradient(
    function: RowFunction, out_RS: Tensor, context: dict[str, Tensor], weight_R: Tensor, low: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """(nats_R, aux_RK, weighted gradient) of a chunk; a kernel gives it in the type ``low``."""

    def own(out_RS: Tensor, weight_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nats, aux, grad_RS = function.values_and_grad(out_RS, context)
        return nats, aux, grad_RS.mul_(weight_R.to(grad_RS.dtype).unsqueeze(-1))

    def own_low(out_RS: Tensor, weight_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nats, aux, grad_RS = own(out_RS, weight_R)
        return nats, aux, grad_RS.to(low)

    plan = plan_for(function, context, out_RS)
    kernel = None if plan is None else kernel_for(plan, own_low, out_RS, weight_R, low)
    return own(out_RS, weight_R) if kernel is None else kernel(plan, out_RS, weight_R, low)


def _low_dtype(h_RD: Tensor, weight: Tensor) -> torch.dtype:
    """The type that products may take their inputs in: autocast's where it is on, else the parameters'."""
    kind = h_RD.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else weight.dtype


def _product(
    h_RD: Tensor, weight: Tensor, bias: Tensor | None, low: torch.dtype, weight_low: Tensor | None = None
) -> Tensor:
    """h Wᵀ + b with outputs and sums in the parameters' type (float32); ``low``: what the inputs may be rounded to."""
    if low != weight.dtype and h_RD.device.type == "cuda":
        weight_low = weight.to(low) if weight_low is None else weight_low
        out = torch.mm(h_RD.to(low), weight_low.t(), out_dtype=weight.dtype)
        return out if bias is None else out.add_(bias)
    if low == weight.dtype:
        return linear(h_RD.to(low), weight, bias)
    with relaxed_products(True):
        return nn.functional.linear(h_RD.to(weight.dtype), weight, bias)
