"""What is wanted of benchmarks: in words, met or not, measured alone; and FLOPs beside what is counted."""

from __future__ import annotations

import json

import pytest
import torch

from tests.bench.test_bench import Told
from workbench.bench import nets, run
from workbench.bench.base import Absent, Goal, Meter
from workbench.bench.flops import update_flops
from workbench.bench.left_to_right import Gpt2Sampling, Gpt2Training
from workbench.bench.page import grid, verdicts
from workbench.bench.run import Task, chosen, here, measure
from workbench.bench.sampling import Sampling
from workbench.bench.training import Training
from workbench.cli.main import main


def test_goals_are_of_a_device():
    found = measure(Task("told", {}, Told()), Meter(), 1, one=here)
    assert Goal("ours", ratio=4.0).met(found.rows[1]) and not Goal("ours", ratio=4.1).met(found.rows[1])
    elsewhere = Told()
    elsewhere.goals = (Goal("ours", ratio=1.0, device="cuda"),)
    assert all("wanted" not in row for row in measure(Task("told", {}, elsewhere), Meter(), 1, one=here).rows)


def test_a_goal_may_be_beside_another_way_than_the_yardstick():
    class Low(Told):
        ways, besides = ("plain", "plain low", "ours"), ("plain low",)
        goals = (Goal("ours", ratio=3.0, beside="plain low"),)

        def cases(self, way):
            return ["one"]

        def measure(self, way, case, meter):
            return {"seconds": {"plain": 4.0, "plain low": 2.0, "ours": 1.0}[way], "tokens_per_second": 7.0}

    rows = measure(Task("low", {}, Low()), Meter(), 1, one=here).rows
    ours = rows[2]
    assert (ours["ratio"], ours["to plain low"]) == (4.0, 2.0)
    assert ours["wanted"] == "≥ 3× beside plain low" and ours["met"] is False
    heads, _, *_, told = grid(rows, "plain")
    assert heads == "| case | way | seconds | to plain | to plain low | tokens/s | wanted |"
    assert told == "| one | ours | 1 | 4.00× | 2.00× | 7 | ≥ 3× beside plain low: not met (2×) |"


def test_bf16_is_held_to_bf16():
    assert {goal.beside for goal in Gpt2Training.goals} == {"plain bf16"}
    assert {goal.beside for goal in Gpt2Sampling.goals} == {"transformers bf16"}
    assert {goal.beside for goal in Sampling.goals if goal.device == "cuda"} == {"published bf16"}
    assert {"published bf16", "published bf16, memory kept"} == set(Training.besides) < set(Training.ways)


def test_what_was_not_measured_is_not_met():
    assert not Goal("ours", memory=0.5).met({"seconds": 1.0, "memory": None})
    assert Goal("ours", memory=0.5).met({"seconds": 1.0, "memory": 0.0})
    assert not Goal("ours", ratio=1.0).met({"seconds": 1.0, "ratio": None})


def test_a_share_of_the_matmul_rate_may_be_wanted():
    goal = Goal("ours", ratio=2.0, memory=0.35, of_matmul=0.45, beside="plain bf16")
    assert goal.in_words() == "≥ 2×, ≤ 0.35 of its memory beside plain bf16, ≥ 45% of the matmul rate"
    row = {"seconds": 1.0, "ratio": 2.5, "memory": 0.35, "of_matmul": 0.45}
    assert goal.met(row)
    assert goal.missed({**row, "ratio": 1.845, "of_matmul": 0.4444}) == ["1.84×", "44.4% of the matmul rate"]
    assert goal.missed({"seconds": 1.0}) == ["ratio not measured", "memory not measured", "matmul rate not measured"]
    assert Goal("ours", of_matmul=0.45).in_words() == "≥ 45% of the matmul rate"
    assert str(Goal("ours", seconds=2, case="small", device="cuda")) == "cuda, ours, small: < 2 s"


