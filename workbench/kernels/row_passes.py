"""A chunk of head outputs turned into nats and weighted gradient in one or two passes over the vocabulary.

Row functions (`workbench.kernels.rows`) say what they do in PyTorch, which takes five to eight passes over a chunk.
Most of them come down to a few numbers a row, a *plan*, and then one program a row suffices: read the outputs, sum
exponentials in float32, write the gradient, weighted and in the type of the next product. Such a kernel (Triton, on
CUDA) stands beside the torch form and is taken only where it was measured to be faster at that very shape.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.core.files import write_json
from workbench.kernels.dispatch import Candidate, Dispatcher

Result = tuple[Tensor, Tensor, Tensor]
"""(nats_R, aux_RK, weighted gradient [R, S] in the asked type)."""
TRIED = 5
"""Runs of each form when a shape is measured; the fastest counts."""
CLOSE = 1e-3
"""How far nats and gradients of two forms may lie apart, beside their size."""


@dataclass(frozen=True)
class ExpPlan:
    """Rows whose gradient is scale · e^(out + shift) less a number: 0 at ``x``, ``at_target`` at the target,
    ``at_mask`` at column ``mask`` (−1: there is none), ``common`` elsewhere.

    ``nats(sums, logs, own, mask_log)`` as of `graphs.base.EntropyRows`; ``aux(nats, own)``. Tensors are [R].
    """

    x_R: Tensor
    target_R: Tensor
    shift_R: Tensor
    scale_R: Tensor
    common_R: Tensor
    at_target_R: Tensor
    at_mask_R: Tensor
    mask: int
    nats: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    aux: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SoftmaxPlan:
    """Rows of scale · (log Σ e^out − out at the target); over the first ``columns`` outputs (0: all)."""

    target_R: Tensor
    scale_R: Tensor
    columns: int
    aux: Callable[[Tensor], Tensor]


Plan = ExpPlan | SoftmaxPlan


def by_torch(plan: Plan, out_RS: Tensor, weight_R: Tensor, low: torch.dtype) -> Result:
    """The plan written plainly, in the type of ``out_RS``: what the kernels are tested against."""
    rows, states = out_RS.shape
    at_R, kind = torch.arange(rows, device=out_RS.device), out_RS.dtype
    if isinstance(plan, SoftmaxPlan):
        columns = plan.columns or states
        law_RC = out_RS[:, :columns].log_softmax(-1)
        nats_R = -law_RC[at_R, plan.target_R] * plan.scale_R.to(kind)
        grad_RS = torch.zeros_like(out_RS)
        grad_RS[:, :columns] = law_RC.exp()
        grad_RS[at_R, plan.target_R] -= 1.0
        scaled_R = (plan.scale_R * weight_R).to(kind)
        return nats_R, plan.aux(nats_R), (grad_RS * scaled_R.unsqueeze(-1)).to(low)
    log_RS = out_RS + plan.shift_R.to(kind).unsqueeze(-1)
    log_RS[at_R, plan.x_R] = 0.0
    score_RS = log_RS.exp()
    score_RS[at_R, plan.x_R] = 0.0
    dead_R1 = (plan.scale_R == 0).unsqueeze(-1)
    score_RS = score_RS.masked_fill(dead_R1, 0.0)
    pull_RS = plan.common_R.to(kind).unsqueeze(-1).repeat(1, states)
    if plan.mask >= 0:
        pull_RS[:, plan.mask] = plan.at_mask_R.to(kind)
    pull_RS[at_R, plan.target_R] = plan.at_target_R.to(kind)
    pull_RS[at_R, plan.x_R] = 0.0
    tokens_RS = log_RS if plan.mask < 0 else log_RS[:, : plan.mask]
    mask_R = torch.zeros_like(plan.shift_R) if plan.mask < 0 else log_RS[:, plan.mask]
    own_R = log_RS[at_R, plan.target_R]
    nats_R = plan.nats(score_RS.sum(-1), tokens_RS.sum(-1), own_R, mask_R)
    grad_RS = (score_RS * plan.scale_R.to(kind).unsqueeze(-1) - pull_RS) * weight_R.to(kind).unsqueeze(-1)
    return nats_R, plan.aux(nats_R, own_R), grad_RS.to(low)


def by_triton(plan: Plan, out_RS: Tensor, weight_R: Tensor, low: torch.dtype) -> Result:
    """The plan by the kernels of `workbench.kernels.row_triton`, imported at first use."""
    from workbench.kernels import row_triton

    launch = row_triton.softmax_rows if isinstance(plan, SoftmaxPlan) else row_triton.exp_rows
    return launch(plan, out_RS, weight_R, low)  # type: ignore[arg-type]


def triton_available(device: str, **where: Any) -> str | None:
    """Why Triton's kernels cannot run: not installed, or no GPU (its interpreter, for tests, is never the faster)."""
    if not _installed():
        return "triton is not installed"
    if device != "cuda":
        return f"it computes on CUDA only, not on {device}"
    return None


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@dataclass(frozen=True)
class Measured:
    """Seconds of the torch form and of the kernel on a chunk; None where the kernel cannot be taken, and ``why``."""

    torch: float
    triton: float | None
    why: str = ""

    def in_words(self) -> str:
        """Both, in milliseconds."""
        if self.triton is None:
            return self.why
        return f"{1e3 * self.triton:.3g} ms a chunk, the torch form {1e3 * self.torch:.3g} ms"

    def against(self) -> str | None:
        """Why the kernel is not taken, or None."""
        return None if self.triton is not None and self.triton < self.torch else f"measured: {self.in_words()}"


