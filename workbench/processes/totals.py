"""How far the sum of a row's scores can have moved: a bound that holds for any network and costs no vocabulary.

With outputs z = W h + b, f(h) = log Σ_y e^{z_y} changes between two feature rows by at most the largest change of an
output: f(h) ≤ f(k) + max_y w_y·(h − k) ≤ f(k) + c·(h − k) + max_y ‖w_y − c‖ ‖h − k‖ for any c (the second step is
Cauchy–Schwarz). So a row whose sum was once taken at k, whatever its text was then, bounds the same row's sum at every
later step by two products of length D. Rounding is counted by its worst case, so that the *computed* sum is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PIECE = 1024
"""Rows of the head at a time, while its reach is measured."""
ROUGH = 2.0**-7
"""Relative error of a product of inputs that were rounded to bfloat16 (2^-9 each), twice over."""


@dataclass(frozen=True)
class Reach:
    """What a head's token rows w_y say of f: ``centre_D`` their mean c, ``radius`` max ‖w_y − c‖, ``norm`` ≥ max ‖w_y‖,
    ``origin`` f(0), ``rounding`` relative error of one output. Tensors of the head's type on its device."""

    centre_D: Tensor
    radius: Tensor
    norm: Tensor
    origin: Tensor
    rounding: float

    @classmethod
    def of(cls, head: nn.Linear, vocab: int, rough: bool) -> Reach:
        """Of the first ``vocab`` rows; ``rough``: products may round their inputs to bfloat16."""
        weight_VD = head.weight[:vocab]
        centre_D = weight_VD.mean(0)

        pieces = [torch.linalg.vector_norm(w_ND - centre_D, dim=-1).amax() for w_ND in weight_VD.split(PIECE)]
        radius = torch.stack(pieces).amax() * (1 + torch.finfo(weight_VD.dtype).eps * weight_VD.shape[1])
        origin = weight_VD.new_zeros(vocab) if head.bias is None else head.bias[:vocab]
        rounding = (weight_VD.shape[1] + 2) * torch.finfo(weight_VD.dtype).eps + (ROUGH if rough else 0.0)
        return cls(centre_D, radius, radius + torch.linalg.vector_norm(centre_D), origin.logsumexp(0), rounding)

    def blank(self, shape: torch.Size) -> Tensor:
        """Notes of rows whose sum was never taken, [*shape, D + 1]: at h = 0 it is known."""
        note = torch.cat([torch.zeros_like(self.centre_D), self.origin.reshape(1)])
        return note.repeat(*shape, 1)

    def bound(self, h_RD: Tensor, note_RK: Tensor) -> Tensor:
        """An upper bound of f at features ``h_RD`` as it is computed, float64 [R], from notes (k, f(k)) [R, D + 1]."""
        h_RD = h_RD.to(note_RK.dtype)
        at_RD, f_R = note_RK[:, :-1], note_RK[:, -1].double()
        moved_RD = h_RD - at_RD
        size_R = torch.linalg.vector_norm(h_RD, dim=-1) + torch.linalg.vector_norm(at_RD, dim=-1)
        most_R = moved_RD @ self.centre_D + self.radius * torch.linalg.vector_norm(moved_RD, dim=-1)
        return f_R + most_R.double() + self.rounding * (size_R * self.norm + f_R.abs() + 1.0).double()
