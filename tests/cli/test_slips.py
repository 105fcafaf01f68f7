"""The commonest slips, each answered by what was meant; completion; settings and plug-ins where commands take them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workbench import experiment
from workbench.begun import dropped_unless_begun
from workbench.cli.completion import OF_RECIPES, bash, fish, known, zsh
from workbench.cli.main import COMMANDS, main
from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json
from workbench.core.plugins import isolated
from workbench.recipe import load
from workbench.run import InUse
from workbench.train.interrupt import Interrupted

SMOKE = "recipes/smoke/sedd.yaml"
SLIPS = [
    ("trian {recipe}", "Did you mean 'train'?"),
    ("show backbone tranformer", "Did you mean 'transformer'?"),
    ("show backbne transformer", "Did you mean 'backbone'?"),
    ("train {recipe} trian.steps=5", "Did you mean 'train'?"),
    ("train {recipe} train.steps=many", "train.steps: needs an integer"),
    ("train {recipe} --train.steps=5", "Settings stand without dashes: train.steps=5"),
    ("train {recipe} train.steps", "write path=value, as in train.steps=100"),
    ("train recipes/smoke/sed.yaml", "Did you mean recipes/smoke/sedd.yaml?"),
    ("train quickstart/sedd", "Did you mean recipes/quickstart/sedd.yaml?"),
    ("train {run}", "workbench train --resume {run}"),
    ("train --resume {runs}", "it holds runs, name one of them: {run}"),
    ("sample {recipe}", "it is a recipe, train it first: workbench train {recipe}"),
    ("sample {runs}/smoke-sedd", "did you mean {run}?"),
    ("sample smoke-sed", "did you mean runs/{name}?"),
    ("sample {runs}", "name one of them: {run}, {other}"),
    ("sample {run} {other}", "sampling takes one run at a time; these are 2: {run}, {other}"),
    ("sample {run} --checkpoint 300", "has no checkpoint '300'; it keeps those of steps "),
    ("sample {run} steps=4", "as in sampler.steps=32; not 'steps=4'. Did you mean sampler.steps?"),
    ("train {recipe} train.lr=1", "train.lr: train has no such setting. Did you mean train.optimizer.lr? Known: "),
    ("train {recipe} lr=1", "lr: recipe has no such setting. Did you mean train.optimizer.lr? Known: backbone"),
    ("train {recipe} steps=1", "Did you mean sampler.steps or train.steps?"),
    ("train {recipe} backbone.steps=1", "Did you mean sampler.steps or train.steps?"),
    ("train {recipe} backbone.train=1", "backbone 'transformer' has no such setting. Known: "),
    ("train {recipe} train.stps=1", "Did you mean 'steps'?"),
    ("eval {run} train.steps=4", "evaluating changes the sampler and what is measured"),
    ("eval sampler.steps=4", "name a run folder to evaluate"),
]
"""What is typed, and what the answer says."""


@pytest.fixture
def run(smoke, tmp_path):
    return shutil.copytree(smoke("sedd").path, tmp_path / "runs" / smoke("sedd").path.name)


def typed(words):
    try:
        return main(words)
    except SystemExit as exit:
        return exit.code


def test_slips_are_answered_by_what_was_meant(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "mine.yaml"
    parent = os.path.relpath(Path(__file__).parents[2] / SMOKE, tmp_path)
    recipe.write_text(f"extends: {parent}\nname: mine\n")
    other = shutil.copytree(run, run.parent / "zebra-00000000")
    places = {"recipe": recipe, "run": run, "runs": run.parent, "name": run.name, "other": other}
    for words, said in SLIPS:
        capsys.readouterr()
        assert typed(words.format(**places).split()) in (1, 2), words
        told = capsys.readouterr().err
        assert said.format(**places) in told, f"{words}: {told}"
        assert "Traceback" not in told


def test_check_says_how_settings_are_written(capsys):
    assert main(["check", SMOKE, "train.steps", "100"]) == 1
    told = capsys.readouterr().out
    assert "write path=value, as in train.steps=100" in told and "there is no such file" not in told
    assert main(["check", "recipes/smoke/sed.yaml"]) == main(["check", "quickstart/sedd"]) == 1
    told = capsys.readouterr().out
    assert "Did you mean recipes/smoke/sedd.yaml?" in told and "Did you mean recipes/quickstart/sedd.yaml?" in told


def test_check_takes_settings(capsys):
    sizes = []
    for words in ([], ["backbone.dim=64"]):
        assert main(["check", SMOKE, *words, "--json"]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["recipes"][0]["parameters"])
    assert sizes[0] < sizes[1]
    assert main(["check", SMOKE, "--json", "backbone.dim=-1"]) == 1, "behind an option too"


def test_eval_by_another_sampler_keeps_the_runs_own_figures(run, capsys):
    before = (run / "results.json").read_bytes()
    assert main(["eval", str(run), "sampler.steps=2", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    calls = next(value["value"] for value in found["values"] if value["name"] == "network_calls")
    assert calls <= 3
    (kept,) = (run / "measured").glob("*.json")
    assert read_json(kept) == found and (run / "results.json").read_bytes() == before
    assert main(["eval", str(run), "sampler.steps=2"]) == 0
    told = capsys.readouterr().out
    assert "sampler.steps=2" in told and f"kept in {kept}" in told  # beside the run's own row


def test_training_by_another_sampler_loses_no_figures(run, capsys, monkeypatch):
    before, resolved = read_json(run / "results.json"), (run / "resolved.yaml").read_text()
    words = ["train", "--resume", str(run)]
    recipe = yaml.safe_load(resolved)
    recipe["sampler"]["steps"] = 2
    (run / "resolved.yaml").write_text(yaml.safe_dump(recipe))
    assert main(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    kept = run / "measured" / f"{before['provenance']['measured']}.json"
    assert read_json(kept) == before and "stay in" in told and kept.name in told
    after = read_json(run / "results.json")
    assert after["provenance"]["measured"] != before["provenance"]["measured"]
    # and back: they are found, not measured again
    (run / "resolved.yaml").write_text(resolved)
    monkeypatch.setattr(experiment, "examine", lambda *args: pytest.fail("measured again"))
    assert main(words) == 0
    assert read_json(run / "results.json") == before
    assert read_json(run / "measured" / f"{after['provenance']['measured']}.json") == after


def test_eval_and_sample_take_plugins(run, tmp_path, capsys):
    plugin = tmp_path / "plain_times.py"
    plugin.write_text(
        "from samplers.times import Uniform\nfrom samplers.base import Times\n\n\n"
        '@Times.register("evenly_again")\nclass Again(Uniform):\n    """The same by another name."""\n'
    )
    for words in (["sample", str(run), "--count", "1"], ["eval", str(run)]):
        with isolated():
            assert main([*words, "sampler.times=evenly_again"]) == 1
            assert "evenly_again" in capsys.readouterr().err
            assert main([*words, "sampler.times=evenly_again", "--plugin", str(plugin)]) == 0


# --- completion -------------------------------------------------------------------------------------------------


def completed(*words):
    """What bash offers after these words (the last may be begun), without any program to be found."""
    listed = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; PATH=/nowhere; _workbench; echo \"${{COMPREPLY[*]}}\""
    done = subprocess.run(["bash", "--norc", "-c", bash(known()) + asked], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash on this machine")
def test_bash_completes_commands_kinds_parts_recipes_and_options():
    assert set(completed("workbench", "")) >= set(COMMANDS)
    assert completed("workbench", "qu") == ["quickstart"]
    assert "backbone" in completed("workbench", "show", "ba")
    assert completed("workbench", "show", "backbone", "mam") == ["mamba", "mamba2"]
    assert completed("workbench", "list", "backbo") == ["backbone"]
    for command in OF_RECIPES:
        assert "recipes/smoke/sedd.yaml" in completed("workbench", command, "recipes/smoke/"), command
    assert completed("workbench", "--debug", "train", "--res") == ["--resume"]


def test_other_shells():
    names = known()
    assert bash(names) in zsh(names) and "bashcompinit" in zsh(names)
    text = fish(names)
    assert "complete -c workbench -n '__fish_use_subcommand' -f -a train" in text
    for line in text.splitlines()[1:]:
        assert line.startswith("complete -c workbench -n '") and line.replace("\\'", "").count("'") % 2 == 0
    if shutil.which("fish"):
        assert subprocess.run(["fish", "-n"], input=text, text=True, timeout=20).returncode == 0


# --- starts that fail ---------------------------------------------------------------------------------------------

GONE = "data.corpus={type: text, paths: [gone.txt]}"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """(a call of ``workbench train`` that cannot find its text, the folder of runs)."""
    runs = tmp_path / "runs"
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return lambda *words: main(["train", SMOKE, "--runs", str(runs), GONE, *words]), runs


@pytest.mark.parametrize("words", [[], ["train.parallel.processes=2", "train.device=cpu"]])
def test_a_start_that_fails_leaves_no_folder(start, words, capfd):
    train, runs = start
    assert train(*words) == 1
    assert "gone.txt" in capfd.readouterr().err, "processes write for themselves"
    assert list(runs.iterdir()) == []


def test_processes_of_torchrun_leave_no_folder(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["train", SMOKE, "--runs", str(tmp_path / "runs"), GONE, "train.device=cpu"]
    ended = subprocess.run([*torchrun, "-m", "workbench", *words], capture_output=True, text=True, timeout=300)
    assert ended.returncode and "gone.txt" in ended.stderr
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_that_was_there_or_is_begun_or_in_use_or_interrupted_stays(start, monkeypatch):
    train, runs = start
    resolved = load(SMOKE, [GONE])
    folder = experiment.create(resolved, runs)
    assert train() == 1 and folder.status.is_file(), "it was there before"
    for error in (KeyboardInterrupt(), Interrupted("a signal", 15)):
        shutil.rmtree(runs)
        monkeypatch.setattr(experiment.assemble, "prepare", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert train() > 1 and folder.status.is_file(), "the same command goes on"

    def packed(*_):
        (folder.path / "tokenizer").mkdir()
        raise WorkbenchError("later")

    shutil.rmtree(runs)
    monkeypatch.setattr(experiment.assemble, "prepare", packed)
    assert train() == 1 and folder.status.is_file(), "it holds something"
    shutil.rmtree(runs)
    made = experiment.create(resolved, runs)
    with pytest.raises(WorkbenchError, match="mine"), dropped_unless_begun(made, made.made), made.locked():
        raise WorkbenchError("mine")
    assert not made.path.exists()
    made = experiment.create(resolved, runs)
    with made.locked(), pytest.raises(InUse), dropped_unless_begun(made, made.made), made.locked():
        pass
    assert made.status.is_file(), "another process is at it"
