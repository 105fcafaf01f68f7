"""The selective scan in PyTorch: not a loop over time, memory linear in length, with a backward pass of its own.

Time is cut into *segments* that fit a cache, one after another; a segment into chunks of ``STEPS`` positions that
advance side by side. A chunk runs twice: from nothing, which tells what it adds to the state, and, once the states
between chunks are known, from the right one. Forward keeps one state a segment; backward computes the rest again.

Layout: channels innermost and grouped: x and Δ [B, T, G, K], B and C [B, T, G, N], decay rates A [G, N, K], states
[B, G, N, K]. An operator of its own, so that ``torch.compile`` takes it as one piece.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.kernels.precision import full_precision

STEPS = 16
"""Positions of one chunk: the length of the loops."""
SEGMENT_BYTES = 2 << 20
"""Bytes of one B × T × G × N × K buffer of a segment, but at least a chunk; a handful are held at a time."""


@torch.library.custom_op("workbench::scan_by_chunks", mutates_args=())
def scan_by_chunks(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(y [B, T, G, K], last state, states before each segment [S, B, G, N, K]); all in one floating-point type."""
    y = x.new_empty(x.shape)
    before = []
    for piece in _segments(x, A):
        before.append(state)
        here = _Segment(x[:, piece], dt[:, piece], A, B[:, piece])
        h, _ = here.states(state)
        y[:, piece] = _rows(here.fold(C[:, piece]), h)[:, : y[:, piece].shape[1]]
        state = h[:, -1, -1].clone()  # positions that pad a segment keep the state as it is
    return y, state, torch.stack(before)


@scan_by_chunks.register_fake
def _(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape), state.new_empty(len(_segments(x, A)), *state.shape)


