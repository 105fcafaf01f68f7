"""Settings swept for every arm and seed: chosen on text that is not compared, shared by content, told on the page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grid.files import SMOKE, figures, pids, written
from workbench.cli.main import main
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.data.storage import DataError
from workbench.data.windows import Blocks
from workbench.evaluate import part_of
from workbench.grid.cells import plan
from workbench.grid.folder import GridFolder
from workbench.grid.status import standings, tally
from workbench.grid.sweep import best, edges
from workbench.grid.work import Places, work
from workbench.report.tried import sentence, tried_table
from workbench.run import every

RATE = "train.optimizer.lr"
SMALL = {"train.steps": 4, "evaluations.valid": None}


def swept(folder, **settings):
    usual = {"axes": {"seed": [0, 1]}, "set": SMALL, "sweep": {RATE: [1e-3, 3e-2]}, "select": {"draws": 1, "blocks": 4}}
    return written(folder, **{**usual, **settings})


class Bytes:
    """As much of a tokenizer as cutting takes."""

    eos = 0


@given(count=st.integers(4, 60), length=st.integers(1, 5), rest=st.integers(0, 4))
def test_the_two_parts_have_no_block_in_common_and_leave_none_out(count, length, rest):
    ids = np.arange(count * length + min(rest, length - 1), dtype=np.uint16)
    whole = Blocks(ids, length, Bytes(), "valid")
    selection, comparison = (part_of(whole, name) for name in ("selection", "comparison"))
    seen = [part[np.arange(len(part))].ravel().tolist() for part in (selection, comparison)]
    assert not set(seen[0]) & set(seen[1])
    assert seen[0] + seen[1] == whole[np.arange(len(whole))].ravel().tolist()
    assert len(selection) == count // 4


def test_too_little_text_to_be_cut_is_told():
    blocks = Blocks(np.zeros(6, dtype=np.uint16), 2, Bytes(), "valid")
    with pytest.raises(DataError, match="3 held-out blocks cannot be cut"):
        part_of(blocks, "selection")


def test_every_value_is_an_ordinary_training_and_figures_are_of_the_other_part(tmp_path):
    planned = plan(swept(tmp_path))
    assert [len(cell.options) for cell in planned.cells] == [2, 2]
    assert len(planned.trials) == 4 and len({trial.training.hash for trial in planned.trials}) == 4
    plain = plan(written(tmp_path, axes={"seed": [0, 1], RATE: [1e-3, 3e-2]}, set=SMALL))
    assert {trial.training.hash for trial in planned.trials} == {cell.resolved.hash for cell in plain.cells}
    for cell in planned.cells:
        for option in cell.options:
            parts = {one["part"] for one in option.resolved.data["evaluations"].values()}
            (judged,) = [one for one in option.trial.resolved.data["evaluations"].values() if one is not None]
            assert parts == {"comparison"} and judged["part"] == "selection"
            assert option.trial.resolved.hash == option.resolved.hash


def test_cells_that_differ_after_training_share_their_trials(tmp_path):
    planned = plan(swept(tmp_path, axes={"sampler.steps": [2, 4], "seed": [0, 1]}))
    assert len(planned.cells) == 4 and len(planned.trials) == 4


def test_factors_are_of_each_arms_own_value(tmp_path):
    axes = {"arm": {"usual": {}, "high": {RATE: 0.01}}}
    planned = plan(swept(tmp_path, axes=axes, sweep={RATE: {"times": [0.5, 1, 2]}}))
    tried = [[option.values[RATE] for option in cell.options] for cell in planned.cells]
    assert tried == [[0.0015, 0.003, 0.006], [0.005, 0.01, 0.02]]


def test_the_baseline_is_swept_too_and_settings_multiply(tmp_path):
    sweep = {RATE: [1e-3, 1e-2], "train.ema": [0.5, 0.9, 0.99]}
    planned = plan(swept(tmp_path, axes={"seed": [0]}, baseline=str(SMOKE / "gpt2.yaml"), sweep=sweep))
    assert [(cell.name, len(cell.options)) for cell in planned.cells] == [("baseline · 0", 6), ("0", 6)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sweep": {RATE: 3}}, "sweep.train.optimizer.lr: is a list of values"),
        ({"sweep": {RATE: []}}, "is a list of values"),
        ({"sweep": {RATE: [1, 1]}}, "lists a value twice"),
        ({"sweep": {RATE: [float("nan"), 1]}}, r"sweep.train.optimizer.lr\[0\]: nan is no number"),
        ({"sweep": {RATE: {"times": ["a"]}}}, "factors are numbers"),
        ({"sweep": {"train.optimizer.type": {"times": [1, 2]}}}, "factors are of a number; the recipe has 'adamw'"),
        ({"sweep": {"sampler.steps": [2, 4]}}, "train the same run: sweep a setting of training"),
        ({"sweep": {"train.optimizer.rate": [1, 2]}}, "train.optimizer.rate"),
        ({"axes": {RATE: [1, 2]}}, "is set by an axis"),
    ],
)
def test_a_faulty_sweep_is_told_where_and_why(tmp_path, settings, said):
    with pytest.raises(RecipeError, match=said):
        plan(swept(tmp_path, **settings))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    planned = plan(swept(folder))
    grid = GridFolder.open(planned, folder / "grids")
    work(planned, grid, Places(folder / "runs"), lambda cell, what: None)
    return planned, grid, folder


def test_the_best_of_each_seed_is_compared_and_only_that(done):
    planned, grid, folder = done
    found = standings(planned, grid, folder / "runs")
    assert [one.state for one in found] == ["done", "done"]
    assert len(list(every(folder / "runs"))) == 4
    for one in found:
        numbers = [each.figure.value for each in one.tried]
        winner = best(one.tried)
        assert winner.figure.value == min(numbers) and numbers[0] != numbers[1]
        assert one.cell.resolved.hash == winner.option.resolved.hash
        assert json.loads(one.figures.read_text())["provenance"]["measured"] == winner.option.resolved.measured
    kept = sorted(path.name for path in folder.glob("runs/*/measured/*.json"))
    assert len(kept) == 4 + 2, "each trial is judged, and the winners are measured"


def test_the_page_tells_what_was_tried_and_that_the_edge_was_chosen(done):
    planned, grid, folder = done
    found = standings(planned, grid, folder / "runs")
    table = tried_table(found)
    assert len(table.rows) == 4
    assert [row.cells[0].text.startswith("★") for row in table.rows].count(True) == 2
    assert all("bits/byte" in column.unit for column in table.columns[1:])
    told = " ".join(note for note in table.notes if "edge of the sweep" in note)
    for one in found:
        (words,) = edges(one.tried)
        assert words in told and one.cell.name in told
    assert "In 2 of 2 cells it lies at the edge" in sentence(found)


def test_the_same_command_and_another_grid_find_what_was_tried(done, tmp_path, capsys):
    planned, _, folder = done
    before = figures(folder / "runs")
    words = ["--runs", str(folder / "runs"), "--grids", str(tmp_path / "grids")]
    assert main(["grid", str(planned.source), *words]) == 0
    assert figures(folder / "runs") == before
    assert "held-out" in capsys.readouterr().out
    (page,) = tmp_path.glob("grids/*/report.md")
    assert "## Tried" in page.read_text()
    assert main(["grid", str(planned.source), *words, "--status"]) == 0
    assert "6 done" in capsys.readouterr().out
    assert main(["grid", str(planned.source), *words, "--dry-run"]) == 0
    assert "2 cells, 4 trainings" in capsys.readouterr().out


def test_a_killed_sweep_goes_on_and_chooses_the_same(done, tmp_path):
    _, _, folder = done
    places = ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids"), "--workers", "2"]
    run = [sys.executable, "-m", "workbench", "grid", str(swept(tmp_path)), *places]
    process = subprocess.Popen(run)
    while not pids(tmp_path) and process.poll() is None:
        time.sleep(0.02)
    for pid in [process.pid, *pids(tmp_path)]:  # the parent and whoever works, at one moment
        os.kill(pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert subprocess.run(run, timeout=240).returncode == 0
    assert figures(tmp_path / "runs") == figures(folder / "runs")


def test_a_cell_waits_for_its_trials_and_goes_on_without_those_that_fail(done, tmp_path):
    planned, _, _ = done
    empty = GridFolder.open(planned, tmp_path / "grids")
    assert tally(standings(planned, empty, tmp_path / "none", trials=True)) == {"waiting": 6}
    details = [one.detail for one in standings(planned, empty, tmp_path / "none")]
    assert details == ["0 of 2 values tried"] * 2
    low, high = planned.cells[0].options
    empty.fail(low.trial, "diverged")
    (first, _) = standings(planned, empty, tmp_path / "none")
    assert first.detail == "1 of 2 values tried"
    empty.fail(high.trial, "diverged too")
    (first, _) = standings(planned, empty, tmp_path / "none")
    assert first.state == "failed" and "diverged; train.optimizer.lr 0.03: diverged too" in first.detail
    with pytest.raises(WorkbenchError, match="all that was tried failed"):
        best(first.tried)
