"""Several processes: the same training as one, to rounding, whatever each of them holds of the network."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.train.toy import Ticks, ToyNet, settings, trainer
from workbench.core.errors import WorkbenchError
from workbench.processes.base import named_weights
from workbench.train import pieces
from workbench.train.base import Evaluator
from workbench.train.footprint import footprint
from workbench.train.log import curve, read_log
from workbench.train.parallel import join, leave

ROOT = Path(__file__).parents[2]
STEPS, HALF = 20, 10
BASE, ONE = {"steps": STEPS, "accumulate": 2}, {"steps": STEPS, "accumulate": 4}
ONCE = {"free": False, "exchange": "once"}
MUON = {"muon": True, "fsdp": {}}
FLOAT8: dict = {"float8": {}, "float8 in rows": {"fsdp": {}}}
LOWERED = {"float8": "tensorwise", "float8_emulated": True}
JOBS = {
    "ddp": BASE,
    "fsdp": {**BASE, "fsdp": {}},
    "once": {**BASE, "fsdp": ONCE},
    "muon": {**BASE, **MUON},
    "on from one": {**BASE, "fsdp": {}},
    "half": {**BASE, "until": HALF, "fsdp": {}},
    "muon half": {**BASE, "until": HALF, **MUON},
    "eight-bit moments": {**BASE, "fsdp": {}, "eight_bit": True},
    **({name: {**BASE, **LOWERED, **sharing} for name, sharing in FLOAT8.items()} if find_spec("torchao") else {}),
}
"""Trainings of two processes, in one session: starting processes takes longer than all of these."""
FOUR = {
    "ddp by four": {**BASE},
    "fsdp by four": {**BASE, "fsdp": {}},
    "once by four": {**BASE, "fsdp": ONCE},
    "on by four": {"steps": STEPS, **MUON},
}
"""Those of four: with accumulation, and one that goes on from what two have saved (with as many micro-batches)."""


def work(rank: int, world: int, port: int, folder, jobs) -> None:
    """One rank, as torchrun starts it, which trains each of ``jobs``."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    parallel = join()
    for name, changes in jobs.items():
        made = made_until(folder / name, parallel=parallel, **changes)
        made.fit()
        roles = made.learner.capture()[0]
        held = {role: sum(pieces.local(t).numel() for t in tensors.values()) for role, tensors in roles.items()}
        whole = {name: weight.clone() for name, weight in made.learner.weights(averaged=False).items()}
        torch.save({"whole": whole, "held": held}, folder / name / f"rank{rank}.pt")
    leave()


def launch(folder, world, jobs):
    """Train with several processes; their exit codes."""
    for name in jobs:
        (folder / name).mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # spawned, not forked: threads that other tests left in this process (pools, OpenMP) may hold locks in a fork
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, world, port, folder, jobs)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    return [process.exitcode for process in ranks]


def made_until(folder, until=STEPS, **changes):
    """A trainer that stops after ``until`` updates of its schedule's ``STEPS``."""
    made = trainer(folder, evaluators=[Evaluator("ticks", 10, Ticks())], **changes)
    made.stopping.reason = lambda step, seconds: "half" if step == until < STEPS else ""
    return made


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process with 4 micro-batches, dropout and all."""
    made = made_until(tmp_path_factory.mktemp("one"), **ONE)
    made.fit()
    return made


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes make of each of the jobs; one of them goes on from what one process has begun."""
    folder = tmp_path_factory.mktemp("two")
    begun = made_until(folder / "on from one", until=HALF, **ONE)
    begun.fit()
    assert begun.step == HALF
    assert launch(folder, 2, JOBS) == [0, 0]
    return folder


@pytest.fixture(scope="module")
def one_by_muon(tmp_path_factory):
    made = made_until(tmp_path_factory.mktemp("muon"), **ONE, muon=True)
    made.fit()
    return made


@pytest.fixture(scope="module")
def one_of_eight(tmp_path_factory):
    """One process with as many micro-batches as four processes with two each."""
    made = made_until(tmp_path_factory.mktemp("eight"), steps=STEPS, accumulate=8)
    made.fit()
    return made