@torch.library.custom_op("workbench::scan_by_chunks_backward", mutates_args=())
def _backward(
    grad_y: Tensor, grad_last: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, Δ, A, B, C and the first state."""
    with full_precision(x):
        return _gradients(grad_y, grad_last, x, dt, A, B, C, before)


def _gradients(
    grad_y: Tensor, grad_last: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    into_x, into_dt, into_B, into_C = (z.new_empty(z.shape) for z in (x, dt, B, C))
    into_A, carried = torch.zeros_like(A), grad_last
    for piece, state in reversed(list(zip(_segments(x, A), before, strict=True))):
        here = _Segment(x[:, piece], dt[:, piece], A, B[:, piece])
        length = piece.stop - piece.start
        h, starts = here.states(state)
        gy, C_here = here.fold(grad_y[:, piece]), here.fold(C[:, piece])
        into_C[:, piece] = _columns(h, gy)[:, :length]
        g, carried = here.back(C_here.unsqueeze(-1) * gy.unsqueeze(-2), carried)
        into_B[:, piece] = _columns(g, here.fed)[:, :length]
        into_fed = _rows(here.B, g)
        # ∂/∂(Δ A) = g · a · h before; a is not needed any more
        w = here.a
        w[:, :, 1:].mul_(h[:, :, :-1])
        w[:, :, 0].mul_(starts)
        w.mul_(g)
        steps = here.dt.flatten(1, 2)
        w = w.flatten(1, 2)
        into_steps = into_fed * here.x.flatten(1, 2)
        for n in range(A.shape[1]):
            into_steps.addcmul_(w[..., n, :], A[:, n])
            into_A[:, n] += (w[..., n, :] * steps).sum((0, 1))
        into_dt[:, piece] = into_steps[:, :length]
        into_x[:, piece] = (into_fed * steps)[:, :length]
    return into_x, into_dt, into_A, into_B, into_C, carried.clone()


@_backward.register_fake
def _(
    grad_y: Tensor, grad_last: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(z.new_empty(z.shape) for z in (x, dt, A, B, C, before[0]))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])


def _grads(ctx: Any, grad_y: Tensor, grad_last: Tensor, grad_before: Tensor) -> tuple[Tensor, ...]:
    result: tuple[Tensor, ...] = _backward(grad_y, grad_last, *ctx.saved_tensors)
    return result


scan_by_chunks.register_autograd(_grads, setup_context=_keep)


class _Segment:
    """A stretch of time folded into chunks: every tensor here is [B, J chunks, STEPS, G, …]."""

    def __init__(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor) -> None:
        """Fold, and compute decays ``a`` and what is ``fed`` (Δ x) at every position."""
        self.pad = -x.shape[1] % min(STEPS, x.shape[1])
        self.steps = min(STEPS, x.shape[1])
        self.x, self.dt, self.B, self.rates = self.fold(x), self.fold(dt), self.fold(B), A
        self.fed = self.dt * self.x
        self.a = (self.dt.unsqueeze(-2) * A).exp_()

    def fold(self, z: Tensor) -> Tensor:
        """[B, T, G, …] → [B, J, STEPS, G, …], zeros behind the end."""
        return F.pad(z, (0, 0, 0, 0, 0, self.pad)).unflatten(1, (-1, self.steps))

    def states(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(states h after every position, those before each chunk [B, J, G, N, K])."""
        h = self.fed.unsqueeze(-2) * self.B.unsqueeze(-1)
        starts = state.unsqueeze(1)
        if h.shape[1] > 1:
            ends = h[:, :, 0]
            for k in range(1, self.steps):
                ends = torch.addcmul(h[:, :, k], self.a[:, :, k], ends)
            starts = self._chain(state, ends.unbind(1), self._whole().unbind(1))
        h[:, :, 0].addcmul_(self.a[:, :, 0], starts)
        for k in range(1, self.steps):
            h[:, :, k].addcmul_(self.a[:, :, k], h[:, :, k - 1])
        return h, starts

    def back(self, g: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of all states, and of the one before the first.

        ``g``: what each state gets from its own output, overwritten; ``carried``: what the last gets from after it.
        """
        after = carried.unsqueeze(1)
        if g.shape[1] > 1:
            begin = g[:, :, -1]
            for k in range(self.steps - 2, -1, -1):
                begin = torch.addcmul(g[:, :, k], self.a[:, :, k + 1], begin)
            begin = begin * self.a[:, :, 0]
            after = self._chain(carried, begin.flip(1).unbind(1), self._whole().flip(1).unbind(1)).flip(1)
        g[:, :, -1].add_(after)
        for k in range(self.steps - 2, -1, -1):
            g[:, :, k].addcmul_(self.a[:, :, k + 1], g[:, :, k + 1])
        return g, g[:, 0, 0] * self.a[:, 0, 0]

    def _whole(self) -> Tensor:
        """The decay over each chunk."""
        return (self.dt.sum(2).unsqueeze(-2) * self.rates).exp_()

    @staticmethod
    def _chain(first: Tensor, added: tuple[Tensor, ...], decays: tuple[Tensor, ...]) -> Tensor:
        """What each chunk begins with, [B, J, …], from what every chunk adds and keeps."""
        found = [first]
        for new, kept in zip(added[:-1], decays[:-1], strict=True):
            found.append(torch.addcmul(new, kept, found[-1]))
        return torch.stack(found, 1)


def _segments(x: Tensor, A: Tensor) -> list[slice]:
    """Stretches of whole chunks whose buffers have about SEGMENT_BYTES."""
    length = x.shape[1]
    position = x.shape[0] * A.numel() * x.element_size()
    size = max(1, SEGMENT_BYTES // (position * STEPS)) * STEPS
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _rows(v: Tensor, m: Tensor) -> Tensor:
    """Σ_n v_n m_nk at every position: [B, T, G, K]."""
    return (v.unsqueeze(-2) @ m).squeeze(-2).flatten(1, 2)


def _columns(m: Tensor, v: Tensor) -> Tensor:
    """Σ_k m_nk v_k at every position: [B, T, G, N]."""
    return (m @ v.unsqueeze(-1)).squeeze(-1).flatten(1, 2)
