"""Running a grid: sharing, failing alone, being killed and going on; the figures are the undisturbed ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.grid.files import SMOKE, figures, pids, written
from workbench.cli.main import main
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.grid.cells import plan
from workbench.grid.folder import GridFolder
from workbench.grid.status import standings, tally
from workbench.grid.work import Places, work
from workbench.launch import local
from workbench.launch.base import Job
from workbench.run import every

AXES = {"steps": {"few": {"sampler.steps": 2}, "many": {"sampler.steps": 4}}, "seed": [0, 1]}
SMALL = {"train.steps": 6, "evaluations.valid": None}


def small(folder, **settings):
    return written(folder, **{"axes": AXES, "set": SMALL, **settings})


def command(file, folder, *more):
    places = ["--runs", str(folder / "runs"), "--grids", str(folder / "grids")]
    return ["grid", str(file), *places, *more]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(command(small(folder), folder, "--workers", "1")) == 0
    return folder


def test_every_cell_is_measured_and_trainings_are_shared(undisturbed):
    found = figures(undisturbed / "runs")
    assert len(found) == 4
    assert len({run for run, _ in found}) == 2
    assert all(kept["bits_per_byte"] > 0 for kept in found.values())


def test_a_finished_grid_does_nothing_again(undisturbed, capsys):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("runs/*/measured/*.json")}
    assert main(command(small(undisturbed), undisturbed)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("runs/*/measured/*.json")}


def test_figures_that_failed_are_measured_again_by_retry(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    kept = sorted(tmp_path.glob("runs/*/measured/*.json"))[0]
    data = json.loads(kept.read_text())
    data["values"][0] |= {"value": None, "error": "no judge"}
    kept.write_text(json.dumps(data))
    assert main(command(small(tmp_path), tmp_path, "--workers", "1")) == 0
    assert figures(tmp_path / "runs") != figures(undisturbed / "runs"), "what failed stands as it is"
    assert main(command(small(tmp_path), tmp_path, "--workers", "1", "--retry")) == 0
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")
    assert kept.with_suffix(".failed").exists()


def test_another_grid_finds_what_is_there(undisturbed, tmp_path):
    file = small(tmp_path, axes={"steps": AXES["steps"], "seed": [1, 0]})
    folder = GridFolder.open(plan(file), tmp_path / "grids")
    assert tally(standings(plan(file), folder, undisturbed / "runs")) == {"done": 4}


def test_two_invocations_share_the_work(undisturbed, tmp_path):
    file = small(tmp_path)
    both = [
        subprocess.Popen([sys.executable, "-m", "workbench", *command(file, tmp_path, "--workers", "1")])
        for _ in range(2)
    ]
    assert [one.wait(timeout=240) for one in both] == [0, 0]
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")
    logs = "".join(path.read_text() for path in tmp_path.glob("grids/*/workers/*.log"))
    assert logs.count(": done") == 4


def kill_a_worker(folder, process):
    """kill -9 of the first worker that is seen with a cell; False where the grid was faster."""
    while process.poll() is None:
        for pid in pids(folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.02)
    return False


def test_a_killed_worker_is_replaced_and_figures_are_the_same(undisturbed, tmp_path):
    run = [sys.executable, "-m", "workbench", *command(small(tmp_path), tmp_path, "--workers", "1")]
    process = subprocess.Popen(run)
    assert kill_a_worker(tmp_path, process)
    assert process.wait(timeout=240) == 0
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")


def test_a_killed_parent_takes_its_workers_along_and_the_same_command_goes_on(undisturbed, tmp_path):
    run = [sys.executable, "-m", "workbench", *command(small(tmp_path), tmp_path, "--workers", "2")]
    process = subprocess.Popen(run)
    while not pids(tmp_path):
        time.sleep(0.02)
    process.kill()
    process.wait()
    workers, until = pids(tmp_path), time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert subprocess.run(run, timeout=240).returncode == 0
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")


def test_a_cell_that_kills_its_workers_fails_alone(tmp_path):
    planned, folder = plan(small(tmp_path)), GridFolder.open(plan(small(tmp_path)), tmp_path / "grids")
    first, second = planned.cells[:2]

    def die(step):
        with folder.claimed(first, step):
            pass
        (folder.claims / first.key).write_text("process 12345 on here")  # as kill -9 leaves it

    die(0)
    die(0)
    die(5)  # some progress was made: the deaths before it do not count
    die(5)
    with pytest.raises(WorkbenchError, match="was killed 3 times"), folder.claimed(first, 5):
        pass
    with folder.claimed(second, 0):
        pass
    folder.forgive(planned.cells)
    with folder.claimed(first, 5):
        pass


PLUGIN = """
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.train.schedules import Schedule
@Schedule.register("raises_in_{name}")
class Raises(Schedule):
    '''A schedule that raises.'''
    def factor(self, step, steps):
        raise {error}
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("WorkbenchError('the plug-in says so')", "the plug-in says so"),
        ("KeyError('x')", "KeyError: 'x'"),
        ('RuntimeError("can\'t allocate memory: you tried")', "out of memory"),
    ],
)
def test_a_cell_that_raises_fails_alone_and_is_tried_again_on_request(tmp_path, capsys, error, said):
    name = f"n{abs(hash(error))}"
    (tmp_path / "plugin.py").write_text(PLUGIN.format(name=name, error=error))
    base = tmp_path / "base.yaml"
    base.write_text(f"extends: {os.path.relpath(SMOKE / 'sedd.yaml', tmp_path)}\nplugins: [plugin.py]\n")
    # metrics fail in their cells; what raises while training is fatal to the cell
    axes = {"arm": {"good": {"sampler.steps": 2}, "bad": {"train.schedule": {"type": f"raises_in_{name}"}}}}
    file = small(tmp_path, base="base.yaml", axes=axes, set={"train.steps": 4})
    planned = plan(file)
    folder = GridFolder.open(planned, tmp_path / "grids")
    places = Places(tmp_path / "runs")
    work(planned, folder, places, lambda cell, what: None)
    states = {one.cell.name: one for one in standings(planned, folder, places.runs)}
    assert states["good"].state == "done"
    assert states["bad"].state == "failed"
    assert said in states["bad"].detail
    assert main([*command(file, tmp_path), "--workers", "1"]) == 1
    assert "1 of 2 cells failed" in capsys.readouterr().out
    folder.forgive(planned.cells)
    assert folder.failure(planned.cells[1]) is None


