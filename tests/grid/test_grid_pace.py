"""How long a grid takes: by its own runs, by runs that are alike, by a trial; and grids held to the wall clock."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.grid.files import written
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.grid.cells import plan
from workbench.grid.fairness import costed, require_fair, unchecked, unfair
from workbench.grid.pace import likeness, timed

SMALL = {"train.steps": 6, "train.log_every": 1, "evaluations.valid": None}
WIDTHS = {"width": {"plain": {}, "wide": {"backbone.dim": 64}}}


def networks(folder, **settings):
    planned = plan(written(folder, **{"axes": {"seed": [0, 1]}, "set": SMALL, **settings}))
    return planned, costed(planned.trainings)


def test_what_differs_in_seed_rate_and_updates_alone_is_alike(tmp_path):
    axes = {"arm": {
        "usual": {}, "seed": {"seed": 7}, "rate": {"train.optimizer.lr": 1}, "updates": {"train.steps": 9},
        "sampler": {"sampler.steps": 3}, "batch": {"train.batch": 4}, "width": {"backbone.dim": 64},
        "optimizer": {"train.optimizer": "muon"}, "precision": {"train.precision": "bf16"},
    }}  # fmt: skip
    cells = {cell.name: likeness(cell.resolved.data) for cell in plan(written(tmp_path, axes=axes)).cells}
    assert len({cells[name] for name in ("usual", "seed", "rate", "updates", "sampler")}) == 1
    assert len(set(cells.values())) == 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    file = written(folder, axes={"seed": [0]}, set=SMALL)
    assert main(["grid", str(file), "--runs", str(folder / "runs"), "--grids", str(folder / "grids")]) == 0
    return folder


def test_a_run_tells_its_own_time_and_that_of_runs_that_are_alike(trained, tmp_path):
    planned, found = networks(tmp_path, axes={"train.steps": [6, 60], "backbone.dim": [32, 64]})
    own, other, longer, wider = timed(found, trained / "runs")
    assert own.trained and own.source.startswith("its own log (") and own.seconds > 0
    assert (other.seconds, wider.seconds) == (None, None) and "no finished run tells" in other.source
    assert longer.seconds == pytest.approx(10 * own.seconds) and longer.source.startswith("log of smoke-sedd-")
    assert not longer.trained and unchecked(planned, [own, wider]) == []


def test_a_trial_tells_it_where_no_run_does_and_leaves_nothing(tmp_path):
    _, found = networks(tmp_path, axes={"seed": [0, 1]})
    one, two = timed(found, tmp_path / "runs", trial=3)
    assert one.seconds == two.seconds > 0, "alike: timed once"
    assert one.source.startswith("trial of 3 updates (") and not (tmp_path / "runs").exists()


def test_a_trial_that_fails_says_why(tmp_path):
    (one, *_) = timed(networks(tmp_path, set={**SMALL, "data.length": 10_000_000})[1], tmp_path / "runs", trial=2)
    assert one.seconds is None and one.source.startswith("the trial failed: ")


def test_arms_of_unequal_time_are_refused_with_the_updates_that_match(tmp_path):
    planned, (plain, wide) = networks(tmp_path, axes=WIDTHS, fair={"seconds": 0.1})
    told = [replace(plain, seconds=2.0, source="a log"), replace(wide, seconds=3.0, source="a trial")]
    with pytest.raises(WorkbenchError) as caught:
        require_fair(planned, told)
    message = str(caught.value)
    assert "seconds of training: plain has 2.00, wide 3.00, 50.0% more; `fair.seconds` allows 10.0%" in message
    assert "plain would match with {train.steps: 9}, on more tokens then (plain by a log; wide by a trial)" in message
    assert unfair(planned, [replace(plain, seconds=2.9), told[1]]) == []


def test_arms_of_unknown_time_are_told_and_not_refused(tmp_path):
    planned, found = networks(tmp_path, axes=WIDTHS, fair={"seconds": 0.1})
    found = timed(found, tmp_path / "runs")
    assert unfair(planned, found) == []
    (sentence,) = unchecked(planned, found)
    assert "`fair.seconds` is not checked of plain, wide: no finished run tells" in sentence


def test_memory_is_held_to_its_bound_too(tmp_path):
    planned, found = networks(tmp_path, axes=WIDTHS, fair={"memory": 0.01})
    assert unfair(planned, found)[0].startswith("bytes of memory in training: plain has")


def test_the_dry_run_says_how_long_and_what_it_costs(trained, tmp_path, capsys):
    file = written(tmp_path, axes={"train.steps": [6, 60_000]}, set=SMALL, hourly=2.5)
    words = ["grid", str(file), "--runs", str(trained / "runs"), "--dry-run", "--workers", "2"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Expected for 1 of 1 trainings due" in said and "at a price of" in said and "by log of smoke-sedd-" in said
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    hours = facts["expected"]["worker_hours"]
    assert facts["expected"]["price"] == pytest.approx(2.5 * hours) and hours > 0
    assert [row["trained"] for row in facts["trainings"]] == [True, False]