@pytest.fixture(scope="module")
def four(tmp_path_factory, two):
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(two / "muon half", folder / "on by four")
    assert launch(folder, 4, FOUR) == [0] * 4
    return folder


def same_weights(found, made):
    for name, weight in named_weights(made.shell.net).items():
        torch.testing.assert_close(found[name], weight, rtol=2e-4, atol=2e-5, msg=name)


def same_logs(one, two):
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


@pytest.mark.parametrize("name", ["ddp", "fsdp", "once", "on from one"])
def test_two_processes_train_as_one_does(one, two, name):
    """Two ranks × 2 micro-batches against one × 4; one process opens what two have saved."""
    ended = trainer(two / name, **JOBS[name])
    ended._resume()
    assert ended.step == STEPS
    same_weights(named_weights(ended.shell.net), one)
    for rank in range(2):
        same_weights(torch.load(two / name / f"rank{rank}.pt")["whole"], one)
    same_logs(one, ended)


def drift(weights, made):
    """How far weights are from a trainer's, beside their size."""
    wanted = named_weights(made.shell.net)
    return max(float((weights[name] - w).norm() / w.norm().clamp(min=1e-3)) for name, w in wanted.items())


def test_moments_in_one_byte_are_cut_by_rows(one, two, tmp_path):
    """A block lies within a row: two processes' codes are one's but for ties, and one goes on from theirs."""
    alone = made_until(tmp_path, eight_bit=True, **ONE)
    alone.fit()
    ended = trainer(two / "eight-bit moments", **JOBS["eight-bit moments"])
    ended._resume()
    assert ended.step == STEPS
    found = named_weights(ended.shell.net)
    assert drift(found, alone) < 5e-3 < drift(named_weights(one.shell.net), alone)
    state = ended.learner.capture()[0]["optimizer"]
    assert [len(value) for key, value in state.items() if "hidden.weight|exp" in key] == [16] * 4


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao (extra float8)")
@pytest.mark.parametrize("name", FLOAT8)
def test_8_bit_floats_are_trained_in_by_two_as_by_one(one, two, tmp_path, name):
    """Scales are of a micro-batch, and these are the same however many processes share them."""
    alone = made_until(tmp_path, **LOWERED, **ONE)
    alone.fit()
    found = torch.load(two / name / "rank1.pt")["whole"]
    assert drift(found, alone) < drift(named_weights(one.shell.net), alone) / 3


def test_one_process_goes_on_from_the_rows_of_two(one, two):
    rest = made_until(two / "half", **ONE)
    assert (rest.run.path / "ckpt" / f"step-{HALF:08d}" / "model.1-of-2.safetensors").is_file()
    rest.fit()
    same_weights(named_weights(rest.shell.net), one)
    same_logs(one, rest)


def test_muon_turns_what_two_processes_hold_as_one_does(one_by_muon, two):
    ended = trainer(two / "muon", **BASE, muon=True)
    ended._resume()
    assert ended.step == STEPS
    same_weights(named_weights(ended.shell.net), one_by_muon)
    same_logs(one_by_muon, ended)
    momenta = [torch.load(two / "muon" / f"rank{rank}.pt")["held"]["optimizer"] for rank in range(2)]
    net, chosen = ToyNet(), settings(**JOBS["muon"])
    said = footprint(net, net, chosen.optimizer, True, chosen.parallel, 2)
    assert said.optimizer == 4 * momenta[0]


def test_one_process_and_four_go_on_from_what_two_have_turned(one_by_muon, two, four):
    shutil.copytree(two / "muon half", two / "muon alone")
    rest = made_until(two / "muon alone", **ONE, muon=True)
    assert (rest.run.path / "ckpt" / f"step-{HALF:08d}" / "optimizer.1-of-2.safetensors").is_file()
    rest.fit()
    by_four = trainer(four / "on by four", **ONE, muon=True)
    by_four._resume()
    for made in (rest, by_four):
        assert made.step == STEPS
        same_weights(named_weights(made.shell.net), one_by_muon)
        same_logs(one_by_muon, made)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "once"])
