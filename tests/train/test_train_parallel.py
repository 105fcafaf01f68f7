"""Several processes: the same training as one, to rounding."""

from __future__ import annotations

import multiprocessing
import os
import socket

import pytest
import torch

from tests.train.toy import Ticks, trainer
from workbench.train.base import Evaluator
from workbench.train.log import curve, read_log
from workbench.train.parallel import Parallel, join, leave


def work(rank: int, world: int, port: int, folder, changes) -> None:
    """One rank, as torchrun starts it."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    parallel = join()
    made = trainer(folder, parallel=parallel, evaluators=[Evaluator("ticks", 10, Ticks())], **changes)
    made.fit()
    with parallel.quiet(made.model, last=False):
        assert not made.model.require_backward_grad_sync
    if not parallel.lead:
        torch.save({name: p.detach() for name, p in made.shell.net.named_parameters()}, folder / "rank1.pt")
    leave()


def launch(folder, **changes):
    """Train with two processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # spawned, not forked: threads that other tests left in this process (pools, OpenMP) may hold locks in a fork
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, 2, port, folder, changes)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def test_two_processes_train_as_one_does(tmp_path):
    """Two ranks × 2 micro-batches against one × 4, dropout and all; resumed half-way by fewer ranks' checkpoint."""
    changes = {"steps": 20}
    (tmp_path / "two").mkdir()
    assert launch(tmp_path / "two", accumulate=2, **changes) == [0, 0]
    one = trainer(tmp_path / "one", accumulate=4, evaluators=[Evaluator("ticks", 10, Ticks())], **changes)
    one.fit()

    two = trainer(tmp_path / "two", accumulate=2, **changes)
    two._resume()
    other = torch.load(tmp_path / "two" / "rank1.pt")
    for (name, p), q in zip(one.shell.net.named_parameters(), two.shell.net.parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=2e-4, atol=2e-5, msg=name)
        assert torch.equal(other[name], q.detach()), f"{name} differs between ranks"
    logs = [read_log(made.run.log) for made in (one, two)]
    assert [r["tokens"] for r in logs[0]] == [r["tokens"] for r in logs[1]]
    for name in ("train/loss_nats_per_token", "train/grad_norm", "train/most", "ticks/total"):
        for (step, a), (same_step, b) in zip(curve(logs[0], name), curve(logs[1], name), strict=True):
            assert step == same_step and a == pytest.approx(b, rel=1e-3), name
    for a, b in zip(logs[0], logs[1], strict=True):
        if "buckets" in a:
            torch.testing.assert_close(
                torch.tensor(a["buckets"]["bound"]), torch.tensor(b["buckets"]["bound"]), rtol=1e-3, atol=1e-3
            )


def test_alone_nothing_is_wrapped():
    shell = torch.nn.Linear(2, 2)
    assert join() == Parallel()
    assert Parallel().wrap(shell) is shell
    assert Parallel().any(3, torch.device("cpu")) == 3
