"""The gradients of features and head, brought together chunk of rows by chunk of rows."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 2
"""Chunks whose gradients are multiplied at once on a CPU under autocast: each product reads and writes the gradient of
the whole head. Gradients in bfloat16 of two chunks take the room of one chunk's outputs."""
CPU_SLICE_BYTES = 4 << 20
"""Bytes of the piece of the head's gradient that a CPU adds to at a time: what is added, and its copy in the wider
type, stay in the cache."""


class HeadGradients:
    """d loss / d (features, weight, bias) out of d loss / d outputs of one chunk of rows after another.

    Products take their inputs in the type ``low``, and are summed over chunks in the parameters' own.
    """

    def __init__(
        self, h_RD: Tensor, weight: Tensor, bias: Tensor, wants: tuple[bool, bool, bool], low: torch.dtype, chunk: int
    ) -> None:
        """``bias``: without numbers where the head has none; ``wants``: which of the three are asked for."""
        self.h_RD, self.weight_low, self.low, self.kind = h_RD, weight.to(low), low, weight.dtype
        self.h = torch.empty_like(h_RD) if wants[0] else None
        self.weight = torch.empty_like(weight) if wants[1] else None
        self.bias = torch.zeros_like(bias) if wants[2] and bias.numel() else None
        self.size = chunk * (GROUP if h_RD.device.type == "cpu" and low != weight.dtype else 1)
        self._kept_GS = h_RD.new_empty(0, dtype=low)
        self._start, self._end, self._begun = 0, 0, False

    def take(self, grad_RS: Tensor) -> None:
        """The gradient of the next chunk's outputs, weighted; its sum over rows is the bias's."""
        rows, states = grad_RS.shape
        if self.bias is not None:
            self.bias += grad_RS.sum(0, dtype=self.kind)
        if self._start == self._end and (rows >= self.size or self._end + rows == len(self.h_RD)):
            self._end += rows
            self._multiply(grad_RS.to(self.low))
            return
        if not len(self._kept_GS):
            self._kept_GS = grad_RS.new_empty((min(self.size, len(self.h_RD)), states), dtype=self.low)
        at = self._end - self._start
        self._kept_GS[at : at + rows] = grad_RS
        self._end += rows
        if at + rows >= self.size or self._end == len(self.h_RD):
            self._multiply(self._kept_GS[: at + rows])

    def _multiply(self, grad_GS: Tensor) -> None:
        piece = slice(self._start, self._end)
        if self.h is not None:
            self.h[piece] = grad_GS @ self.weight_low
        if self.weight is not None:
            self._add(self.weight, grad_GS, self.h_RD[piece].to(self.low))
        self._start, self._begun = self._end, True

    def _add(self, total: Tensor, grad_GS: Tensor, h_GD: Tensor) -> None:
        """total += gradᵀ h, in total's type; the first time it is put there."""
        if grad_GS.dtype == total.dtype:
            torch.addmm(total, grad_GS.t(), h_GD, beta=float(self._begun), out=total)
        elif total.device.type == "cuda":
            self._put(total, torch.mm(grad_GS.t(), h_GD, out_dtype=total.dtype))
        else:
            rows = max(1, CPU_SLICE_BYTES // (total.element_size() * total.shape[1]))
            for piece, columns in zip(total.split(rows), grad_GS.split(rows, dim=1), strict=True):
                self._put(piece, columns.t() @ h_GD)

    def _put(self, total: Tensor, product: Tensor) -> None:
        if self._begun:
            total += product
        else:
            total.copy_(product)