def test_four_processes_that_accumulate_train_as_one_does(one_of_eight, four, name):
    ended = trainer(four / f"{name} by four", **FOUR[f"{name} by four"])
    ended._resume()
    assert ended.step == STEPS
    same_weights(named_weights(ended.shell.net), one_of_eight)
    same_logs(one_of_eight, ended)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_memory_is_what_was_predicted_to_the_number(two, name):
    """Parameters, averages and optimizer state of both ranks: the first as predicted, all together whole."""
    chosen = settings(**JOBS[name])
    net = ToyNet()
    said = footprint(net, net, chosen.optimizer, chosen.ema > 0, chosen.parallel, 2)
    held = [torch.load(two / name / f"rank{rank}.pt")["held"] for rank in range(2)]
    assert {"model": said.parameters, "ema": said.average, "optimizer": said.optimizer} == {
        role: 4 * numbers for role, numbers in held[0].items()
    }
    whole = sum(p.numel() for p in net.parameters())
    assert said.gradients == said.parameters
    assert [rank["model"] for rank in held] == [whole, whole] if name == "ddp" else held[1]["model"] < held[0]["model"]
    assert sum(rank["model"] for rank in held) == (2 * whole if name == "ddp" else whole)


def children(pid: int) -> list[int]:
    """The processes that a process has started, its ranks."""
    return [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]


def begun(folder, changes, so_far):
    """(torchrun, its two ranks), training since ``so_far`` says so."""
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2", "--monitor-interval=0.1"]
    command = [sys.executable, "-m", *run, "-m", "tests.train.toy", str(folder), json.dumps(changes)]
    torchrun = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not so_far() and torchrun.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    ranks = children(torchrun.pid)
    assert len(ranks) == 2
    return torchrun, ranks


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to find the ranks")


@needs_proc
def test_a_signal_to_torchrun_and_to_its_ranks_saves_though_no_line_of_the_log_is_due(tmp_path):
    """A scheduler signals all processes, and torchrun forwards it: each rank gets SIGTERM twice."""
    changes = {"steps": 10**5, "log_every": 10**5, "checkpoint_every": 0, "delay": 0.02, "prefetch": 1}
    marks = lambda: [json.loads(file.read_text())["state"] for file in tmp_path.glob("*/status")]  # noqa: E731
    torchrun, ranks = begun(tmp_path, changes, lambda: marks() == ["training"])
    time.sleep(1)
    for pid in (torchrun.pid, *ranks):
        os.kill(pid, signal.SIGTERM)
    try:
        _, words = torchrun.communicate(timeout=60)
    finally:
        torchrun.kill()
    assert marks() == ["interrupted"], words
    assert len(list(tmp_path.glob("*/ckpt/step-*[0-9]"))) == 1


def test_what_processes_talk_by_follows_the_device(monkeypatch):
    given, places = [], []
    for name, value in (("WORLD_SIZE", 2), ("RANK", 1), ("LOCAL_RANK", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", places.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: given.append(backend))
    assert [join("cpu").local, join("auto").local, join("cuda").local] == [1, 1, 1]
    assert given == ["gloo", "cpu:gloo,cuda:nccl", "cpu:gloo,cuda:nccl"] and places == [1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert join("cpu").rank == 1
    with pytest.raises(WorkbenchError, match=r"process 2 .* there are 1; .*train\.device: cpu"):
        join("cuda")


@needs_proc
def test_torchrun_goes_on_when_a_rank_is_killed(one, tmp_path):
    """`kill -9` of a rank after the first checkpoint: the others end, all start again, and nothing is lost."""
    changes = {"steps": STEPS, "accumulate": 2, "checkpoint_every": 5, "fsdp": {}, "delay": 0.05, "prefetch": 1}
    torchrun, ranks = begun(tmp_path, changes, lambda: bool(list(tmp_path.glob("*/ckpt/step-*[0-9]"))))
    os.kill(ranks[1], signal.SIGKILL)
    try:
        _, words = torchrun.communicate(timeout=120)
    finally:
        torchrun.terminate()
    assert torchrun.returncode == 0, words
    assert not set(children(os.getpid())) & set(ranks)
    ended = trainer(tmp_path, steps=STEPS, accumulate=2, fsdp={})
    ended._resume()
    assert ended.step == STEPS
    same_weights(named_weights(ended.shell.net), one)
    assert "Signal 9" in words or "SIGKILL" in words or "exitcode: -9" in words, words
