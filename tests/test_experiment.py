"""What one does with a recipe, where another process is at its run."""

from __future__ import annotations

from pathlib import Path

from workbench import experiment
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.recipe import load

SMOKE = Path(__file__).parents[1] / "recipes/smoke"


def test_the_figures_of_a_run_that_is_in_training_are_kept(tmp_path, monkeypatch):
    """Hours of measuring are not lost because the run is locked when they are over."""
    run = experiment.create(load(SMOKE / "sedd.yaml"), tmp_path)
    found = Results(run.hash, run.name, run.path.name, "diffusion", [Value("x", 1.0)], provenance={"step": 5})
    monkeypatch.setattr(experiment, "examine", lambda *words: found)
    run.mark("training", step=6)
    with run.locked():
        assert experiment.evaluate(run.path) is found
    assert run.results.is_file() and run.read_status()["state"] == "training"
    run.mark("trained")
    run.results.unlink()
    experiment.evaluate(run.path)
    assert run.results.is_file() and run.read_status()["state"] == "evaluated"
