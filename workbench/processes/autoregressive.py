"""Left-to-right modelling as a process: the same blocks, the same rows kernel, an exact likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samplers.base import NextTokenView, View
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.kernels.rows import fused_rows, gather_features, padded_rows, rows_values
from workbench.processes.base import BUCKETS, Bound, Continuation, Loss, Noised, Process
from workbench.processes.continuations import guessed
from workbench.processes.objectives import NextTokenRows
from workbench.processes.views import LeftToRightView, device_of, features

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.core.node import Node


@Process.register("autoregressive")
class Autoregressive(Process):
    """Next-token prediction of whole blocks: reads [eos, x_0 … x_{L−2}], predicts x_0 … x_{L−1}.

    The end-of-document token stands before each block, so that log p covers every token of it: the same tokens of
    the same blocks that a diffusion process bounds.
    """

    sees = frozenset({"left"})
    offers: ClassVar[type[View]] = NextTokenView

    def __init__(self, vocab: int, eos: int, length: int) -> None:
        """``vocab`` tokens in blocks of ``length``; ``eos`` stands before a block."""
        self.vocab, self.eos, self.length = vocab, eos, length
        self.states = self.outputs = vocab
        self.rows = NextTokenRows()

    def prepare(
        self, x0_BL: npt.NDArray[np.int64], seq_B: npt.NDArray[np.int64], step: int, rng: Rng
    ) -> Noised:
        """Shift right by one; every position is a row."""
        batch, length = x0_BL.shape
        x0 = torch.from_numpy(np.ascontiguousarray(x0_BL))
        x_BL = self.shifted(x0)
        count = batch * length
        rows_R = torch.zeros(padded_rows(count, self.device), dtype=torch.long)
        rows_R[:count] = torch.arange(count)
        weight_R = torch.zeros(len(rows_R))
        weight_R[:count] = 1.0
        return Noised(
            x_BL=x_BL,
            sigma_B=None,
            rows_R=rows_R,
            x_R=x_BL.reshape(-1)[rows_R],
            target_R=x0.reshape(-1)[rows_R],
            sigma_R=None,
            weight_R=weight_R,
            bucket_R=torch.zeros_like(rows_R),
            tokens=count,
            bucket_tokens=torch.zeros(BUCKETS, dtype=torch.long),
        )

    def shifted(self, x0_BL: Tensor) -> Tensor:
        """What the network reads to predict ``x0_BL``: the end-of-document token, then all tokens but the last."""
        return torch.cat([torch.full_like(x0_BL[:, :1], self.eos), x0_BL[:, :-1]], dim=1)

    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """Cross-entropy, nats per token."""
        return shell(self._loss, noised)

    def _loss(self, net: Backbone, noised: Noised) -> Loss:
        h_RD = gather_features(features(net, noised.x_BL, None), noised.rows_R)
        context = {"target": noised.target_R}
        total, _, _ = fused_rows(
            net.head, h_RD, noised.weight_R, self.rows, context, self.chunk, over=noised.tokens
        )
        return Loss(total)

    @torch.no_grad()
    def nll(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Bound:
        """Exact −log p of each block; ``draws`` changes nothing."""
        batch, length = x0_BL.shape
        noised = self.prepare(x0_BL, seq_B, 0, rng).to(device_of(shell))
        nats_R = shell(self._nats, noised)
        nats_B = nats_R[: noised.tokens].double().reshape(batch, length).sum(-1)
        return Bound(nats_B.cpu().numpy()[:, None], "exact")

    def _nats(self, net: Backbone, noised: Noised) -> Tensor:
        h_RD = gather_features(features(net, noised.x_BL, None), noised.rows_R)
        return rows_values(net.head, h_RD, self.rows, {"target": noised.target_R}, self.chunk)[0]

    @property
    def reach(self) -> int:
        """One more than a block: the last token is told, never read."""
        return self.length + 1

    @torch.no_grad()
    def continuation(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        given: int,
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Continuation:
        """Exact; ``draws`` changes nothing. At least one token is given (``eos`` where nothing else stands before).

        Raises:
            WorkbenchError: nothing is given.
        """
        if given < 1:
            raise WorkbenchError("a left-to-right model reads one token at least before a continuation: give it eos")
        batch, length = x0_BL.shape
        x0 = torch.from_numpy(np.ascontiguousarray(x0_BL)).to(device_of(shell))
        told_R = (torch.arange(batch)[:, None] * (length - 1) + torch.arange(given - 1, length - 1)).reshape(-1)
        nats_R, right_R = shell(guessed, self.rows, x0[:, :-1], None, told_R, x0[:, given:].reshape(-1), self.chunk)
        nats_B = nats_R.reshape(batch, -1).double().sum(-1).cpu().numpy()
        return Continuation(Bound(nats_B[:, None], "exact"), right_R.reshape(batch, -1).cpu().numpy())

    @classmethod
    def says_unigram(cls, node: Node) -> bool:
        """Always."""
        return True

    def unigram_bias(self, share_V: Tensor) -> Tensor | None:
        """log share."""
        return share_V.log()

    def view(self, shell: nn.Module) -> View:
        """The network as a next-token law."""
        net = shell(lambda net: net)
        return LeftToRightView(shell, net, self.vocab, self.eos, self.length)
