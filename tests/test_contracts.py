"""Every kind has contract checks, every shipped part meets them, and each check can find a fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.check import contract_checks, contract_problems
from workbench.core import index
from workbench.core.part import KINDS, Part
from workbench.data.base import Corpus, Tokenizer
from workbench.data.corpora import PythonDocs
from workbench.data.tokenizers import Bytes
from workbench.processes.corruptions import Corruption, ExactCount
from workbench.processes.estimators import Estimator, MonteCarlo
from workbench.processes.objectives import Objective, ScoreEntropy
from workbench.processes.readouts import Plain, Readout, Scaled
from workbench.processes.time_draws import TimeDraw, UniformTimes
from workbench.train.loggers import Logger, TensorBoard
from workbench.train.optim import AdamW, Optimizer
from workbench.train.schedules import Schedule, Warmup

index.import_parts()
ELSEWHERE = {"process": "by their laws and likelihoods", "sampler": "by their parts and laws"}
ELSEWHERE |= {"launcher": "by grids that run"}
"""Kinds whose parts are tested as wholes, and how."""
BESIDE = {"backbone", "mixer", "conditioning", "graph", "noise", "predictor", "shaper", "times", "metric"}
BESIDE |= {"order", "lens", "target", "judge"}
"""Kinds whose contract tests stand beside their own (tests/backbones, tests/graphs …)."""
NETWORK = {"hub", "openwebtext"}
"""Corpora that lie elsewhere."""
SHIPPED = [entry for entry in index.scan().parts if entry.module and entry.kind not in {*ELSEWHERE, *BESIDE}]


def problems(part: type[Part]) -> list[str] | None:
    ((_, found),) = contract_problems([part])
    return found


@pytest.fixture(autouse=True)
def _own_registers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in KINDS.values():
        monkeypatch.setattr(kind, "registered", dict(kind.registered))
    yield


def test_every_kind_has_checks() -> None:
    without = set(index.scan().kinds) - set(contract_checks()) - set(ELSEWHERE)
    assert not without, f"no contract checks for {without}: add them to the contract.py beside their base"


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_shipped_part_meets_its_contract(entry: index.Entry) -> None:
    if entry.name in NETWORK:
        pytest.skip(f"corpus {entry.name} needs a network")
    found = problems(KINDS[entry.kind].lookup(entry.name))
    if found and all("pip install" in problem for problem in found):
        pytest.skip(found[0])
    assert found == []


class Leaky(Plain):
    """Forgets the own entry."""

    def log_score(self, out_RS, x_R, sigma_R):
        return out_RS.clone()


class Bent(Scaled):
    """Is not affine, and says so."""

    def log_score(self, out_RS, x_R, sigma_R):
        return torch.tanh(super().log_score(out_RS, x_R, sigma_R))


class Twice(ScoreEntropy):
    """Another gradient than its value's."""

    def rows_and_grad(self, log_score_RS, graph, context):
        nats_R, aux_RK, grad_RS = super().rows_and_grad(log_score_RS, graph, context)
        return nats_R, aux_RK, 2 * grad_RS


class Dead(ScoreEntropy):
    """Counts rows that no step can move."""

    def rows(self, log_score_RS, graph, context):
        nats_R, aux_RK = super().rows(log_score_RS, graph, context)
        return nats_R + 1, aux_RK


class Late(UniformTimes):
    """Later times more often, without the weight for it."""

    def draw(self, seq_B, step, rng):
        t_B, weight_B = super().draw(seq_B, step, rng)
        return np.sqrt(t_B), weight_B


class Batched(UniformTimes):
    """Hears the batch."""

    def draw(self, seq_B, step, rng):
        return super().draw(np.arange(len(seq_B)), step, rng)


class Unweighted(ExactCount):
    """Counts masks evenly, without the weight for it."""

    def draw(self, seq_B, length, step, rng, noise, times):
        drawn = super().draw(seq_B, length, step, rng, noise, times)
        return replace(drawn, weight_N=torch.expm1(drawn.sigma_N))


class Boastful(MonteCarlo):
    """Half the nats."""

    def bound(self, process, shell, x0_BL, seq_B, rng, draws):
        bound = super().bound(process, shell, x0_BL, seq_B, rng, draws)
        return replace(bound, nats_BK=bound.nats_BK / 2, parts={})


class Asleep(Warmup):
    """Begins at 0."""

    def factor(self, step, steps):
        return step / steps


class Lazy(AdamW):
    """Leaves the last parameter alone."""

    def build(self, net):
        optimizers = super().build(net)
        optimizers[-1].param_groups[-1]["params"].pop()
        return optimizers


class Lossy(Bytes):
    """Loses the highest bit."""

    def encode_many(self, texts):
        return [ids % 128 for ids in super().encode_many(texts)]


class Skipping(PythonDocs):
    """Counts from 1."""

    def documents(self, split, start=0):
        return super().documents(split, start + (start > 0))


@pytest.mark.parametrize(
    "kind, part, complaint",
    [
        (Readout, Leaky, "the own entry is not 0"),
        (Readout, Bent, "the gradient is wrong"),
        (Objective, Twice, "rows_and_grad is not"),
        (Objective, Dead, "a row that is not live has nats"),
        (TimeDraw, Late, "the weighted mean of t^1"),
        (TimeDraw, Batched, "depends on its batch"),
        (Corruption, Unweighted, "Σ over masks of (masks)^0"),
        (Estimator, Boastful, "all blocks together have probability"),
        (Schedule, Asleep, "moves nothing"),
        (Optimizer, Lazy, "exactly once"),
        (Tokenizer, Lossy, "comes back as"),
        (Corpus, Skipping, "does not go on at number 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_part_is_told(kind: type[Part], part: type[Part], complaint: str) -> None:
    kind.register("broken")(part)
    found = problems(part)
    assert any(complaint in problem for problem in found), found


class Greedy(TensorBoard):
    """Keeps nothing of what it is shown for others."""

    def show(self, record):
        record["values"].clear()


class Once(TensorBoard):
    """Cannot go on with a log that holds something."""

    def open(self, folder, settings, records):
        assert not records
        super().open(folder, settings, records)


@pytest.mark.parametrize(("cls", "said"), [(Greedy, "changes the records"), (Once, "raises AssertionError")])
def test_a_faulty_logger_is_found(cls, said):
    Logger.register("faulty_logger")(cls)
    assert said in "; ".join(problems(cls) or ())
