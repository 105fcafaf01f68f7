"""The exact score of a Markov chain's texts, by forward-backward: strong dependence at any length, in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.base import Graph, Noise
from samplers.base import HintedView, Look


class ChainView(HintedView):
    """The exact score of a chain: first token by ``start_V``, each next one by the row of ``step_VV``, all positive."""

    def __init__(self, graph: Graph, noise: Noise, start_V: Tensor, step_VV: Tensor, length: int) -> None:
        """``step_VV[v, w]``: P(w after v)."""
        self.graph, self.noise, self.chunk = graph, noise, 1 << 12
        self.start_V, self.step_VV = start_V.double(), step_VV.double()
        self.device, self.vocab, self.length, self.calls = start_V.device, graph.vocab, length, 0

    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """What the exact score says; ``told_B`` makes no difference to it."""
        return ChainLook(self, x_BL, sigma_B)


class ChainLook(Look):
    """One look of a `ChainView`."""

    def __init__(self, view: ChainView, x_BL: Tensor, sigma_B: Tensor) -> None:
        """Nothing is computed yet."""
        self.view, self.x_BL, self.sigma_B = view, x_BL, sigma_B
        self._clean_BLV: Tensor | None = None

    def clean(self, rows_R: Tensor) -> Tensor:
        """See the base; float64."""
        if self._clean_BLV is None:
            self.view.calls += 1
            self._clean_BLV = self._smoothed()
        return self._clean_BLV.flatten(0, 1)[rows_R].log()

    def others(self, rows_R: Tensor) -> Tensor:
        """The same: an exact law knows of the others alone."""
        return self.clean(rows_R)

    def log_score(self, rows_R: Tensor) -> Tensor:
        """See the base; float64."""
        view = self.view
        law_RS = F.pad(self.clean(rows_R).exp(), (0, view.graph.states - view.vocab))
        sigma_R = self.sigma_B[rows_R // self.x_BL.shape[1]]
        log_p_RS = view.graph.push(law_RS, torch.zeros_like(sigma_R), sigma_R).log()
        return log_p_RS - log_p_RS.gather(-1, self.x_BL.reshape(-1)[rows_R].unsqueeze(-1))

    def select(self, parent_B: Tensor) -> Look:
        """See the base."""
        return ChainLook(self.view, self.x_BL[parent_B], self.sigma_B[parent_B])

    def _smoothed(self) -> Tensor:
        """P(clean token | states of the other positions), [B, L, V]: what comes from the left times from the right."""
        view, (batch, length) = self.view, self.x_BL.shape
        sigma_R = self.sigma_B.repeat_interleave(length)
        seen_RS = view.graph.kernel_into(self.x_BL.reshape(-1), torch.zeros_like(sigma_R), sigma_R)
        seen_BLV = seen_RS[:, : view.vocab].reshape(batch, length, -1)
        left, right = [view.start_V.expand(batch, -1)], [torch.ones(batch, view.vocab, dtype=torch.float64)]
        for at in range(length - 1):
            left.append(_normal((left[-1] * seen_BLV[:, at]) @ view.step_VV))
            right.append(_normal((right[-1] * seen_BLV[:, length - 1 - at]) @ view.step_VV.T))
        return _normal(torch.stack(left, 1) * torch.stack(right[::-1], 1))


def _normal(p: Tensor) -> Tensor:
    return p / p.sum(-1, keepdim=True)
