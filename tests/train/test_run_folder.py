"""Run folders: by hash, one writer, honest about their state."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time

import pytest

from workbench.core.files import write_json
from workbench.environment import environment, source_state
from workbench.run import RunError, RunFolder, every, find, slug, status_line

DIGEST = "0123456789abcdef"


def hold(path, ready):
    """Hold a run's lock for ever."""
    with RunFolder(path).locked() as run:
        run.mark("training", step=3, steps=9)
        ready.set()
        time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """A run, and a process that is writing it."""
    run = RunFolder.create("toy run", DIGEST, tmp_path)
    # spawned, not forked: threads that other tests left in this process may hold locks in a fork
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=hold, args=(run.path, ready))
    child.start()
    assert ready.wait(30)
    yield run, child
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_create_opens_what_is_there(tmp_path):
    plugin = tmp_path / "my_gru.py"
    plugin.write_text("x = 1\n")
    run = RunFolder.create("toy run", DIGEST, tmp_path / "runs", "name: toy\n", [plugin])
    assert run.path.name == "toy-run-01234567"
    assert run.resolved.read_text() == "name: toy\n"
    assert (run.plugins / "my_gru.py").read_text() == "x = 1\n"
    run.mark("trained", step=5, steps=5)
    again = RunFolder.create("toy run", DIGEST, tmp_path / "runs")
    assert again.path == run.path and again.finished and again.name == "toy run"


def test_another_recipe_with_the_same_name_is_refused(tmp_path):
    RunFolder.create("toy", DIGEST, tmp_path)
    with pytest.raises(RunError, match="another recipe"):
        RunFolder.create("toy", "01234567ffffffff", tmp_path)


def test_one_writer_at_a_time(holder):
    run, child = holder
    assert run.in_use() and run.state == "training"
    with pytest.raises(RunError, match=f"in use by process {child.pid} on "), run.locked():
        pass


def test_a_dead_writers_lock_is_free_and_the_run_says_it_died(holder):
    run, child = holder
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not run.in_use()
    assert run.state == "died"
    with run.locked():
        run.mark("training")
        assert run.in_use() and run.state == "training"
    assert not run.in_use()


def test_status_keeps_facts_and_drops_errors(tmp_path):
    run = RunFolder.create("toy", DIGEST, tmp_path)
    assert run.state == "created" and not run.finished
    run.mark("failed", step=4, steps=10, error="NonFinite: loss nan\nmore")
    assert status_line(run.read_status()) == "failed 4/10: NonFinite: loss nan"
    run.mark("training", step=5)
    facts = run.read_status()
    assert (facts["step"], facts["steps"], facts["pid"], facts.get("error")) == (5, 10, os.getpid(), None)
    with pytest.raises(ValueError, match="no run state 'done'"):
        run.mark("done")


def test_runs_are_found_by_hash_whatever_their_name(tmp_path):
    first = RunFolder.create("one", DIGEST, tmp_path)
    second = RunFolder.create("two", DIGEST, tmp_path)
    RunFolder.create("three", "f" * 16, tmp_path)
    second.mark("evaluated", step=9)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "status").write_text("{")
    assert [run.name for run in find(DIGEST, tmp_path)] == ["two", "one"]
    assert {run.name for run in every(tmp_path)} == {"one", "two", "three"}
    assert first.hash == DIGEST
    assert find("absent", tmp_path / "nowhere") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "x"}'])
def test_a_damaged_status_is_a_clear_error(tmp_path, text):
    (tmp_path / "status").write_text(text)
    with pytest.raises(RunError, match="cannot be read"):
        RunFolder(tmp_path)
    with pytest.raises(RunError, match="no run folder"):
        RunFolder(tmp_path / "nowhere")


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_environment_says_what_results_depend_on():
    facts = environment()
    assert facts["packages"]["numpy"] and facts["python"] and facts["cores"] >= 1
    json.dumps(facts)


def test_source_state_tells_commit_and_changes(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    assert source_state(tmp_path) == {}
    git("init", "-q")
    (tmp_path / "a.py").write_text("one\n")
    assert source_state(tmp_path)["dirty"] is True
    git("add", ".")
    git("commit", "-qm", "first")
    clean = source_state(tmp_path)
    assert clean["dirty"] is False and len(clean["commit"]) == 40
    (tmp_path / "a.py").write_text("two\n")
    changed = source_state(tmp_path)
    assert changed["dirty"] is True and "+two" in changed["diff"]
    (tmp_path / ".gitignore").write_text("env/\n")
    (tmp_path / "env").mkdir()
    assert source_state(tmp_path / "env") == {}


def test_slug():
    assert [slug(name) for name in ("a b/c", "../x", "é", "SEDD-1.2_b")] == ["a-b-c", "x", "run", "SEDD-1.2_b"]
