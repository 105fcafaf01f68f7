"""Muon on matrices of which each process holds some rows.

Newton–Schulz needs a whole matrix. What is known: bring every matrix together in every process (Distributed Muon,
Liu et al. 2025, "Muon is scalable for LLM training"), or give each matrix one owner, who gets its rows, turns it and
sends the rows back (Dion's Muon, Ahn et al. 2025). Of N numbers in W processes the first moves N numbers into each
process and computes everything W times; the second moves 2 N / W and computes it once: the second is taken. Rows travel
in bfloat16, which loses nothing: the iteration begins by rounding to it and gives it out. torch.optim.Muon itself runs
on DTensors (2.13), at 11 to 15 collectives a matrix and with partial products rounded before they are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from workbench.train.pieces import local, rows_of


class CutMuon(torch.optim.Muon):
    """``torch.optim.Muon`` for parameters that are cut along their rows: the same update to the last bit.

    Matrices go in rounds of as many as there are processes, one to each, the largest first, so that those of a round
    are alike and no process holds more than one of them whole.
    """

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """See ``torch.optim``. Every process calls it, with gradients of the same parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, params, grads, momenta)
            members = sorted(zip(params, grads, momenta, strict=True), key=lambda one: -one[0].numel())
            world = members[0][0].device_mesh.size() if members else 1  # type: ignore[attr-defined]
            for start in range(0, len(members), world):
                self._round(group, members[start : start + world])
        return loss

    def _round(self, group: dict[str, Any], members: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Step one matrix of each process."""
        matrices = [parameter for parameter, _, _ in members]
        rows = [self._ahead(group, local(grad), local(momentum)) for _, grad, momentum in members]
        turned = _turned(matrices, rows, lambda whole: self._orthogonal(group, whole))
        for matrix, rows_of_it in zip(matrices, turned, strict=True):
            held = local(matrix)
            held.mul_(1 - group["lr"] * group["weight_decay"])
            held.add_(rows_of_it, alpha=-_adjust_lr(group["lr"], group["adjust_lr_fn"], matrix.shape))

    @staticmethod
    def _ahead(group: dict[str, Any], grad: Tensor, momentum: Tensor) -> Tensor:
        """The rows that go into the iteration, in bfloat16; the momentum takes the gradient in."""
        momentum.lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        return update.bfloat16()

    @staticmethod
    def _orthogonal(group: dict[str, Any], whole: Tensor) -> Tensor:
        return _zeropower_via_newtonschulz(whole, group["ns_coefficients"], group["ns_steps"], group["eps"])


def _turned(matrices: Sequence[Any], rows: Sequence[Tensor], turn: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``turn`` of whole matrices, number i in process i: from everybody's rows of them, to everybody's rows of it."""
    mesh = matrices[0].device_mesh
    rank, world, peers = mesh.get_local_rank(), mesh.size(), mesh.get_group()
    mine = [piece.numel() for piece in rows] + [0] * (world - len(rows))
    own = matrices[rank].shape if rank < len(matrices) else (0, 0)
    theirs = [len(range(own[0])[rows_of(peer, world, own[0])]) * own[1] for peer in range(world)]
    sent = torch.cat([piece.reshape(-1) for piece in rows])
    whole = sent.new_empty(sum(theirs))
    dist.all_to_all_single(whole, sent, theirs, mine, group=peers)
    if rank < len(matrices):
        whole = turn(whole.view(own)).contiguous().view(-1)
    back = torch.empty_like(sent)
    dist.all_to_all_single(back, whole, mine, theirs, group=peers)
    return [piece.view_as(held) for piece, held in zip(back.split(mine[: len(rows)]), rows, strict=True)]
