"""What the doctor says of a machine: true where it can be checked, and a self-test that can fail."""

from __future__ import annotations

import json

import pytest

from workbench import doctor, experiment
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.kernels.dispatch import DISPATCHERS


def test_the_page_as_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["kernels"]["operations"]) == {one.operation for one in DISPATCHERS}
    for candidates in found["kernels"]["operations"].values():
        assert sum(verdict == "auto" for _, verdict, _ in candidates) == 1
    assert [one["problem"] for one in found["self_test"]] == [""] * 4
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_the_page_as_text_says_how_to_add_what_is_absent(capsys, monkeypatch):
    needs = ["torch>=2", 'nowhere-to-be-found>=3; extra == "cuda"', 'pytest>=8; extra == "test"']
    monkeypatch.setattr(doctor, "_requirements", lambda: needs)
    assert main(["doctor", "--no-test"]) == 0
    text = capsys.readouterr().out
    assert 'pip install --no-build-isolation "nowhere-to-be-found>=3"' in text
    assert "Self-test" not in text and "pytest>=8" not in text


def test_a_failing_step_is_told_and_ends_the_test(capsys, monkeypatch):
    def broken(*words, **more):
        raise WorkbenchError("no measure of it")

    monkeypatch.setattr(experiment, "evaluate", broken)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "FAILED: no measure of it" in text and "sample" not in text.partition("FAILED")[2]


def test_a_resume_that_gives_other_weights_is_seen(monkeypatch):
    from workbench.train.learner import Learner

    restore = Learner.restore

    def forgetful(learner, found):
        restore(learner, found)
        next(learner.net.parameters()).data.add_(1.0)

    monkeypatch.setattr(Learner, "restore", forgetful)
    *_, last = doctor.self_test()
    assert "gave other weights" in last["problem"]


@pytest.mark.parametrize(("free", "problem"), [(1 << 40, ""), (1 << 20, "little room")])
def test_disk(tmp_path, monkeypatch, free, problem):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    (row,) = doctor.disk({"runs": tmp_path / "not" / "yet"})
    assert (row["free_bytes"], row["problem"]) == (free, problem)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert doctor.disk({"runs": tmp_path})[0]["problem"] == "cannot be written"
