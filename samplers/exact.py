"""Views whose scores are exact, in float64: enumerable joint laws, independent positions of any vocabulary.

They stand in for a network: what a sampler then gets wrong is the sampler's own doing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphs.base import Graph, Noise
from samplers.base import HintedView, Look, NextTokenView, Stats
from workbench.core.errors import WorkbenchError

CPU = torch.device("cpu")


class ExactView(HintedView):
    """The exact score of a joint law p0 over V^L, all of it positive; S^L numbers a noise level."""

    def __init__(self, graph: Graph, noise: Noise, joint: Tensor) -> None:
        """``joint``: p0, one axis of ``graph.vocab`` a position, summing to one.

        Raises:
            WorkbenchError: an axis of another size, or a probability that is not positive (its score is
            infinite).
        """
        if any(size != graph.vocab for size in joint.shape) or not bool((joint > 0).all()):
            raise WorkbenchError(f"an exact view needs a positive law, {graph.vocab} tokens an axis")
        self.graph, self.noise, self.chunk = graph, noise, 1 << 14
        self.joint = joint.double() / joint.double().sum()
        self.device, self.vocab, self.length, self.calls = CPU, graph.vocab, joint.dim(), 0
        self._tables: dict[float, tuple[Tensor, list[Tensor]]] = {}

    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> ExactLook:
        """What the exact score says; ``told_B`` makes no difference to it."""
        return ExactLook(self, x_BL, sigma_B)

    def kernel(self, sigma: float) -> Tensor:
        """P(state at σ | clean token), [S, V]."""
        states_S = torch.arange(self.graph.states)
        to_S = torch.full((self.graph.states,), sigma, dtype=torch.float64)
        return self.graph.kernel_into(states_S, torch.zeros_like(to_S), to_S)[:, : self.vocab]

    def tables(self, sigma: float) -> tuple[Tensor, list[Tensor]]:
        """At σ: the joint law over S^L; and for each position that of its clean token with the others' states.

        The position's clean token is the last axis of its table. The last few noise levels are kept.
        """
        if sigma not in self._tables:
            kernel_SV = self.kernel(sigma)
            if len(self._tables) > 8:
                self._tables.clear()
            self._tables[sigma] = (
                _noised(self.joint, kernel_SV, -1),
                [_noised(self.joint, kernel_SV, axis).movedim(axis, -1) for axis in range(self.length)],
            )
        return self._tables[sigma]


@dataclass
class ExactLook(Look):
    """One look of an `ExactView`."""

    view: ExactView
    x_BL: Tensor
    sigma_B: Tensor
    asked: bool = False

    def log_score(self, rows_R: Tensor) -> Tensor:
        """See the base; float64."""
        self._ask()
        out_RS = torch.empty(rows_R.numel(), self.view.graph.states, dtype=torch.float64)
        for pick_P, axis, sigma, x_PL in self._alike(rows_R):
            law = self.view.tables(sigma)[0].movedim(axis, -1)
            log_p_PS = _given(law, x_PL, axis).log()
            out_RS[pick_P] = log_p_PS - log_p_PS.gather(-1, x_PL[:, axis : axis + 1])
        return out_RS

    def clean(self, rows_R: Tensor) -> Tensor:
        """See the base; float64."""
        self._ask()
        out_RV = torch.empty(rows_R.numel(), self.view.vocab, dtype=torch.float64)
        for pick_P, axis, sigma, x_PL in self._alike(rows_R):
            p_PV = _given(self.view.tables(sigma)[1][axis], x_PL, axis)
            out_RV[pick_P] = (p_PV / p_PV.sum(-1, keepdim=True)).log()
        return out_RV

    def others(self, rows_R: Tensor) -> Tensor:
        """The same: an exact law knows of the others alone."""
        return self.clean(rows_R)

    def select(self, parent_B: Tensor) -> ExactLook:
        """See the base."""
        return ExactLook(self.view, self.x_BL[parent_B], self.sigma_B[parent_B], self.asked)

    def _ask(self) -> None:
        """Count a network's call where a network would run: at the first question."""
        if not self.asked:
            self.view.calls += 1
            self.asked = True

    def _alike(self, rows_R: Tensor) -> list[tuple[Tensor, int, float, Tensor]]:
        """Rows by position and noise: (their indices, position, σ, the sequences they stand in)."""
        item_R, axis_R = rows_R // self.x_BL.shape[1], rows_R % self.x_BL.shape[1]
        found = []
        for axis in torch.unique(axis_R).tolist():
            for sigma in torch.unique(self.sigma_B).tolist():
                pick_P = torch.nonzero((axis_R == axis) & (self.sigma_B[item_R] == sigma)).squeeze(-1)
                if pick_P.numel():
                    found.append((pick_P, axis, sigma, self.x_BL[item_R[pick_P]]))
        return found