def test_a_lost_or_damaged_file_of_figures_is_measured_again(undisturbed, tmp_path):
    import shutil

    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    first, second, third, *_ = sorted(tmp_path.glob("runs/*/measured/*.json"))
    first.unlink()
    second.write_text(second.read_text()[:100])
    damaged = json.loads(third.read_text())
    third.write_text(json.dumps({**damaged, "values": "lost"}))  # where it comes from can still be read
    assert main([*command(small(tmp_path), tmp_path), "--workers", "1"]) == 0
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")


def test_a_grid_over_a_given_run_trains_nothing(undisturbed, tmp_path):
    (run, *_) = sorted((undisturbed / "runs").glob("*/status"))
    file = small(tmp_path, base=str(run.parent), axes={"sampler.steps": [2, 3]}, set={})
    assert main(command(file, tmp_path, "--workers", "1")) == 0
    assert not list(every(tmp_path / "runs"))
    folder = GridFolder.open(plan(file), tmp_path / "grids")
    assert tally(standings(plan(file), folder, tmp_path / "runs")) == {"done": 2}
    with pytest.raises(RecipeError, match="is a trained run: patches of it change the sampler"):
        plan(small(tmp_path, base=str(run.parent), axes={"train.steps": [2, 3]}, set={}))


def test_the_run_that_a_cell_starts_from_is_trained_before(tmp_path):
    axes = {"model": {"child": {"extends": str(SMOKE / "distill.yaml")}}}
    file = small(tmp_path, axes=axes, set={"train.steps": 4, "process.round": 2, "evaluations.valid": None})
    assert main(command(file, tmp_path, "--workers", "1")) == 0
    assert [run.name for run in every(tmp_path / "runs")] == ["smoke-distill", "smoke-sedd"]


