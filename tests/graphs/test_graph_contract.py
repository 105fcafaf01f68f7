"""Every registered graph and noise schedule meets its contract; broken ones are told apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphs.absorbing import Absorbing
from graphs.base import Graph, Noise
from graphs.contract import CHECKS
from graphs.dense import Ring
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from workbench.core import index

index.import_parts()


@pytest.mark.parametrize("name", Graph.names())
def test_graphs_meet_their_contract(name: str) -> None:
    assert CHECKS["graph"](Graph.lookup(name)) == []


@pytest.mark.parametrize("name", Noise.names())
def test_schedules_meet_their_contract(name: str) -> None:
    assert CHECKS["noise"](Noise.lookup(name)) == []


def test_the_shipped_parts_are_registered() -> None:
    assert {"absorbing", "uniform", "mixture", "dense", "banded", "ring"} <= set(Graph.names())
    assert {"loglinear", "geometric", "cosine", "polynomial", "clipped"} <= set(Noise.names())


class WrongKernel(Uniform):
    """Forgets that a redrawn token may be itself."""

    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        K_RS = super().kernel_into(x_R, from_R, to_R)
        return K_RS.scatter(-1, x_R.unsqueeze(-1), torch.exp(from_R - to_R).unsqueeze(-1))


class WrongLoss(Absorbing):
    """Counts the mask's own entry."""

    def score_entropy(self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor) -> Tensor:
        return super().score_entropy(log_score_RS, x_R, x0_R, sigma_R) + log_score_RS[..., -1].exp()


class WrongGradient(Ring):
    """Twice the gradient."""

    def score_entropy_grad(
        self, log_score_RS: Tensor, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        nats_R, grad_RS = super().score_entropy_grad(log_score_RS, x_R, x0_R, sigma_R)
        return nats_R, 2 * grad_RS


class WrongPace(Absorbing):
    """Leaves twice as often as the law says."""

    def leave(self, from_R: Tensor, to_R: Tensor) -> Tensor:
        return (2 * super().leave(from_R, to_R)).clamp_max(1)

    reverse_from_clean = Graph.reverse_from_clean


class WrongDraw(Uniform):
    """Redraws too rarely."""

    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        return super().corrupt(x0, 0.9 * sigma, u)


class Unbuilt(Uniform):
    """Needs a setting and gives no example."""

    def __init__(self, vocab: int, depth: int) -> None:
        super().__init__(vocab * depth)


class WrongRate(LogLinear):
    """The rate of another schedule."""

    def rate(self, t: Tensor) -> Tensor:
        return 1 / (1 - 0.99 * t)


class Falling(LogLinear):
    """Runs backwards."""

    def total(self, t: Tensor) -> Tensor:
        return super().total(1 - t)


@pytest.mark.parametrize(
    "part, kind, word",
    [
        (WrongKernel, "graph", "kernels"),
        (WrongLoss, "graph", "score entropy"),
        (WrongGradient, "graph", "score_entropy_grad"),
        (WrongPace, "graph", "blindness"),
        (WrongDraw, "graph", "corrupt"),
        (Unbuilt, "graph", "cannot be built"),
        (WrongRate, "noise", "rate"),
        (Falling, "noise", "grows"),
    ],
)
def test_a_broken_part_is_told(part: type, kind: str, word: str) -> None:
    assert any(word in problem for problem in CHECKS[kind](part))
