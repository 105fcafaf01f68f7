"""A training by several processes, as whoever starts them sees it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench import experiment
from workbench.core.errors import WorkbenchError
from workbench.launch import together
from workbench.recipe import load

SMOKE = Path(__file__).parents[1] / "recipes/smoke"


@pytest.fixture
def ended(tmp_path):
    """(a run that is trained and has lost its weights, its recipe: two processes)."""
    resolved = load(SMOKE / "sedd.yaml", ["train.parallel.processes=2"])
    run = experiment.create(resolved, tmp_path)
    run.mark("trained", step=5, steps=5)
    return run, resolved


def test_a_run_that_lost_its_weights_is_trained_again_by_its_processes(ended, monkeypatch):
    run, resolved = ended
    started = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(together, "_torchrun", lambda run, count, cache: started.append(count))
    together.train(run, resolved)
    assert started == [2]
    monkeypatch.setattr(experiment, "stands", lambda run: True)
    together.train(run, resolved)
    assert started == [2]


@pytest.mark.parametrize("said", ["", "45"])
def test_processes_have_time_to_save_and_their_end_is_no_success_without_weights(ended, monkeypatch, said):
    run, resolved = ended
    environments = []

    def start(command, env, **more):
        environments.append(env)
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(name, said) if said else monkeypatch.delenv(name, raising=False)
    with pytest.raises(WorkbenchError, match="2 processes could not train"):
        together.train(run, resolved)
    assert environments[0] == {**os.environ, name: said or str(together.TO_SAVE)}
