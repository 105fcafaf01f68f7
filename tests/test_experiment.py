"""What one does with a recipe, where another process is at its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import experiment
from workbench.core.errors import WorkbenchError
from workbench.core.plugins import isolated
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


BACKBONE = """
from torch import nn
from backbones.base import Backbone

@Backbone.register("{name}")
class Own(Backbone):
    def __init__(self, states: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(states, 8)
        self.{head} = nn.Linear(8, outputs)

    def forward(self, x_BL, sigma=None, cache=None):
        return {features}
"""


@pytest.mark.parametrize(
    ("name", "head", "features", "said"),
    [
        ("across", "head", "self.embed(x_BL).mT", r"'across' gives features \(\d+, 8, 32\) .* 32, 8\) is due"),
        ("narrow", "head", "self.embed(x_BL)[..., :4]", r"'narrow' gives features .* 32, 4\) .* 32, 8\) is due"),
        ("pair", "head", "(self.embed(x_BL), None)", "'pair' gives features tuple"),
        ("headless", "out", "self.embed(x_BL)", "'headless' has no linear map self.head"),
        ("good", "head", "self.embed(x_BL)", None),
    ],
)
def test_a_network_that_breaks_its_contract_is_told_at_its_first_pass(name, head, features, said, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(BACKBONE.format(name=name, head=head, features=features))
    with isolated():
        changes = [f"plugins=[{file}]", f"backbone={{type: {name}}}", "train.steps=2", "train.checkpoint_every=2"]
        resolved = load(SMOKE / "sedd.yaml", [*changes, "evaluations.valid=null"])
        run = experiment.create(resolved, tmp_path / "runs")
        if said is None:
            experiment.train(run, resolved, quiet=True)
            return
        with pytest.raises(WorkbenchError, match=f"{said}.*workbench check --contract {file}"):
            experiment.train(run, resolved, quiet=True)