class Several(Told):
    """Two goals of a way at a case, beside different ways, and one of a way that is absent."""

    ways, besides = ("plain", "low", "ours", "theirs", "idle"), ("low",)
    goals = (
        Goal("ours", ratio=3.0),
        Goal("ours", ratio=3.0, beside="low", case="large"),
        Goal("theirs", ratio=1.0, case="large"),
        Goal("idle", ratio=1.0, device="cuda"),
    )

    def cases(self, way):
        return ["large", "small"]

    def measure(self, way, case, meter):
        if way == "theirs":
            raise Absent("no such package")
        return {"seconds": {"plain": 4.0, "low": 2.0, "ours": 1.0, "idle": 1.0}[way]}


def test_all_that_is_wanted_of_a_way_is_judged_and_told():
    task = Task("several", {}, Several())
    found = measure(task, Meter(), 1, one=here)
    ours = next(row for row in found.rows if (row["case"], row["way"]) == ("large", "ours"))
    assert ours["wanted"] == "≥ 3×; ≥ 3× beside low"
    assert ours["met"] is False and ours["missed"] == "2× beside low"
    assert verdicts(found, "cpu") == [
        "several, large, ours: ≥ 3×; ≥ 3× beside low: not met (2× beside low)",
        "several, small, ours: ≥ 3×: met",
        "several, large, theirs: ≥ 1×: not measured (no such package)",
    ]


def test_only_what_something_is_wanted_of_and_what_it_is_beside():
    task = Task("several", {}, Several())
    assert list(task.wanted("cpu").pairs()) == [
        ("large", "plain"), ("large", "low"), ("large", "ours"), ("large", "theirs"),
        ("small", "plain"), ("small", "ours"),
    ]  # fmt: skip
    assert list(task.wanted("cuda").pairs()) == [
        ("large", "plain"), ("large", "idle"), ("small", "plain"), ("small", "idle"),
    ]  # fmt: skip
    toy = Task("several", {}, Several(), toy=True)
    assert toy.wanted("cpu") is toy and not verdicts(measure(toy, Meter(), 1, one=here), "cpu")


