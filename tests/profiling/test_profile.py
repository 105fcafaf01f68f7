"""Profiles: regions hold what they should, forward and backward, and leave no trace of themselves."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import record_function

from backbones.gpt2 import GPT2
from backbones.transformer import Transformer
from workbench.cli.main import main
from workbench.profiling import regions, session
from workbench.profiling.session import Watch, keep_trace, profiler
from workbench.profiling.table import Table, lines, tabulate

RECIPE = "recipes/smoke/sedd.yaml"


@dataclass
class Range:
    start: float


@dataclass
class Told:
    """An event that is told, not measured."""

    name: str
    start: float
    parent: Any = None
    self_cpu_time_total: float = 0.0
    sequence_nr: int = -1
    self_device_time_total: float = 0.0
    self_cpu_memory_usage: int = 0
    self_device_memory_usage: int = 0
    thread: int = 1
    device_type: Any = DeviceType.CPU

    @property
    def cpu_parent(self):
        return self.parent

    @property
    def time_range(self):
        return Range(self.start)


def test_a_node_belongs_to_the_region_that_made_it():
    step = Told("region/update", 0, None, 100.0)
    norm = Told("region/norms", 1, step, 10.0)
    seen = Told("aten::detach", 2, norm, 1.0, sequence_nr=7)  # saw number 7 coming, made nothing
    mlp = Told("region/MLPs", 3, step, 20.0)
    made = Told("aten::mm", 4, mlp, 300.0, sequence_nr=7, self_cpu_memory_usage=2**20)
    node = Told("autograd::engine::evaluate_function: MmBackward0", 5, step, 5.0, sequence_nr=7)
    back = Told("aten::mm", 6, node, 600.0)
    outside = Told("aten::mm", 7, None, 1e9)
    found = tabulate([step, norm, seen, mlp, made, node, back, outside], "update", steps=2)
    mlps, norms = found.shares["MLPs"], found.shares["norms"]
    assert (mlps.forward_ms, mlps.backward_ms, mlps.kept_mb, mlps.calls) == (0.16, 0.3025, 0.5, 0.5)
    assert (norms.forward_ms, norms.backward_ms) == (0.0055, 0.0)
    assert found.shares["rest"].forward_ms == 0.05
    assert found.total() == pytest.approx((100 + 10 + 1 + 20 + 300 + 5 + 600) / 2e3)
    assert [name for name, _, _ in found.rows()] == ["MLPs", "rest", "norms"]


def test_the_backward_pass_of_a_real_graph_goes_to_its_regions():
    slow, quick = nn.Linear(400, 400), nn.Linear(400, 400)
    x = torch.randn(256, 400)
    with profiler(False) as seen, record_function("region/update"):
        with record_function("region/slow"):
            h = x
            for _ in range(20):
                h = slow(h)
        with record_function("region/quick"):
            h = quick(h)
        h.sum().backward()
    found = tabulate(seen.events(), "update", 1).shares
    assert found["slow"].backward_ms > found["quick"].backward_ms > 0  # 20 products against one
    assert found["slow"].kept_mb > found["quick"].kept_mb > 0


def test_parts_of_a_backbone_are_named_by_what_they_are():
    net = Transformer(12, 12, 8, dim=16, depth=2, heads=2, cond_dim=8, shortconv=3, neighbours=1)
    named = regions.named_parts(net, whole_blocks=False)
    expected = {"residual stream", "embedding", "noise level", "norms", "MLPs", "mixers: ShortConv"}
    assert set(named.values()) == expected
    assert net.head not in named
    whole = regions.named_parts(net, whole_blocks=True)
    assert all(whole[block] == "blocks" for block in net.blocks)
    assert not any(name == "MLPs" for name in whole.values())


def test_hooks_and_wrappers_come_and_go():
    net = GPT2(12, 12, 8, dim=16, depth=1, heads=2)
    mixer = net.blocks[0].mixer
    with regions.network(net):
        assert mixer._forward_hooks and "commit" in vars(mixer)
        net.commit(torch.zeros(1, 3, dtype=torch.long), net.new_cache(1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert "commit" not in vars(mixer)
    with pytest.raises(RuntimeError), regions.around(net, "commit", "x"):
        raise RuntimeError
    assert "commit" not in vars(net)


def test_training_is_profiled(capsys, tmp_path):
    assert main(["profile", RECIPE, "--steps", "2", "--warm", "1", "--json", "--out", str(tmp_path / "trace")]) == 0
    told = json.loads(capsys.readouterr().out)
    names = set(told["regions"])
    assert {"head and objective", "optimizer", "clipping", "average of the weights", "MLPs", "norms"} <= names
    assert {"embedding", "noise level", "residual stream", "rest"} <= names and any("mixers" in name for name in names)
    assert told["regions"]["MLPs"]["backward_ms"] > 0 and told["regions"]["MLPs"]["calls"] == 2  # two blocks
    assert told["regions"]["head and objective"]["calls"] == 1
    assert sum(region["share"] for region in told["regions"].values()) == pytest.approx(1, abs=0.01)
    assert told["update_ms"] > 0 and told["waiting_ms"] >= 0 and told["preparing_ms"] > 0
    assert told["optimizer_mb"] > 1.9 * told["weights_mb"] > 0  # two moments
    (trace,) = (tmp_path / "trace").glob("*.pt.trace.json")
    assert any(event.get("name") == "region/update" for event in json.loads(trace.read_text())["traceEvents"])


def test_nothing_is_evaluated_while_a_profile_is_made(monkeypatch, capsys):
    made, inner = [], session.experiment.evaluators_of
    monkeypatch.setattr(session.experiment, "evaluators_of", lambda *args: made.append(inner(*args)) or made[-1])
    often = "evaluations.often={every: 1, blocks: 1, metrics: [bits_per_byte]}"
    words = [RECIPE, often, "train.best=often/bits_per_byte", "--steps", "1", "--warm", "0", "--json"]
    assert main(["profile", *words]) == 0
    assert made == [[]] and json.loads(capsys.readouterr().out)["update_ms"] > 0


def test_an_update_lasts_until_the_device_has_done_it(monkeypatch):
    """A device that is told: launches return at once, its work is done by the time one waits for it."""
    owed = 0.0

    def launch():
        nonlocal owed
        trainer.step, owed = trainer.step + 1, owed + 0.05

    def synchronize():
        nonlocal owed
        time.sleep(owed)
        owed = 0.0

    nothing = SimpleNamespace(clip=None, advance=None, update=None, last=None)
    trainer = SimpleNamespace(
        step=0, device=torch.device("cuda"), settings=SimpleNamespace(steps=5, compile=False), _update=launch,
        _prepare=lambda step: None, shell=SimpleNamespace(net=nn.Linear(1, 1)), process=nothing, window=nothing,
        learner=SimpleNamespace(clip=None, ema=nothing),
    )  # fmt: skip
    told = SimpleNamespace(start=lambda: None, stop=lambda: None)
    monkeypatch.setattr(session, "profiler", lambda on_device: told)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    watch = Watch(trainer, warm=2)
    with watch.watching():
        for step in range(5):
            trainer._prepare(step)
            trainer._update()
            time.sleep(0.01)
    facts = watch.facts()
    assert 50 < facts["update_ms"] < 80  # three updates of 50 ms, two waits of 10; those before do not count
    assert 6 < facts["waiting_ms"] < 20


@pytest.mark.parametrize("recipe", [RECIPE, "recipes/smoke/gpt2.yaml"])
def test_sampling_is_profiled(recipe, capsys):
    assert main(["profile", recipe, "--sample", "--count", "2", "--warm", "0"]) == 0
    told = capsys.readouterr().out
    assert "head" in told and "MLPs" in told and "network calls" in told and "backward" not in told


def test_on_a_device_its_own_time_decides():
    step = Told("region/update", 0, None, 100.0)
    one = Told("region/MLPs", 1, step, 10.0, self_device_time_total=5.0)
    two = Told("region/norms", 2, step, 20.0, self_device_time_total=50.0)
    found = tabulate([step, one, two], "update", 1, on_device=True)
    assert next(name for name, _, _ in found.rows()) == "norms"
    assert "host ms" in lines(found)[0]


def test_what_a_device_shows_of_regions_a_second_time_is_not_counted_again():
    step = Told("region/update", 0, None, 100.0)
    norm = Told("region/norms", 1, step, 20.0, self_device_time_total=50.0)
    shown = [
        Told(name, 2, None, self_device_time_total=1e6, device_type=DeviceType.CUDA)
        for name in ("region/update", "region/norms", "autograd::engine::evaluate_function: MmBackward0")
    ]
    found = tabulate([step, norm, *shown], "update", 1, on_device=True)
    assert found.total() == 0.05 and found.shares["rest"].calls == found.shares["norms"].calls == 1


def test_without_a_folder_no_trace_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with profiler(False) as seen:
        torch.ones(2).sum()
    keep_trace(seen, None, "x")
    assert not list(tmp_path.iterdir()) and Table({}).total() == 0
