"""Disks that are full, folders that cannot be written, files that are damaged: a located error, and no other cell's."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.grid.files import SMOKE, figures, written
from workbench.cli import grid as command
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.grid.cells import plan
from workbench.grid.folder import GridFolder
from workbench.grid.status import standings
from workbench.grid.work import Places, work
from workbench.run import find

SMALL = {"train.steps": 4, "evaluations.valid": None}


def two(folder, **settings):
    """A grid of two trainings."""
    return plan(written(folder, **{"axes": {"seed": [0, 1]}, "set": SMALL, **settings}))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done(two(folder), folder)
    return folder


def done(planned, folder):
    """Work on it, here; how each cell stands then, by its name."""
    grid = GridFolder.open(planned, folder / "grids")
    work(planned, grid, Places(folder / "runs"), lambda cell, what: None)
    return {one.cell.name: one for one in standings(planned, grid, folder / "runs")}


def forgiven(planned, folder):
    GridFolder.open(planned, folder / "grids").forgive(planned.due)
    return done(planned, folder)


def full_for(monkeypatch, *parts):
    """A disk that takes nothing more of files whose path holds one of ``parts``."""
    real = os.fsync

    def fsync(handle):
        if any(part in os.readlink(f"/proc/self/fd/{handle}") for part in parts):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_fails_its_cell_alone_and_the_cell_goes_on_when_there_is_space(undisturbed, tmp_path, monkeypatch):
    planned = two(tmp_path)
    with monkeypatch.context() as patch:
        full_for(patch, planned.cells[1].resolved.hash[:8])
        found = done(planned, tmp_path)
    assert (found["0"].state, found["1"].state) == ("done", "failed")
    assert "No space left on device (is there space" in found["1"].detail and str(tmp_path) in found["1"].detail
    assert forgiven(planned, tmp_path)["1"].state == "done"
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")


def test_a_disk_too_full_to_write_down_the_failure_leaves_the_cell_due(tmp_path, monkeypatch):
    planned, said = two(tmp_path), []
    grid = GridFolder.open(planned, tmp_path / "grids")
    with monkeypatch.context() as patch:
        full_for(patch, planned.cells[0].resolved.hash[:8], "/failed")
        work(planned, grid, Places(tmp_path / "runs"), lambda cell, what: said.append((cell.name, what)))
    assert [what for name, what in said if name == "0"][-1].count("No space left on device") == 2
    assert ("1", "done") in said and grid.failure(planned.cells[0]) is None
    assert done(planned, tmp_path)["0"].state == "done"


def test_a_place_that_cannot_be_written_fails_its_cell_alone(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    planned = two(tmp_path)
    (run,) = find(planned.cells[0].resolved.hash, tmp_path / "runs")
    shutil.rmtree(run.measured)
    run.measured.write_text("a file where a folder is due")
    found = done(planned, tmp_path)
    assert (found["0"].state, found["1"].state) == ("failed", "done")
    assert str(run.measured) in found["0"].detail
    run.measured.unlink()
    assert forgiven(planned, tmp_path)["0"].state == "done"


def test_a_damaged_checkpoint_fails_the_cells_of_its_run_alone(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    planned = two(tmp_path)
    (run,) = find(planned.cells[0].resolved.hash, tmp_path / "runs")
    shutil.rmtree(run.measured)
    for file in run.ckpt.glob("step-*/*.safetensors"):
        file.write_bytes(file.read_bytes()[:-20])
    found = done(planned, tmp_path)
    assert (found["0"].state, found["1"].state) == ("failed", "done")
    assert "damaged" in found["0"].detail and str(run.ckpt) in found["0"].detail


def test_a_trained_run_that_lost_its_weights_is_trained_again_for_what_is_still_to_be_measured(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    planned = two(tmp_path)
    (run,) = find(planned.cells[0].resolved.hash, tmp_path / "runs")
    shutil.rmtree(run.measured)
    shutil.rmtree(run.ckpt)
    assert {one.state for one in done(planned, tmp_path).values()} == {"done"}
    assert figures(tmp_path / "runs") == figures(undisturbed / "runs")


def test_a_run_whose_status_cannot_be_read_is_no_run_and_harms_none(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    planned = two(tmp_path)
    (run,) = find(planned.cells[0].resolved.hash, tmp_path / "runs")
    run.status.write_text("{")
    found = done(planned, tmp_path)
    assert found["1"].state == "done" and found["0"].state == "failed"
    assert "remove that file and train the recipe again" in found["0"].detail


EXITS = """
import os
from pathlib import Path
from samplers.base import Shaper
@Shaper.register("exits_once")
class Exits(Shaper):
    '''A shaper that takes its process along the first time.'''
    def __call__(self, log_p_RV, context):
        mark = Path({mark!r})
        if not mark.exists():
            mark.touch()
            os._exit(3)
        return log_p_RV
