"""The neighbour graph: its kernels against the dense graph's of the same matrix, its neighbours, its refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graphs.contract import CHECKS
from graphs.dense import Dense
from graphs.neighbours import Neighbours, near
from workbench.core.errors import WorkbenchError
from workbench.recipe import load

V = 24


def made(**settings: float) -> Neighbours:
    rows_VD = np.random.default_rng(0).normal(size=(V, 4))
    return Neighbours(V, vectors=rows_VD.tolist(), k=3, **settings)  # type: ignore[arg-type]


def test_it_meets_the_contract() -> None:
    assert CHECKS["graph"](Neighbours) == []


@pytest.mark.parametrize("far", [0.02, 0.5])
@pytest.mark.parametrize("low,high", [(0.0, 1e-4), (0.0, 0.3), (0.2, 4.0), (0.0, 60.0)])
def test_kernels_are_those_of_the_matrix(far: float, low: float, high: float) -> None:
    """To 1e-6 of each probability, the small ones too; backwards it undoes itself."""
    graph = made(far=far)
    dense = Dense(V, rates=graph.rates.tolist())
    x_R = torch.arange(V)
    low_R, high_R = torch.full((V,), low, dtype=torch.float64), torch.full((V,), high, dtype=torch.float64)
    due_RS = dense.kernel_into(x_R, low_R, high_R)
    torch.testing.assert_close(graph.kernel_into(x_R, low_R, high_R), due_RS, rtol=1e-6, atol=0)
    law_RS = torch.rand(V, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pushed_RS = graph.push(law_RS, low_R, high_R)
    torch.testing.assert_close(pushed_RS, dense.push(law_RS, low_R, high_R), rtol=1e-8, atol=0)
    if high < 10:
        torch.testing.assert_close(graph.push(pushed_RS, high_R, low_R), law_RS, rtol=1e-6, atol=1e-9)
    sigma = torch.tensor(high, dtype=torch.float64)
    torch.testing.assert_close(graph.prior_kl(x_R, sigma), dense.prior_kl(x_R, sigma), rtol=1e-6, atol=1e-12)
    u_R = torch.rand(V, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(graph.corrupt(x_R, sigma, u_R), dense.corrupt(x_R, sigma, u_R))


def test_neighbours_are_by_cosine_and_either_way() -> None:
    rates = near(np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.6, 0.8]]), 1)
    assert (rates > 0).tolist() == [
        [False, True, False, False],
        [True, False, False, False],
        [False, False, False, True],
        [False, False, True, False],
    ]
    graph = made(far=0.1)
    x_R, sigma_R = torch.arange(V), torch.full((V,), 0.05, dtype=torch.float64)
    kernel_RS, beside_RS = graph.kernel_into(x_R, 0 * sigma_R, sigma_R), graph.rates > 0.1 / V + 1e-9
    apart_RS = ~beside_RS & ~torch.eye(V, dtype=torch.bool)
    assert float(kernel_RS[beside_RS].min()) > 5 * float(kernel_RS[apart_RS].max())


def test_what_is_no_embedding_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "big.npy", np.ones((3000, 1)))
    np.save(tmp_path / "few.npy", np.ones((4, 2)))
    np.save(tmp_path / "zero.npy", np.zeros((9, 2)))
    words = {"big": "2,048 tokens at most", "few": "lower k", "zero": "finite", "none": "cannot read"}
    for file, word in words.items():
        with pytest.raises(WorkbenchError, match=f"process.graph: .*{word}"):
            load("smoke/uniform.yaml", [f"process.graph={{type: neighbours, file: {tmp_path}/{file}.npy}}"])
    with pytest.raises(WorkbenchError, match="make them equal"):
        Neighbours(5, vectors=[[1.0], [2.0], [3.0]], k=1)
