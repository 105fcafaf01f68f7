"""What waits for a GPU is in order: its steps name what exists, and one that fails loses nothing."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from tests import gpu
from tests.gpu import Step, perform_all, speed, steps
from workbench.bench.run import chosen
from workbench.recipe import load


def test_every_benchmark_of_which_something_is_wanted_on_cuda_is_a_step():
    wanted = {task.name for task in chosen([], device="cuda") if task.wanted("cuda").only}
    assert wanted <= {*gpu.WANTED, *gpu.WHOLE} and all(chosen([name]) for name in (*gpu.WANTED, *gpu.WHOLE))


@pytest.mark.parametrize("toy", [False, True])
def test_short_trainings_are_of_the_recipes(toy, tmp_path):
    trainings = {step.name: step.command for step in steps(tmp_path, toy) if step.name.startswith("train-")}
    assert len(trainings) == 4
    for name, command in trainings.items():
        (recipe,) = [word for word in command if word.endswith(".yaml")]
        data = load(recipe, [word for word in command if "=" in word]).data
        assert f"train-{data['name']}" == name and data["train"]["steps"] == (4 if toy else 200)
        assert data["train"]["accumulate"] == 1 and data["train"]["device"] == "cuda"
        assert not any(one and one["every"] for one in data["evaluations"].values())


def test_a_step_that_fails_stops_nothing_and_all_is_kept(tmp_path, capfdbinary):
    def python(name, text):
        return Step(name, [sys.executable, "-c", text])

    log = tmp_path / "runs" / "small-0" / "log.jsonl"
    log.parent.mkdir(parents=True)
    lines = [{"train/tokens_per_second": 1234.5, "train/memory_mb": 99.6}, {"valid/bits_per_byte": 1.0}]
    log.write_text("".join(json.dumps({"step": 1, "values": one}) + "\n" for one in lines))
    every = [python("first", "print('one'); raise SystemExit('gone')"), python("train-small", "print('two')")]
    assert perform_all(every, tmp_path) == 1
    assert (tmp_path / "first.log").read_text().splitlines() == ["one", "gone"]
    assert (tmp_path / "train-small.log").read_text() == "two\n"
    said = [line.split(", ") for line in (tmp_path / "summary.txt").read_text().splitlines()]
    assert [one[0] for one in said] == ["first: status 1", "train-small: status 0"]
    assert said[1][2:] == ["1,234 tokens/s", "100 MB"] and speed(tmp_path, "large") == ""
    assert b"=== train-small\ntwo\n" in capfdbinary.readouterr().out


def test_without_cuda_nothing_is_begun_and_unknown_steps_are_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([str(tmp_path / "out")]) == 1 and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        gpu.main([str(tmp_path / "out"), "--only", "bemch"])
    assert "no such step: bemch; there are tests, doctor, bench, whole, train-sedd-small" in capsys.readouterr().err