MEASURED: dict[str, Measured] = {}
"""By shape, on this machine's GPU; kept in a file of the cache."""


def place() -> Path:
    """The file that keeps what was measured."""
    return Path(os.environ.get("WORKBENCH_CACHE") or "cache") / "kernels" / "row_passes.json"


def shape_of(device: str, form: str, rows: int, states: int, dtype: torch.dtype) -> str:
    """What a measurement is of."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else device
    return f"{gpu}; {form}; {rows} × {states}; {str(dtype).removeprefix('torch.')}; torch {torch.__version__}"


def recall() -> None:
    """Take up what earlier sessions measured."""
    try:
        kept = json.loads(place().read_text(encoding="utf-8"))
        found = {name: Measured(one["torch"], one["triton"]) for name, one in kept.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    MEASURED.update({name: one for name, one in found.items() if name not in MEASURED})


def _advisable(device: str, shape: str = "", **where: Any) -> str | None:
    recall()
    if shape:
        found = MEASURED.get(shape)
        return found.against() if found else "not measured at this shape yet"
    if not MEASURED:
        return "taken only where it was measured to be faster, and nothing was measured yet"
    told = [f"{name}: {one.in_words()}" for name, one in MEASURED.items()]
    return f"chosen by shape; measured: {'; '.join(told)}"


ROW_PASSES = Dispatcher(
    "passes over a chunk of head outputs",
    [
        Candidate("triton", by_triton, "measured to be faster at this shape", triton_available, _advisable),
        Candidate("torch", by_torch, "the row functions' own passes, on every device"),
    ],
    typical={"shape": ""},
)
"""``torch`` stands for the row functions themselves: where it is picked, they run as they are."""


def plan_for(function: object, context: dict[str, Tensor], out_RS: Tensor) -> Plan | None:
    """A row function's plan for a chunk, where a kernel could use it: float32 outputs where Triton runs."""
    if out_RS.dtype != torch.float32 or triton_available(out_RS.device.type) is not None:
        return None
    make: Callable[[dict[str, Tensor]], Plan | None] | None = getattr(function, "plan", None)
    return None if make is None else make(context)


def kernel_for(
    plan: Plan, function: Callable[[Tensor, Tensor], Result], out_RS: Tensor, weight_R: Tensor, low: torch.dtype
) -> Callable[..., Result] | None:
    """The kernel to use for a chunk, or None: the row function's own passes.

    A shape that meets a GPU for the first time is measured: both forms on a copy of the chunk, compared and timed.
    ``function``: the row function's own way from (outputs, weights) to a result.
    """
    device = out_RS.device.type
    form = "softmax" if isinstance(plan, SoftmaxPlan) else "exponential"
    shape = shape_of(device, form, out_RS.shape[0], out_RS.shape[1], low)
    if shape not in MEASURED:
        recall()
    if shape not in MEASURED:
        MEASURED[shape] = measure(plan, function, out_RS, weight_R, low)
        keep()
    kernel, _ = ROW_PASSES.pick(device=device, dtype=out_RS.dtype, shape=shape)
    return None if kernel is by_torch else kernel


def measure(
    plan: Plan, function: Callable[[Tensor, Tensor], Result], out_RS: Tensor, weight_R: Tensor, low: torch.dtype
) -> Measured:
    """Both forms on copies of a chunk: compared, then timed. A kernel that fails is one that is not taken."""
    try:
        return _measured(plan, function, out_RS, weight_R, low)
    except Exception as error:  # whatever a compiler or a GPU without room may say, training goes on without it
        return Measured(0.0, None, f"it fails here ({type(error).__name__}: {error!s:.200})")


def _measured(
    plan: Plan, function: Callable[[Tensor, Tensor], Result], out_RS: Tensor, weight_R: Tensor, low: torch.dtype
) -> Measured:
    due = function(out_RS.clone(), weight_R)
    got = by_triton(plan, out_RS.clone(), weight_R, low)
    for a, b in zip(got, due, strict=True):
        near = CLOSE * (1.0 + float(b.float().abs().max())) if b.numel() else 0.0
        if b.numel() and not float((a.float() - b.float()).abs().max()) <= near:  # not a number is not near
            return Measured(0.0, None, "its figures are not those of the torch form")
    forms: tuple[Callable[[Tensor], Result], ...] = (
        lambda out: function(out, weight_R),
        lambda out: by_triton(plan, out, weight_R, low),
    )
    own, kernel = (min(_seconds(form, out_RS) for _ in range(TRIED)) for form in forms)
    return Measured(own, kernel)


def keep() -> None:
    """Write down what was measured; a cache that cannot be written is measured again next time."""
    file = place()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # what failed is tried again by the next session: a package or the room on the GPU may have changed
        write_json(file, {name: vars(one) for name, one in MEASURED.items() if one.triton is not None})
    except OSError:
        return


def _seconds(form: Callable[[Tensor], Result], out_RS: Tensor) -> float:
    copy = out_RS.clone()
    wait = torch.cuda.synchronize if out_RS.is_cuda else (lambda: None)
    wait()
    began = time.perf_counter()
    form(copy)
    wait()
    return time.perf_counter() - began
