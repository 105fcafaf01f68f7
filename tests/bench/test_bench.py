"""Benchmarks: medians, ratios and goals. Each stays alive at toy size by its contract; times are never asserted."""

from __future__ import annotations

import json

import pytest

from workbench.bench import run
from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.bench.run import Task, chosen, here, measure, pairs
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError


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
    assert list(pairs(task.made)) == [
        ("large, 2", "plain"), ("large, 2", "ours"), ("large, 2", "theirs"), ("small", "plain"), ("small", "ours"),
    ]  # fmt: skip
    found = measure(task, Meter(), 3, one=here)
    rows = {(row["case"], row["way"]): row for row in found.rows}
    ours = rows["large, 2", "ours"]
    assert (ours["seconds"], ours["ratio"], ours["memory"], ours["runs"]) == (1.0, 4.0, 1.0, 3)  # not the slow round
    assert ours["wanted"] == "≥ 3×, ≤ 0.5 of its memory" and ours["met"] is False
    assert rows["small", "ours"]["wanted"] == "< 0.1 s" and "wanted" not in rows["small", "plain"]
    assert found.absent == [{"case": "large, 2", "way": "theirs", "why": "no such package"}]


def test_goals_are_of_a_device():
    found = measure(Task("told", {}, Told()), Meter(), 1, one=here)
    assert Goal("ours", ratio=4.0).met(found.rows[1]) and not Goal("ours", ratio=4.1).met(found.rows[1])
    elsewhere = Told()
    elsewhere.goals = (Goal("ours", ratio=1.0, device="cuda"),)
    assert all("wanted" not in row for row in measure(Task("told", {}, elsewhere), Meter(), 1, one=here).rows)


def test_settings_and_names_are_checked():
    (task,) = chosen(["sedd_training"], ["repeats=5", "sedd_training.cases=[[70, 3]]"])
    assert task.data["repeats"] == 5 and task.made.cases("workbench fp32") == ["vocabulary 70, 3×256 tokens"]
    with pytest.raises(WorkbenchError, match="Did you mean 'sedd_training'"):
        chosen(["sedd_trainning"])
    with pytest.raises(WorkbenchError, match="no such setting"):
        chosen(["sedd_bound"], ["sedd_bound.drawz=5"])
    assert len(chosen([], quick=True)) == len(Benchmark.registered) >= 9


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


def test_out_must_be_a_folder(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert main(["bench", "scans", "--quick", "--device", "cpu", "--out", str(file)]) == 1
    assert "name a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_first_update_is_timed():
    (task,) = chosen(["start_up"], ["recipe=smoke/sedd.yaml", "repeats=1"])
    _, case = task.made.cases("workbench")
    assert here(task, "workbench", case, Meter(threads=1))["seconds"] > 0


