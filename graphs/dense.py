"""Graphs given by a rate matrix: any Markov chain on the tokens, as long as its end law is unique.

``RateMatrix`` does everything from the matrix, numerically exact in float64; a new graph is the matrix alone
(see ``Ring``). Cost grows with S³ per distinct noise: meant for small vocabularies, and as the yardstick of
closed forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphs.base import Graph, expand_rows
from graphs.rates import check_rates, exponential, generator, inverse, inverse_cdf, read_matrix, stationary
from workbench.core.bounds import Count, NonNegative, Positive
from workbench.core.errors import Problem, WorkbenchError

if TYPE_CHECKING:
    from workbench.core.spec import Node


EPS = torch.finfo(torch.float64).eps


class RateMatrix(Graph):
    """A graph made of a dense rate matrix Q [S, S]: Q[y, x] the rate x → y, columns sum to zero, dp/dσ = Q p.

    No mask; every row is live. A subclass hands its matrix to ``__init__`` and is done.
    """

    usual: ClassVar[Mapping[str, Any]] = {"noise": {"type": "geometric"}, "readout": {"type": "plain"}}

    def __init__(self, vocab: int, rates: npt.ArrayLike) -> None:
        """Check ``rates`` and find its end law.

        Raises:
            WorkbenchError: not a ``vocab`` × ``vocab`` matrix of finite rates, a negative rate, a column
                that does not sum to zero, or more than one end law.
        """
        self.vocab = vocab
        checked = check_rates(rates)
        if len(checked) != vocab:
            raise WorkbenchError(
                f"the rate matrix has {len(checked)} states, the tokenizer {vocab} tokens: make them equal"
            )
        self.rates = torch.from_numpy(checked)
        self.end_law = torch.from_numpy(stationary(checked))

    def live(self, x: Tensor) -> Tensor:
        """Every position."""
        return torch.ones_like(x, dtype=torch.bool)

    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        """Inverse CDF of column x0 of exp(σQ)."""
        sigma = expand_rows(sigma, x0).expand(x0.shape).reshape(-1)
        token, number = x0.reshape(-1), u.reshape(-1)

        def draw(kernel_SS: Tensor, rows: Tensor) -> Tensor:
            return inverse_cdf(kernel_SS.T[token[rows]], number[rows])

        return self._by_noise(sigma, draw, torch.empty_like(token)).reshape(x0.shape)

    def prior(self, u: Tensor) -> Tensor:
        """Inverse CDF of the stationary law."""
        law_S = self.end_law.to(u.device)
        return inverse_cdf(law_S.expand(u.numel(), -1), u.reshape(-1)).reshape(u.shape)

    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """KL of column x0 of exp(σQ) to the stationary law, numerically exact.

        Infinite where the end law is 0 on a state that x_σ may still be in (a chain with transient states).
        """
        sigma_R = expand_rows(sigma, x0).expand(x0.shape).reshape(-1)
        token, end_S = x0.reshape(-1), self.end_law.to(x0.device)

        def divergence(kernel_SS: Tensor, rows: Tensor) -> Tensor:
            law_S = kernel_SS.T
            # Σ p ln(p/π) − p + π: every term ≥ 0, so nothing cancels near the end law
            terms = torch.xlogy(law_S, law_S / end_S) - law_S + end_S
            terms = torch.where((law_S == 0) & (end_S == 0), 0.0, terms)
            return terms.sum(-1).clamp_min(0)[token[rows]].to(sigma.dtype)

        return self._by_noise(sigma_R, divergence, torch.empty_like(sigma_R)).reshape(x0.shape)

    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Rows of Q."""
        return self.rates.to(x_R.device)[x_R].to(sigma_R.dtype)

    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Rows of exp((to − from) Q)."""
        out_RS = torch.empty((*x_R.shape, self.states), dtype=to_R.dtype, device=x_R.device)
        return self._by_noise(to_R - from_R, lambda k_SS, rows: k_SS[x_R[rows]].to(out_RS.dtype), out_RS)

    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """exp((to − from) Q) v; backwards as far as numbers of v's type tell (`inverse`)."""

        def carry(kernel_SS: Tensor, rows: Tensor) -> Tensor:
            return (v_RS[rows].double() @ kernel_SS.T).to(v_RS.dtype)

        rounding = torch.finfo(v_RS.dtype).eps
        return self._by_noise(to_R - from_R, carry, torch.empty_like(v_RS), rounding)

    def _by_noise(
        self, delta_R: Tensor, of: Callable[[Tensor, Tensor], Tensor], out: Tensor, rounding: float = EPS
    ) -> Tensor:
        """Fill ``out`` by groups of rows with one Δ: ``of(exp(ΔQ), rows)``. One exponential a distinct Δ.

        ``rounding``: relative, of what a kernel with Δ < 0 is applied to.
        """
        deltas, group_R = torch.unique(delta_R.double(), return_inverse=True)
        rates_SS, end_S = self.rates.to(delta_R.device), self.end_law.to(delta_R.device)
        backwards = int((deltas < 0).sum())  # the first ones: they are sorted
        kernels = torch.cat(
            [
                inverse(rates_SS, -deltas[:backwards], end_S, rounding),
                exponential(rates_SS, deltas[backwards:]),
            ]
        )
        for number, kernel_SS in enumerate(kernels):
            rows = (group_R == number).nonzero().squeeze(-1)
            out[rows] = of(kernel_SS, rows)
        return out