def test_the_command_measures_what_is_wanted_and_says_what_became_of_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "chosen", lambda names, overrides, quick, device: [Task("several", {}, Several())])
    monkeypatch.setattr(run, "in_a_process", here)
    assert main(["bench", "--goals", "--rounds", "1", "--device", "cpu", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Wanted on cpu:\nseveral, large, ours: ≥ 3×; ≥ 3× beside low: not met (2× beside low)" in said
    record = json.loads((tmp_path / "several-cpu.json").read_text())["benchmarks"]["several"]
    assert "idle" not in {row["way"] for row in record["rows"]}


def test_where_nothing_is_wanted_that_is_said(capsys):
    assert main(["bench", "scans", "--goals", "--device", "cpu"]) == 1
    assert "nothing is wanted of these on cpu at these sizes" in capsys.readouterr().err


def test_a_device_has_sizes_of_its_own_which_what_is_said_goes_before():
    (small,), (large,) = chosen(["sedd_training"]), chosen(["sedd_training"], device="cuda")
    assert small.data == chosen(["sedd_training"], device="tpu")[0].data
    assert {**small.data, **Training.sizes("cuda")} == large.data and large.data["length"] == 1024
    (said,) = chosen(["sedd_training"], ["length=512"], device="cuda")
    assert said.data == {**large.data, "length": 512}
    (toy,) = chosen(["sedd_training"], quick=True, device="cuda")
    assert toy.data["length"] == Training.example()["length"]


def test_a_goal_on_cuda_is_of_cases_that_its_sizes_there_have():
    for task in chosen([], device="cuda"):
        pairs = set(task.pairs())
        for goal in (one for one in task.made.goals if one.device == "cuda"):
            fitting = [case for case, way in pairs if way == goal.way and case.startswith(goal.case)]
            assert fitting, (task.name, goal)
            assert all((case, goal.beside or task.made.yardstick) in pairs for case in fitting), (task.name, goal)


def test_what_is_wanted_of_one_gpu_is_asked_for():
    def wanted(name):
        (task,) = chosen([name], device="cuda")
        return {(case, way): task.goals(case, way, "cuda") for case, way in task.pairs()}

    training = {way: goals for (_, way), goals in wanted("sedd_training").items() if goals}
    assert {(one.ratio, one.memory, one.beside) for goals in training.values() for one in goals} == {
        (2.0, 0.35, "published bf16")
    }
    assert training["workbench bf16, compiled"][0].of_matmul == 0.45 and "workbench bf16" in training
    lengths = wanted("lengths")
    assert [(one.ratio, one.beside) for one in lengths["1,024 tokens", "mamba2"]] == [(1.2, "authors")]
    assert [(one.ratio, one.beside) for one in lengths["1,024 tokens", "hybrid"]] == [(1.2, "authors, hybrid")]
    assert [one.ratio for one in lengths["8,192 tokens", "mamba2"]] == [1.0, 1.2]
    bound = [one for goals in wanted("sedd_bound").values() for one in goals]
    assert [(one.ratio, one.beside) for one in bound] == [(3.0, "plain bf16")]


def test_blocks_are_not_compiled_without_triton():
    toy = Training(**Training.example())
    with pytest.raises(Absent, match="compiled by Triton: it computes on CUDA only, not on cpu"):
        toy.measure("workbench bf16, compiled", toy.cases("")[0], Meter(threads=1))


def test_compiled_blocks_and_chunks_are_those_of_training(monkeypatch):
    asked = []
    monkeypatch.setattr("workbench.bench.updates.triton_available", lambda device: None)
    monkeypatch.setattr("workbench.bench.updates.compile_blocks", lambda net: asked.append(type(net).__name__))
    monkeypatch.setattr("workbench.processes.base.Process.compile_chunks", lambda self: asked.append("chunks"))
    toy = Training(**Training.example())
    found = toy.measure("workbench bf16, compiled", toy.cases("")[0], Meter(threads=1))
    assert asked == ["Transformer", "chunks"] and found["seconds"] > 0


def test_flops_of_an_update_are_those_counted():
    """The counter knows no attention on a CPU; and less than 1 % of what σ passes through has no gradient to go on."""
    from torch.utils.flop_counter import FlopCounterMode

    batch, length, dim, depth = 3, 32, 64, 2
    net, tokens = nets.sedd(60, length, dim, depth, "cpu"), batch * length
    x_BL, sigma_B = torch.randint(60, (batch, length)), torch.rand(batch) + 0.1
    pairs = 3 * 4 * length * dim * depth * tokens
    counted = {}
    for rows in (32, 8):
        with FlopCounterMode(display=False) as counter:
            h_RD = net(x_BL, sigma_B).flatten(0, 1)[:rows]
            net.head(h_RD).square().sum().backward()
        counted[rows] = counter.get_total_flops()
        assert update_flops(net, tokens, length, rows) == pytest.approx(counted[rows] + pairs, rel=0.01)
    of_rows = update_flops(net, tokens, length, 32) - update_flops(net, tokens, length, 8)
    assert of_rows == counted[32] - counted[8] == 3 * 2 * 24 * net.head.weight.numel()


@pytest.mark.parametrize("way", ["published bf16", "workbench bf16"])
def test_rows_that_count_are_the_masks_that_were_drawn(way, monkeypatch):
    seen = []
    monkeypatch.setattr("workbench.bench.training.update_flops", lambda net, *told: seen.append(told) or 1.0)
    monkeypatch.setattr(Meter, "matmul_rate", lambda self, side, low: 1.0 if low else 2.0)
    toy = Training(cases=[[60, 16]], length=64, dim=32, depth=1, repeats=8)
    found = toy.measure(way, toy.cases(way)[0], Meter(threads=1))
    ((tokens, length, rows),) = seen
    assert (tokens, length) == (1024, 64) and rows == pytest.approx(512, rel=0.1)
    assert found["of_matmul"] == pytest.approx(1 / found["seconds"])


def test_the_rate_of_products_is_one(monkeypatch):
    monkeypatch.setattr(Meter, "seconds", lambda self, call, repeats, warm: call() is None or 0.5)
    assert Meter().matmul_rate(8, low=True) == Meter().matmul_rate(8, low=False) == 2 * 8**3 / 0.5
