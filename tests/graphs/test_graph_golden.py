"""Parity with numbers computed by the official SEDD code (float32): loss, analytic step, reverse rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.base import Graph, Noise
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform

FILES = Path(__file__).parents[1] / "data_files"
CASES = {"absorb": (Absorbing, LogLinear(1e-3)), "uniform": (Uniform, Geometric(1e-3, 8.0))}
Golden = tuple[Graph, Noise, dict[str, torch.Tensor]]


@pytest.fixture(params=CASES)
def golden(request: pytest.FixtureRequest) -> Golden:
    """(graph, noise, arrays); rows are flat [B·L]."""
    made, noise = CASES[request.param]
    with np.load(FILES / f"sedd_{request.param}_d32.npz") as stored:
        names = [name for name in stored.files if not name.startswith("state/")]
        arrays = {name: torch.from_numpy(np.array(stored[name])) for name in names}
    return made(int(arrays["meta"][0])), noise, arrays


def rows(golden: Golden, *names: str) -> list[torch.Tensor]:
    """Arrays by position: [B, L, …] flattened, [B] repeated along L."""
    length = golden[2]["x0"].shape[1]
    out = []
    for name in names:
        value = golden[2][name]
        out.append(value.repeat_interleave(length) if value.dim() == 1 else value.flatten(0, 1))
    return out


def test_noise(golden: Golden) -> None:
    _, noise, arrays = golden
    torch.testing.assert_close(noise.total(arrays["t"]), arrays["sigma"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(noise.rate(arrays["t"]), arrays["dsigma"], rtol=1e-5, atol=1e-6)


def test_score_entropy_and_loss(golden: Golden) -> None:
    graph, _, arrays = golden
    log_s_RS, x_R, x0_R, sigma_R, truth_R, rate_R = rows(
        golden, "log_score", "xt", "x0", "sigma", "score_entropy", "dsigma"
    )
    nats_R = graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R)
    torch.testing.assert_close(nats_R, truth_R, rtol=1e-5, atol=1e-5)
    loss_B = (rate_R * nats_R).reshape(arrays["x0"].shape).sum(-1)
    torch.testing.assert_close(loss_B, arrays["loss"], rtol=1e-5, atol=1e-4)
    quick_R, _ = graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R)
    torch.testing.assert_close(quick_R, truth_R, rtol=1e-5, atol=1e-5)


def test_analytic_step(golden: Golden) -> None:
    graph, noise, arrays = golden
    length = arrays["x0"].shape[1]
    log_s_RS, x_R, sigma_R, truth_RS = rows(golden, "log_score", "xt", "sigma", "analytic_probs")
    next_R = noise.total(arrays["t"] - arrays["dt"]).repeat_interleave(length)
    law_RS = graph.reverse_from_score(log_s_RS, x_R, sigma_R, next_R)
    torch.testing.assert_close(law_RS, truth_RS, rtol=1e-5, atol=1e-5)


def test_reverse_rate(golden: Golden) -> None:
    """Per unit of σ: Q(x, y) s_y off the diagonal, minus their sum at the own entry."""
    graph, _, _ = golden
    log_s_RS, x_R, sigma_R, truth_RS = rows(golden, "log_score", "xt", "sigma", "reverse_rate")
    rate_RS = (graph.rate_into(x_R, sigma_R) * log_s_RS.exp()).scatter(-1, x_R.unsqueeze(-1), 0.0)
    rate_RS = rate_RS.scatter(-1, x_R.unsqueeze(-1), -rate_RS.sum(-1, keepdim=True))
    torch.testing.assert_close(rate_RS, truth_RS, rtol=1e-5, atol=1e-5)