@Graph.register("dense")
class Dense(RateMatrix):
    """Any rate matrix: Q[y][x] the rate from token x to token y, columns sum to zero (dp/dσ = Q p).

    Settings:
        rates: the matrix, row by row
        file: the matrix in a file instead (relative to the working directory): .npy, .npz (of one array), .csv, or
        .yaml (a list of rows)
    """

    def __init__(self, vocab: int, rates: list[list[float]] | None = None, file: str | None = None) -> None:
        """One of ``rates`` and ``file``; as many states as tokens."""
        if (rates is None) == (file is None):
            raise WorkbenchError("graph dense: give either rates or file")
        super().__init__(vocab, read_matrix(file) if file is not None else rates)  # type: ignore[arg-type]

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A chain of five states without symmetry."""
        return {"rates": generator((np.arange(1.0, 26.0).reshape(5, 5) % 7 + 0.5) / 10).tolist()}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Exactly one source, and rates in it: a bad file is told before a run is made."""
        yield from super().misfits(node, root)
        rates, file = node.settings.get("rates"), node.settings.get("file")
        if (rates is None) == (file is None):
            yield Problem(node.path, "graph dense needs either rates or file (not both)")
            return
        try:
            given: Any = rates if file is None else read_matrix(file)
            stationary(check_rates(given))
        except WorkbenchError as error:
            yield Problem(f"{node.path}.{'rates' if file is None else 'file'}", str(error))


@Graph.register("banded")
class Banded(RateMatrix):
    """Tokens in a circle that step to any of ``width`` neighbours on either side: between ``ring`` and ``uniform``.

    Settings:
        width: how far a step may go
        forward: rate to the next token
        backward: rate to the one before
        decay: a step one token longer is this much rarer (1: all as frequent)
    """

    def __init__(
        self, vocab: int, width: Count = 2, forward: Positive = 1.0, backward: NonNegative = 1.0, decay: Positive = 0.5
    ) -> None:
        """``width`` 1 is ``ring``; steps longer than half the circle go round it and add up."""
        step = np.roll(np.eye(vocab), 1, axis=0)
        paces = [(decay ** (d - 1), np.linalg.matrix_power(step, d)) for d in range(1, width + 1)]
        super().__init__(vocab, generator(sum(pace * (forward * far + backward * far.T) for pace, far in paces)))


@Graph.register("ring")
class Ring(RateMatrix):
    """Tokens in a circle, by their number: each steps to its two neighbours (a graph is its matrix).

    Settings:
        forward: rate to the next token
        backward: rate to the one before
    """

    def __init__(self, vocab: int, forward: Positive = 1.0, backward: NonNegative = 0.5) -> None:
        """``forward`` ≠ ``backward`` makes a chain that is not reversible."""
        step = np.roll(np.eye(vocab), 1, axis=0)
        super().__init__(vocab, generator(forward * step + backward * step.T))
