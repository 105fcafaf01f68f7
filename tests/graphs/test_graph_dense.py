"""Graphs from a rate matrix: reading it, refusing what is none, its end law."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from graphs import dense
from graphs.base import Graph
from graphs.contract import CHECKS
from graphs.dense import Banded, Dense, RateMatrix, Ring
from graphs.rates import exponential, generator, inverse, inverse_cdf, stationary
from tests import oracle
from workbench.core.errors import WorkbenchError

GOOD = oracle.random(3, seed=1)


def test_a_new_graph_is_its_matrix_in_eight_lines_and_meets_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "registered", dict(Graph.registered))

    @Graph.register("ladder")
    class Ladder(RateMatrix):
        """Steps up and down, reflected at the ends."""

        def __init__(self, vocab: int, down: float = 2.0) -> None:
            """``down``: rate to the token below; 1 to the one above."""
            super().__init__(vocab, generator(np.eye(vocab, k=-1) + down * np.eye(vocab, k=1)))

    assert len([line for line in inspect.getsource(Ladder).splitlines() if line.strip()]) <= 8
    assert CHECKS["graph"](Ladder) == []
    x_R = torch.arange(4)
    K = Ladder(4).kernel_into(x_R, torch.zeros(4).double(), torch.full((4,), 0.8).double()).numpy()
    Q = oracle.with_diagonal(np.eye(4, k=-1) + 2 * np.eye(4, k=1))
    np.testing.assert_allclose(K, oracle.kernel(Q, 0.8), atol=1e-12)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".yaml"])
def test_matrix_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rates{suffix}"
    if suffix == ".npy":
        np.save(path, GOOD)
    elif suffix == ".npz":
        np.savez(path, rates=GOOD)
    elif suffix == ".csv":
        np.savetxt(path, GOOD, delimiter=",", fmt="%.17g")
    else:
        path.write_text("\n".join(str(row) for row in GOOD.tolist()).replace("[", "- ["))
    np.testing.assert_allclose(Dense(3, file=str(path)).rates.numpy(), GOOD, atol=1e-14)


@pytest.mark.parametrize(
    "rates, message",
    [
        ([[0.0, 1.0], [0.0]], "no matrix of numbers"),
        ([[0.0, 1.0]], r"must be square, but its shape is \(1, 2\)"),
        ([[1.0, -1.0], [-1.0, 1.0]], r"rate 1 → 0 \(row 0, column 1\) is negative"),
        ([[float("nan"), 1.0], [0.0, -1.0]], "is not finite"),
        ([[-1.0, 1.0], [2.0, -1.0]], "column 0 to 1; its diagonal entry should be -2"),
        ([[-1.0, 1.0], [2.0, -2.0]], "give the transpose"),
        ([[0.0, 0.0], [0.0, 0.0]], "no unique end law: states 0 and 1 never meet"),
        (oracle.random(3).tolist(), "has 3 states, the tokenizer 2 tokens"),
    ],
)
def test_what_is_no_rate_matrix_is_refused(rates: list[list[float]], message: str) -> None:
    with pytest.raises(WorkbenchError, match=message):
        Dense(2, rates=rates)


def test_one_source_and_no_more(tmp_path: Path) -> None:
    for settings in ({}, {"rates": GOOD.tolist(), "file": "rates.csv"}):
        with pytest.raises(WorkbenchError, match="either rates or file"):
            Dense(3, **settings)
    for name, message in (("no.csv", "cannot read a matrix"), ("rates.txt", "must end in")):
        with pytest.raises(WorkbenchError, match=message):
            Dense(3, file=str(tmp_path / name))
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", rates=GOOD, more=GOOD)
    (tmp_path / "empty.npy").touch()
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04torn")
    (tmp_path / "words.csv").write_text("0,1\n1,two\n")
    because = {"pickled.npy": "", "two.npz": "2 arrays", "empty.npy": "", "torn.npz": "", "words.csv": "two"}
    for name, why in because.items():
        with pytest.raises(WorkbenchError, match=f"cannot read a matrix from .*{name}.*{why}"):
            Dense(3, file=str(tmp_path / name))


def test_misfits_are_found_before_building(tmp_path: Path) -> None:
    def problems(**settings: object) -> list[str]:
        node = SimpleNamespace(path="process.graph", settings={"rates": None, "file": None, **settings})
        return [str(problem) for problem in Dense.misfits(node, node)]  # type: ignore[arg-type]

    assert problems(rates=GOOD.tolist()) == []
    np.savetxt(tmp_path / "rates.csv", GOOD, delimiter=",", fmt="%.17g")
    assert problems(file=str(tmp_path / "rates.csv")) == []
    assert "either rates or file" in problems()[0]
    assert problems(rates=[[-1.0, 1.0], [2.0, -1.0]])[0].startswith("process.graph.rates: columns")
    np.save(tmp_path / "bad.npy", GOOD.T)
    for name, why in (("bad.npy", "give the transpose"), ("none.npy", "cannot read a matrix")):
        (found,) = problems(file=str(tmp_path / name))
        assert found.startswith("process.graph.file: ")
        assert why in found


def test_end_law_of_chains_with_transient_states() -> None:
    """0 → 1 ⇄ 2: state 0 empties; a chain into one trap ends in the trap."""
    flows = oracle.with_diagonal(np.array([[0, 0, 0], [1.0, 0, 2.0], [0, 1.0, 0]]))
    np.testing.assert_allclose(stationary(flows), [0, 2 / 3, 1 / 3], atol=1e-15)
    trap = oracle.absorbing(3)
    np.testing.assert_allclose(stationary(trap), [0, 0, 0, 1], atol=1e-15)
    kl = Dense(3, rates=flows.tolist()).prior_kl(torch.tensor([0, 1]), torch.tensor(1.0).double())
    assert kl[0] == torch.inf
    assert 0 < float(kl[1]) < 1
    with pytest.raises(WorkbenchError, match="states 1 and 2 never meet"):
        stationary(oracle.with_diagonal(np.array([[0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])))


def test_ring_of_any_size() -> None:
    np.testing.assert_allclose(Ring(2, 1.0, 0.5).rates.numpy(), [[-1.5, 1.5], [1.5, -1.5]])
    np.testing.assert_allclose(Ring(6, 1.0, 0.5).rates.numpy(), oracle.ring(6, 1.0, 0.5))
    np.testing.assert_allclose(Ring(6, 1.0, 0.5).end_law.numpy(), np.full(6, 1 / 6))


def test_a_band_lies_between_the_ring_and_the_uniform_graph() -> None:
    np.testing.assert_allclose(Banded(6, 1, 1.0, 0.5).rates.numpy(), Ring(6, 1.0, 0.5).rates.numpy())
    due = oracle.with_diagonal(sum(p * np.roll(np.eye(7), d, axis=0) for d, p in ((1, 2), (2, 1), (-1, 1), (-2, 0.5))))
    np.testing.assert_allclose(Banded(7, 2, forward=2.0, backward=1.0, decay=0.5).rates.numpy(), due)
    np.testing.assert_allclose(Banded(7, 3, 1 / 7, 1 / 7, decay=1.0).rates.numpy(), oracle.uniform(7), atol=1e-15)


def test_exponential_at_large_and_small_noise() -> None:
    rates = torch.from_numpy(GOOD)
    deltas = torch.tensor([-0.5, 0.0, 1e-12, 1.0, 1e4]).double()
    kernels = exponential(rates, deltas).numpy()
    for kernel, delta in zip(kernels[:4], deltas.tolist(), strict=False):
        np.testing.assert_allclose(kernel, oracle.kernel(GOOD, delta), atol=1e-13)
    np.testing.assert_allclose(kernels[4], np.tile(stationary(GOOD)[:, None], 3), atol=1e-12)


def test_inverse_cdf_never_lands_on_nothing() -> None:
    law = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]], dtype=torch.float64)
    for u, state in ((0.0, 1), (0.3 - 1e-12, 1), (0.3 + 1e-12, 3), (1 - 2.0**-53, 3)):
        assert int(inverse_cdf(law, torch.tensor([u], dtype=torch.float64))) == state


def star(vocab: int) -> RateMatrix:
    """A hub that all others step to, and that steps to all others: its fastest mode dies like e^(−vocab σ)."""
    rates = np.zeros((vocab, vocab))
    rates[1:, 0] = rates[0, 1:] = 1.0
    return RateMatrix(vocab, generator(rates))


def worst_step(graph: RateMatrix, levels: list[float]) -> float:
    """How far the analytic step at the exact score is from Bayes' law over a walk's steps."""
    states, worst = torch.arange(graph.states), 0.0
    clean_1S = (torch.arange(graph.states, dtype=torch.float64) + 3).reciprocal()[None]
    clean_1S = clean_1S / clean_1S.sum()
    zero = torch.zeros(1, dtype=torch.float64)
    for high, low in itertools.pairwise(levels):
        t_R, s_R = (torch.full((graph.states,), level, dtype=torch.float64) for level in (high, low))
        law_S, before_S = (graph.push(clean_1S, zero, level_R[:1])[0] for level_R in (t_R, s_R))
        bayes_RS = graph.kernel_into(states, s_R, t_R) * before_S
        found_RS = graph.reverse_from_score((law_S / law_S[:, None]).log(), states, t_R, s_R)
        worst = max(worst, float((found_RS - bayes_RS / bayes_RS.sum(-1, keepdim=True)).abs().max()))
    return worst


def test_the_analytic_step_survives_a_fast_chain() -> None:
    levels = (1e-4 * (2e5 ** torch.linspace(1, 0, 17, dtype=torch.float64))).tolist()  # 16 steps from σ = 20
    assert worst_step(star(5), levels) < 1e-6
    assert worst_step(star(33), levels) < 1e-6
    assert worst_step(star(257), [20.0, 9.3, 4.3]) < 1e-6  # exp(−ΔQ) itself is past all numbers: e^2750


def test_the_inverse_kernel_is_exact_where_it_can_be_and_keeps_sums() -> None:
    graph = star(6)
    deltas = torch.tensor([0.0, 0.3, 1.0, 40.0], dtype=torch.float64)
    back = inverse(graph.rates, deltas, graph.end_law, 2e-16)
    np.testing.assert_allclose(back[1].numpy(), torch.linalg.matrix_exp(-0.3 * graph.rates).numpy(), rtol=1e-12)
    np.testing.assert_allclose(back.sum(1).numpy(), 1.0, atol=1e-6)
    np.testing.assert_allclose(back[3].numpy(), graph.end_law[:, None].expand(6, 6).numpy(), atol=1e-6)


def test_the_contract_tells_rounding_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inverse as it was, exp(−ΔQ) by any exact algorithm, breaks the contract at five tokens already."""

    def naive(rates: torch.Tensor, deltas: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.linalg.matrix_exp(-deltas[:, None, None] * rates)

    class Star(RateMatrix):
        """A hub."""

        def __init__(self, vocab: int) -> None:
            super().__init__(vocab, star(vocab).rates.numpy())

    assert CHECKS["graph"](Star) == []
    monkeypatch.setattr(dense, "inverse", naive)
    assert any("coarse steps" in problem for problem in CHECKS["graph"](Star))
