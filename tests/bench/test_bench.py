"""Benchmarks: medians, ratios and goals. Each stays alive at toy size by its contract; times are never asserted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.kernels.tape import Tape
from workbench.bench import bound, nets, run, sampling
from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.bench.lengths import Lengths
from workbench.bench.run import Task, chosen, here, measure
from workbench.bench.start_up import StartUp
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.recipe import load

ROOT = Path(__file__).parents[2]


class Told(Benchmark):
    """Figures that are told, not measured."""

    yardstick = "plain"
    ways = ("plain", "ours", "theirs")
    goals = (Goal("ours", ratio=3.0, memory=0.5, case="large"), Goal("ours", seconds=0.1, case="small"))

    def __init__(self):
        self.turn = 0

    def cases(self, way):
        return ["large, 2"] if way == "theirs" else ["large, 2", "small"]

    def measure(self, way, case, meter):
        if way == "theirs":
            raise Absent("no such package")
        self.turn += 1
        return {"seconds": {"plain": 4.0, "ours": 1.0}[way] * (100.0 if self.turn < 3 else 1.0), "peak_mb": 10.0}


def test_medians_ratios_and_goals():
    task = Task("told", {}, Told())
    assert list(task.pairs()) == [
        ("large, 2", "plain"), ("large, 2", "ours"), ("large, 2", "theirs"), ("small", "plain"), ("small", "ours"),
    ]  # fmt: skip
    found = measure(task, Meter(), 3, one=here)
    rows = {(row["case"], row["way"]): row for row in found.rows}
    ours = rows["large, 2", "ours"]
    assert (ours["seconds"], ours["ratio"], ours["memory"], ours["runs"]) == (1.0, 4.0, 1.0, 3)  # not the slow round
    assert ours["wanted"] == "≥ 3×, ≤ 0.5 of its memory" and ours["met"] is False
    assert rows["small", "ours"]["wanted"] == "< 0.1 s" and "wanted" not in rows["small", "plain"]
    assert found.absent == [{"case": "large, 2", "way": "theirs", "why": "no such package"}]


def test_replayed_walks_are_those_that_launch_every_pass(monkeypatch):
    """On CUDA; here a tape stands in for the graph. Same calls, same texts read."""
    (task,) = chosen(["sedd_sampling"], quick=True)
    toy = task.made
    (case,) = toy.cases("analytic, replayed")
    with pytest.raises(Absent, match="on CUDA only, not on cpu"):
        toy.measure("analytic, replayed", case, Meter(threads=1))
    tape = Tape()
    monkeypatch.setattr(sampling, "no_recorder", lambda device: None)
    monkeypatch.setattr(sampling, "recorder_on", lambda device: tape)
    plain, replayed = (toy.measure(way, case, Meter(threads=1)) for way in ("analytic", "analytic, replayed"))
    assert tape.records == 1
    assert all(plain[name] == replayed[name] for name in ("calls", "read", "scaled"))


@pytest.mark.parametrize("bad", [{"absent": "failed: gone"}, {"seconds": 1.0, "nats": float("nan")}])
def test_a_way_that_fails_in_a_later_round_is_not_measured(bad):
    class Failing(Told):
        def measure(self, way, case, meter):
            self.turn += 1
            return bad if (way, case) == ("ours", "small") and self.turn > 5 else {"seconds": 1.0}

    found = measure(Task("failing", {}, Failing()), Meter(), 2, one=here)
    assert [(one["case"], one["way"]) for one in found.absent] == [("small", "ours")]
    assert found.absent[0]["why"].startswith("failed: ")
    assert [row["runs"] for row in found.rows] == [2] * 4 and ("small", "ours") not in {
        (row["case"], row["way"]) for row in found.rows
    }


def test_recipes_by_name_are_the_ways():
    (task,) = chosen(["lengths"], ["recipes={mine: smoke/sedd.yaml}", "lengths.lengths=[16]"])
    assert list(task.pairs()) == [("16 tokens", "mine")]
    with_blocks = Lengths(lengths=[16], small=True)
    own = {"transformer", "mamba2", "mamba", "hybrid"}
    assert {way for _, way in Task("", {}, with_blocks).pairs()} == {*own, "authors", "authors, hybrid", "plain"}


def test_crossovers_are_read_where_there_is_a_yardstick():
    rows = [
        {"case": f"{length} tokens", "way": way, "ratio": ratio}
        for way, ratios in {"one": (0.5, None, 2.0), "two": (None, None, None)}.items()
        for length, ratio in zip((100, 200, 400), ratios, strict=True)
    ]
    assert Lengths(lengths=[100, 200, 400]).notes(rows) == [
        "one beside the transformer: overtakes at about 200 tokens.", "two beside the transformer: no yardstick.",
    ]  # fmt: skip


def test_the_plain_bound_reads_for_its_clean_up_only_texts_that_hold_a_mask():
    net = nets.sedd(60, 128, 32, 1, "cpu").eval().requires_grad_(False)
    x0_BL, seq_B, rng, draws = np.random.default_rng(0).integers(0, 60, (4, 128)), np.arange(4), Rng(0), 8
    read = []
    hook = net.register_forward_pre_hook(lambda net, inputs: read.append(len(inputs[0])))
    with torch.no_grad():
        found = bound.plain(net, torch.from_numpy(x0_BL), seq_B, rng, draws)
    hook.remove()
    masked = [rng.uniform("bound/eps", k, seq_B, 128) < (1 - 1e-3) * bound.EPS for k in range(draws)]
    held = int(sum(one.any(-1).sum() for one in masked))
    assert 0 < held < 4 * draws and sum(read) == 4 * draws + held
    ours = nets.diffusion(60, 128, "cpu").nll(Shell(net), x0_BL, seq_B, rng, draws)
    np.testing.assert_allclose(found, ours.nats_BK, rtol=1e-5)


def test_freed_memory_is_kept_only_where_it_is_asked_for(monkeypatch):
    kept = []
    monkeypatch.setattr("workbench.train.machine.keep_memory", lambda: kept.append(True))
    Meter(threads=1).settle(kept=False)
    assert not kept
    Meter(threads=1).settle()
    assert kept


def test_settings_and_names_are_checked():
    (task,) = chosen(["sedd_training"], ["repeats=5", "sedd_training.cases=[[70, 3]]"])
    assert task.data["repeats"] == 5 and task.made.cases("workbench fp32") == ["vocabulary 70, 3×256 tokens"]
    with pytest.raises(WorkbenchError, match="Did you mean 'sedd_training'"):
        chosen(["sedd_trainning"])
    with pytest.raises(WorkbenchError, match="no such setting"):
        chosen(["sedd_bound"], ["sedd_bound.drawz=5"])
    assert len(chosen([], quick=True)) == len(Benchmark.registered) >= 9


def test_a_setting_without_a_name_is_that_of_the_only_benchmark_that_has_it():
    (task,) = chosen(["lengths"], ["lengths=[16]"])
    assert task.data["lengths"] == [16]
    for own in ("lengths=[16]", "lengths.lengths=[16]"):
        found = {task.name: task.data for task in chosen(["lengths", "packing"], [own])}
        assert found["lengths"]["lengths"] == [16] and found["packing"] == chosen(["packing"])[0].data
    assert {task.name: task.data for task in chosen([], ["small=true"], quick=True)}["lengths"]["small"] is True


@pytest.mark.parametrize(
    ("names", "word", "said"),
    [
        (["lengths", "scans"], "repeats=2", "lengths, scans have a setting 'repeats' each: .*lengths.repeats=2"),
        (["lengths", "packing"], "lenghts=[16]", "none of lengths, packing has .* Did you mean 'lengths'"),
        (["packing"], "lengths.lengths=[16]", r"'lengths' is not among those measured \(packing\); name it too"),
    ],
)
def test_whose_setting_it_is_must_be_plain(names, word, said):
    with pytest.raises(WorkbenchError, match=said):
        chosen(names, [word])


def test_a_way_runs_in_a_process_of_its_own_and_a_failure_is_told():
    (task,) = chosen(["sedd_bound"], quick=True)
    (case,) = task.made.cases("workbench")
    got = run.in_a_process(task, "workbench", case, Meter(threads=1))
    assert got["seconds"] > 0 and got["peak_mb"] >= 0 and 2.0 < got["nats"] < 8.0
    alone = here(task, "plain fp32", case, Meter(threads=1))
    assert got["nats"] == pytest.approx(alone["nats"], rel=1e-5)  # both ways are the same bound
    broken = run.in_a_process(Task("", {"type": "sedd_bound", "draws": 0}, task.made), "workbench", case, Meter())
    assert "failed" in broken["absent"]


def test_the_command_writes_record_and_page(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    monkeypatch.setattr(run, "in_a_process", here)
    words = ["bench", "lengths", "scans", "--quick", "--threads", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "| mamba2 |" in capsys.readouterr().out
    record = json.loads((tmp_path / "bench-cpu.json").read_text())
    assert {"date", "machine", "torch", "threads", "commit", "command"} <= set(record)
    found = record["benchmarks"]["lengths"]
    assert [row["way"] for row in found["rows"]] == ["transformer", "mamba2"] and found["settings"]["tokens"] == 32
    assert any("mamba2 beside the transformer" in note for note in found["notes"])
    assert "## scans" in (tmp_path / "bench-cpu.md").read_text()
    assert (tmp_path / "lengths-cpu.svg").stat().st_size > 1000


@pytest.fixture
def benched(monkeypatch, tmp_path):
    """Runs the command on benchmarks that are told; the exit status, the record, the page."""

    def benched(**made):
        tasks = [Task(name, {}, one) for name, one in made.items()]
        monkeypatch.setattr(run, "chosen", lambda names, overrides, quick, device: tasks)
        monkeypatch.setattr(run, "in_a_process", here)
        status = main(["bench", "--rounds", "1", "--device", "cpu", "--out", str(tmp_path / "new" / "out")])
        files = tmp_path / "new" / "out" / "bench-cpu.json", tmp_path / "new" / "out" / "bench-cpu.md"
        return status, json.loads(files[0].read_text()), files[1].read_text()

    return benched


def test_a_bench_that_is_stopped_keeps_what_was_measured(benched, capsys):
    class Stopped(Told):
        def measure(self, way, case, meter):
            raise KeyboardInterrupt

    status, record, page = benched(first=Told(), second=Stopped())
    assert status == 130 and list(record["benchmarks"]) == ["first"] and record["waiting"] == ["second"]
    assert len(record["benchmarks"]["first"]["rows"]) == 4 and "## first" in page
    assert "Not measured yet: second." in page
    assert "with the same settings: workbench bench second" in capsys.readouterr().err


def test_notes_and_figures_that_fail_are_told_and_lose_nothing(benched):
    class Broken(Told):
        def notes(self, rows):
            raise ValueError("no\nsense")

        def draw(self, rows, folder, stem):
            raise ImportError("no plots")

    status, record, page = benched(first=Broken(), second=Told())
    assert status == 0 and record["waiting"] == [] and "Not measured yet" not in page
    assert [len(one["rows"]) for one in record["benchmarks"].values()] == [4, 4]
    told = ["The notes failed: ValueError: no sense.", "The figures failed: ImportError: no plots."]
    assert record["benchmarks"]["first"]["notes"] == told and record["benchmarks"]["second"]["notes"] == []
    assert "\n".join(told) in page


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_out_must_be_a_folder_before_anything_is_measured(place, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run, "in_a_process", lambda *_: pytest.fail("measured"))
    assert main(["bench", "scans", "--quick", "--device", "cpu", "--out", str(tmp_path / place)]) == 1
    assert "name a folder" in capsys.readouterr().err


def test_fewer_threads_than_none_are_refused(capsys):
    assert main(["bench", "scans", "--quick", "--threads", "-1", "--device", "cpu"]) == 1
    assert "--threads at least 0" in capsys.readouterr().err


def test_a_first_update_evaluates_nothing_whatever_evaluations_are_called(monkeypatch, tmp_path):
    (tmp_path / "toy.yaml").write_text(
        f"extends: {os.path.relpath(ROOT, tmp_path)}/recipes/smoke/sedd.yaml\nname: toy\n"
        "train: {best: often/bits_per_byte}\nevaluations: {often: {every: 1, blocks: 1, metrics: [bits_per_byte]}}\n"
    )
    asked = []
    monkeypatch.setattr("workbench.assemble.prepare", lambda resolved: None)
    monkeypatch.setattr(StartUp, "_run", lambda self, fresh, meter: asked.extend(fresh()) or 1.0)
    made = StartUp(str(tmp_path / "toy.yaml"))
    made.measure("workbench", made.cases("workbench")[1], Meter())
    data = load(tmp_path / "toy.yaml", [word for word in asked if "=" in word]).data
    assert data["train"]["steps"] == 1 and not any(one and one["every"] for one in data["evaluations"].values())


@pytest.mark.slow
def test_a_first_update_is_timed():
    (task,) = chosen(["start_up"], ["recipe=smoke/sedd.yaml", "repeats=1"])
    _, case = task.made.cases("workbench")
    assert here(task, "workbench", case, Meter(threads=1))["seconds"] > 0
