"""Ways that take other packages, compilers or processes: what is composed by hand, what is compiled, what shares."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from workbench import experiment
from workbench.bench import by_hand, lengths, nets, process, processes
from workbench.bench.base import Absent, Meter
from workbench.bench.by_hand import NETWORKS, Authors, Composed, Plain, Sizes
from workbench.bench.lengths import Lengths
from workbench.bench.processes import Processes
from workbench.bench.run import chosen, here
from workbench.check import estimate
from workbench.launch import together
from workbench.profiling.session import shortened
from workbench.recipe import load
from workbench.train.parallel import Parallel

SMALL = {"dim": 32, "heads": 2, "cond": 8, "state": 4, "vocab": 200}


class Ahead(nn.Module):
    """Stands in for the authors' block: a position hears those before it."""

    def __init__(self, dim, d_state):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, dim) * 0.1)

    def forward(self, h):
        return h.cumsum(1) @ self.weight


@pytest.fixture
def mamba_ssm(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", SimpleNamespace(Mamba2=Ahead, __spec__=SimpleNamespace()))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_is_composed_by_hand_hears_both_sides_and_learns(name, mamba_ssm):
    torch.manual_seed(0)
    net = Composed(NETWORKS[name], Sizes(16, **SMALL))
    x_BL = torch.randint(50, (2, 16))
    h_BLD = net(x_BL, torch.rand(2) + 0.1)
    assert h_BLD.shape == (2, 16, 32)
    h_BLD.square().mean().backward()
    heard = [one for one in net.parameters() if one.grad is not None]
    assert len(heard) >= len(list(net.layers.parameters()))  # the authors' alone hear no σ
    for at in (0, 15):  # the middle hears either end
        other = x_BL.clone()
        other[:, at] = (other[:, at] + 1) % 50
        assert not torch.allclose(net(other, torch.ones(2))[:, 8], net(x_BL, torch.ones(2))[:, 8], atol=1e-7)
    assert net.non_embedding == sum(one.numel() for one in net.parameters()) - 200 * 32


def test_the_hybrid_by_hand_has_the_pattern_and_about_the_size_of_the_recipes(mamba_ssm):
    backbone = load("sedd-hybrid-small.yaml").data["backbone"]
    kinds = {"M": Authors, "A": Plain}
    pattern = [kinds[one] for one in backbone["pattern"]]
    assert list(NETWORKS["authors, hybrid"]) == pattern * (backbone["depth"] // len(pattern))
    assert set(NETWORKS["authors"]) == {Authors} and len(NETWORKS["authors"]) == backbone["depth"]
    sizes = Sizes(1024)
    assert (sizes.dim, sizes.state) == (backbone["dim"], backbone["mixers"]["M"]["state"])
    with torch.device("meta"):
        plain = Composed(NETWORKS["plain"], sizes)
    own = load("sedd-small.yaml")
    assert plain.non_embedding == pytest.approx(estimate(own).non_embedding, rel=0.01)


def test_what_is_composed_by_hand_is_measured_with_its_size(monkeypatch, mamba_ssm):
    monkeypatch.setattr(
        lengths, "composed", lambda way, length, device: Composed(NETWORKS[way], Sizes(length, **SMALL))
    )
    made = Lengths(lengths=[16], tokens=32, small=True, repeats=1)
    sizes = [made.measure(way, "16 tokens", Meter(threads=1))["non_embedding_m"] for way in NETWORKS]
    assert len(set(sizes)) == 3 and all(0 < size < 1 for size in sizes)


def test_ratios_are_told_to_what_is_composed_by_hand():
    assert Lengths(small=True).besides == tuple(NETWORKS) and Lengths().besides == ()
    assert Lengths().goals == lengths.GOALS[:1] and Lengths(small=True).goals == lengths.GOALS


def test_where_it_cannot_be_composed_that_is_said(monkeypatch):
    with pytest.raises(Absent, match="on CUDA only, not on cpu"):
        lengths.composed("plain", 16, "cpu")
    monkeypatch.setattr(by_hand, "able", lambda name: False)
    with pytest.raises(Absent, match=r"mamba_ssm, .* is not installed"):
        lengths.composed("authors, hybrid", 16, "cuda")


def test_ours_alone_are_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(lengths, "compiled", lambda net, device: asked.append(device))
    monkeypatch.setattr(
        lengths, "composed", lambda way, length, device: Composed(NETWORKS[way], Sizes(length, **SMALL))
    )
    monkeypatch.setattr(lengths, "network", lambda recipe, length, device: nets.sedd(200, length, 32, 1, device))
    for told in (False, True):
        made = Lengths(lengths=[16], tokens=32, small=True, repeats=1, compile=told)
        for way in ("transformer", "plain"):
            made.measure(way, "16 tokens", Meter(threads=1))
        assert asked == ["cpu"] * told


def test_a_recipe_is_shortened_and_its_overrides_count(tmp_path):
    short = shortened(load("quickstart/sedd.yaml"), 7, tmp_path, ["train.threads=1", "train.parallel={type: fsdp}"])
    train = short.data["train"]
    assert (train["steps"], train["threads"], train["parallel"]["type"]) == (7, 1, "fsdp")
    assert train["checkpoint_every"] == 0 and not any(
        one and one["every"] for one in short.data["evaluations"].values()
    )


def test_updates_of_a_run_are_timed_and_its_weights_are_not_kept(tmp_path, monkeypatch):
    short = shortened(load("smoke/sedd.yaml"), 5, tmp_path, ["train.threads=1", "train.device=cpu"])
    run, met, clock = experiment.create(short, tmp_path / "runs"), [], iter([10.0, 16.0])
    monkeypatch.setattr(process, "met", lambda trainer: met.append(trainer.step) or next(clock))
    found = process.timed(run, short, Parallel(), warm=2)
    assert met == [2, 5] and found["seconds"] == 2.0 and found["peak_mb"] >= 0
    assert not list(run.ckpt.glob("step-*"))


def test_without_a_gpu_for_each_process_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    (task,) = chosen(["processes"], quick=True, device="cuda")
    for case, way in task.pairs():
        assert here(task, way, case, Meter("cuda")) == {
            "absent": "a GPU for each of 2 processes is not here: there is 1"
        }


def test_a_recipe_without_text_or_processes_that_fail_are_told(monkeypatch, tmp_path):
    made = Processes(**{**Processes.example(), "sharings": ["ddp", "fsdp"]})
    monkeypatch.setattr(together, "command", lambda *words: [sys.executable, "-c", "print('out of\\nroom'); exit(3)"])
    with pytest.raises(Absent, match="the processes failed: out of room"):
        made.measure("ddp", "", Meter(threads=1))
    monkeypatch.setattr(together, "command", lambda *words: pytest.fail("started"))
    absent = Processes("smoke/sedd.yaml", [f"data.corpus={{type: text, paths: [{tmp_path}/none.txt]}}"])
    with pytest.raises(Absent, match=r"the text of smoke/sedd\.yaml cannot be prepared"):
        absent.measure("ddp", "", Meter(threads=1))


def test_the_slowest_and_the_largest_process_count_beside_what_is_predicted(monkeypatch):
    started = []

    def command(count, module, words):
        started.append((count, module, json.loads(words)["warm"]))
        figures = [{"seconds": 2.0 + rank, "peak_mb": 100.0 - rank} for rank in range(count)]
        files = {f"{json.loads(words)['found']}/{rank}.json": json.dumps(one) for rank, one in enumerate(figures)}
        return [sys.executable, "-c", f"[open(name, 'w').write(text) for name, text in {files!r}.items()]"]

    monkeypatch.setattr(together, "command", command)
    made = Processes(**{**Processes.example(), "sharings": ["ddp", "fsdp"]})
    rows = {way: made.measure(way, "", Meter(threads=1)) for way in made.ways}
    assert [count for count, *_ in started] == [1, 2, 2]
    assert {one[1:] for one in started} == {("workbench.bench.process", 1)}
    train = load("smoke/sedd.yaml").data
    tokens = train["train"]["batch"] * train["data"]["length"]
    assert rows["ddp"]["seconds"] == 3.0 and rows["ddp"]["tokens_per_second"] == tokens / 3.0
    assert rows["ddp"]["peak_mb"] == 100.0
    here = load("smoke/sedd.yaml", ["train.device=cpu", "train.precision=fp32"])
    predicted = {one.parallel: one.total for one in processes.at_processes(here, [2])}
    assert rows["fsdp"]["predicted_mb"] == pytest.approx(predicted["fsdp"] / 2**20, rel=0.01)