def test_a_parent_recipe_that_was_changed_meanwhile_is_not_trained_in_its_place(tmp_path):
    parent = tmp_path / "parent.yaml"
    parent.write_text(f"extends: {os.path.relpath(SMOKE / 'sedd.yaml', tmp_path)}\ntrain: {{steps: 4}}\n")
    axes = {"model": {"child": {"extends": str(SMOKE / "distill.yaml"), "start.recipe": "parent.yaml"}}}
    planned = plan(small(tmp_path, axes=axes, set={"evaluations.valid": None}))
    folder = GridFolder.open(planned, tmp_path / "grids")
    parent.write_text(parent.read_text().replace("steps: 4", "steps: 5"))
    work(planned, folder, Places(tmp_path / "runs"), lambda cell, what: None)
    assert "is now a recipe of hash" in folder.failure(planned.cells[0])["cause"]
    assert not any(run.finished for run in every(tmp_path / "runs"))


def test_the_dry_run_shows_cells_and_costs_and_runs_nothing(tmp_path, capsys):
    assert main([*command(small(tmp_path), tmp_path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "4 cells, 2 trainings" in out and "many · 1" in out
    assert not list(every(tmp_path / "runs"))
    assert not (tmp_path / "grids").exists()


def test_an_unwritable_place_is_told_before_any_work(tmp_path, capsys):
    (tmp_path / "grids").write_text("a file")
    assert main(command(small(tmp_path), tmp_path)) == 1
    assert "--grids" in capsys.readouterr().err


def test_the_page_stands_beside_the_work_and_is_made_again_from_files(undisturbed, tmp_path, capsys):
    out = tmp_path / "page"
    places = ["--runs", str(undisturbed / "runs"), "--grids", str(undisturbed / "grids")]
    assert main(["report", str(small(undisturbed)), "--out", str(out), *places]) == 0
    assert "many" in capsys.readouterr().out
    (folder,) = undisturbed.glob("grids/*")
    for name in ("report.html", "report.md", "report.csv", "report.tex"):
        assert (folder / name).is_file() and (out / name).is_file()
    rows = (out / "report.csv").read_text().splitlines()
    assert sum(",bits_per_byte," in row for row in rows) == 4
    assert (out / "report.csv").read_text() == (folder / "report.csv").read_text()
    assert "4 of 4 cells measured: 2 arms, 2 trainings" in (out / "report.html").read_text()


def test_a_page_of_nothing_yet_says_so(tmp_path, capsys):
    places = ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids")]
    assert main(["report", str(small(tmp_path)), *places]) == 0
    (page,) = tmp_path.glob("grids/*/report.md")
    assert "0 of 4 cells measured" in page.read_text() and "few · 0: waiting" in page.read_text()


@pytest.fixture(scope="module")
def by_two(undisturbed, tmp_path_factory):
    """The first cell of the undisturbed grid, its training by two processes."""
    folder = tmp_path_factory.mktemp("two")
    more = {"train.parallel": {"type": "fsdp", "processes": 2}}
    axes = {"steps": {"few": {"sampler.steps": 2}}, "seed": [0]}
    assert main(command(small(folder, axes=axes, set={**SMALL, **more}), folder, "--workers", "1")) == 0
    return folder


def test_a_cell_trained_by_two_processes_is_the_same_cell_with_the_same_loss(undisturbed, by_two):
    found, before = figures(by_two / "runs"), figures(undisturbed / "runs")
    assert len(found) == 1
    ((cell, kept),) = found.items()
    assert kept["bits_per_byte"] == pytest.approx(before[cell]["bits_per_byte"], rel=1e-3)
    assert list(by_two.glob("runs/*/ckpt/step-*/model.1-of-2.safetensors"))


def test_a_cell_that_needs_more_gpus_than_there_are_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_gpus", lambda: 2)
    job = Job("toy", GridFolder.open(plan(small(tmp_path)), tmp_path), [], 3, lambda: False, processes=4)
    with pytest.raises(WorkbenchError, match=r"takes 4 GPUs \(train.parallel.processes\), and there are 2"):
        local.Local().run(job)


def test_workers_see_as_many_gpus_as_a_cell_takes(tmp_path, monkeypatch):
    """Four GPUs, two a cell: two workers, each with two of its own."""
    seen = []
    monkeypatch.setattr(local, "_gpus", lambda: 4)
    monkeypatch.setattr(local.subprocess, "Popen", lambda *words, env, **more: seen.append(env) or Ended())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6")
    folder = GridFolder.open(plan(small(tmp_path)), tmp_path)
    assert local.Local().run(Job("toy", folder, [], 9, lambda: False, processes=2)) == ""
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["3,4", "5,6"]


class Ended:
    """A process that has done its work."""

    def poll(self):
        return 0