class IidView(HintedView):
    """The exact score of independent positions with one law over the vocabulary, however large."""

    def __init__(self, graph: Graph, noise: Noise, p_V: Tensor, length: int, chunk: int = 64) -> None:
        """``p_V``: the law of every clean token, positive; its device is the view's."""
        self.graph, self.noise, self.chunk = graph, noise, chunk
        self.log_p_V = (p_V.double() / p_V.double().sum()).log()
        self.device, self.vocab, self.length, self.calls = p_V.device, graph.vocab, length, 0

    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> IidLook:
        """What the exact score says; ``told_B`` makes no difference to it."""
        return IidLook(self, x_BL, sigma_B)


@dataclass
class IidLook(Look):
    """One look of an `IidView`; all sequences at one σ."""

    view: IidView
    x_BL: Tensor
    sigma_B: Tensor
    log_p_S: Tensor | None = None

    def log_score(self, rows_R: Tensor) -> Tensor:
        """See the base; float64."""
        log_p_S = self._noised()
        return log_p_S - log_p_S[self.x_BL.reshape(-1)[rows_R]].unsqueeze(-1)

    def log_total(self, rows_R: Tensor, vocab: int) -> Tensor:
        """See the base: the same sum for all rows, but for their own state."""
        log_p_S = self._noised()
        return log_p_S[:vocab].logsumexp(-1) - log_p_S[self.x_BL.reshape(-1)[rows_R]]

    def clean(self, rows_R: Tensor) -> Tensor:
        """See the base; float64."""
        self._noised()
        return self.view.log_p_V.repeat(rows_R.numel(), 1)

    def others(self, rows_R: Tensor) -> Tensor:
        """The same: positions are independent."""
        return self.clean(rows_R)

    def stats(self, rows_R: Tensor, chunk: int) -> Stats:
        """The same for all rows: one row's, repeated."""
        one = super().stats(rows_R[:1], chunk)
        return Stats(*(value.expand(rows_R.numel()) for value in vars(one).values()))

    def select(self, parent_B: Tensor) -> IidLook:
        """See the base."""
        return IidLook(self.view, self.x_BL[parent_B.to(self.x_BL.device)], self.sigma_B[parent_B], self.log_p_S)

    def _noised(self) -> Tensor:
        """log law of a state at σ, [S]; counts a network's call where a network would run."""
        if self.log_p_S is None:
            self.view.calls += 1
            sigma_1 = self.sigma_B[:1].to(self.view.device, non_blocking=True)
            p_1S = torch.nn.functional.pad(self.view.log_p_V.exp(), (0, self.view.graph.states - self.view.vocab))
            self.log_p_S = self.view.graph.push(p_1S[None], torch.zeros_like(sigma_1), sigma_1)[0].log()
        return self.log_p_S


class ExactNextToken(NextTokenView):
    """The exact next-token law of a joint law p0 over V^L; its cache is the tokens so far."""

    def __init__(self, joint: Tensor) -> None:
        """``joint``: p0, one axis of V a position."""
        self.joint = joint.double() / joint.double().sum()
        self.device, self.vocab, self.length, self.calls = CPU, joint.shape[0], joint.dim(), 0

    def start(self, batch: int) -> Any:
        """No tokens yet."""
        return torch.empty(batch, 0, dtype=torch.long)

    def next(self, x_Bn: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """log p(token | tokens before it), [B, V]."""
        self.calls += 1
        x_BL = torch.cat([cache, x_Bn], -1)
        seen = x_BL.shape[1]
        p_BV = self.joint.reshape(*self.joint.shape[: seen + 1], -1).sum(-1)[tuple(x_BL.unbind(-1))]
        return (p_BV / p_BV.sum(-1, keepdim=True)).log().expand(len(x_BL), -1), x_BL


def zipf(vocab: int, offset: float = 2.7, exponent: float = 1.07) -> Tensor:
    """A law like that of words: weights 1/(rank + offset)^exponent, ranks from 1, normalised, [V] float64."""
    weight_V = (torch.arange(1, vocab + 1, dtype=torch.float64) + offset) ** -exponent
    return weight_V / weight_V.sum()


def _noised(joint: Tensor, kernel_SV: Tensor, clean_axis: int) -> Tensor:
    """``joint`` with every axis noised but ``clean_axis`` (−1: every one)."""
    for axis in range(joint.dim()):
        if axis != clean_axis:
            joint = torch.tensordot(kernel_SV, joint, dims=([1], [axis])).movedim(0, axis)
    return joint


def _given(table: Tensor, x_PL: Tensor, axis: int) -> Tensor:
    """Rows of a table whose last axis is that of position ``axis``, at the states of the other positions."""
    others = tuple(x_PL[:, other] for other in range(x_PL.shape[1]) if other != axis)
    return table[others].expand(len(x_PL), -1)