"""


def test_workers_that_end_in_error_are_replaced(tmp_path):
    (tmp_path / "plugin.py").write_text(EXITS.format(mark=str(tmp_path / "mark")))
    base = tmp_path / "base.yaml"
    base.write_text(f"extends: {os.path.relpath(SMOKE / 'sedd.yaml', tmp_path)}\nplugins: [plugin.py]\n")
    shaped = {"sampler.predictor": "normalised", "sampler.shapers": [{"type": "exits_once"}]}
    file = written(tmp_path, base="base.yaml", axes={"arm": {"shaped": shaped}}, set=SMALL)
    words = ["grid", str(file), "--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids"), "--workers", "1"]
    process = subprocess.run([sys.executable, "-m", "workbench", *words], capture_output=True, text=True, timeout=240)
    assert (tmp_path / "mark").exists() and "1 worker ended in error" in process.stderr
    assert process.returncode == 0, process.stderr
    assert len(figures(tmp_path / "runs")) == 1


def test_workers_refuse_a_grid_that_was_changed_since_it_was_started(tmp_path, capsys):
    planned = two(tmp_path)
    file, places = str(planned.source), ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids")]
    command.require_same_plan(planned, planned.hash)
    other = two(tmp_path, axes={"seed": [0, 1, 2]})
    with pytest.raises(WorkbenchError, match="was changed while the grid ran"):
        command.require_same_plan(other, planned.hash)
    assert main(["grid", file, *places, "--worker", "alone", "--plan", planned.hash]) == 1
    assert "start the grid again for the rest" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() and not (tmp_path / "grids").exists()


def test_a_base_recipe_changed_under_way_ends_the_grid_with_a_word(tmp_path, monkeypatch, capsys):
    base = tmp_path / "base.yaml"
    base.write_text(f"extends: {os.path.relpath(SMOKE / 'sedd.yaml', tmp_path)}\n")
    planned = two(tmp_path, base="base.yaml")

    class Edits:
        """A launcher whose workers end at once, while somebody edits the recipe."""

        def run(self, job):
            job.watch()
            base.write_text(base.read_text() + "seed: 5\ntrain: {batch: 4}\n")
            return ""

    monkeypatch.setattr(command, "launcher", lambda wish, workers: Edits())
    places = ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids")]
    assert main(["grid", str(planned.source), *places]) == 1
    assert "or a recipe that it is made of, was changed" in capsys.readouterr().err


def test_workers_that_get_nothing_done_are_not_started_for_ever(tmp_path, monkeypatch, capsys):
    planned, started = two(tmp_path), []

    class Idle:
        def run(self, job):
            started.append(job.due)
            assert job.watch()
            return "1 worker ended in error"

    monkeypatch.setattr(command, "launcher", lambda wish, workers: Idle())
    places = ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids")]
    assert main(["grid", str(planned.source), *places]) == 1
    assert len(started) == command.ROUNDS
    (kept,) = tmp_path.glob("grids/*/grid.json")
    assert json.loads(kept.read_text())["hash"] == planned.hash
