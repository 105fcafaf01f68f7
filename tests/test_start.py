"""Training that begins with another run's weights: found by content, put shape by shape, told in the record."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.smoke import EXACT, RECIPES, prose
from workbench import assemble, experiment, opening
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.core.loading import resolve_as
from workbench.core.rng import Rng
from workbench.core.tree import stable_hash
from workbench.recipe import Recipe, load
from workbench.run import RunFolder
from workbench.start import NOTE, parent_run, put

ROOT = RECIPES.parent
CHILD = """
extends: {recipes}/smoke/sedd.yaml
name: child
start: {{recipe: {recipes}/smoke/sedd.yaml}}
train: {{steps: 6}}
"""


@pytest.fixture
def child(tmp_path):
    """A recipe that trains the smoke SEDD on; its text and its parent's are the session's."""
    path = tmp_path / "child.yaml"
    path.write_text(CHILD.format(recipes=os.path.relpath(RECIPES, tmp_path)))
    return path


@pytest.fixture
def parent(smoke, tmp_path):
    """(A copy of) the smoke SEDD's run beside nothing else, and the overrides that name it and its text."""
    run = smoke("sedd")
    shutil.copytree(run.path, tmp_path / "runs" / run.path.name)
    data = load(run.resolved).data["data"]["corpus"]
    own = [*EXACT, f"data.corpus={json.dumps(data)}"]
    return RunFolder(tmp_path / "runs" / run.path.name), [*own, f"start.changes={json.dumps(own)}"]


def weights(run: RunFolder, role: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.ckpt / f"step-{step:08d}" / f"{role}.safetensors")


# --- what it starts from is part of what it is ----------------------------------------------------------------------


def test_the_hash_is_of_the_parent_s_content(child, tmp_path):
    found = load(child)
    parent = load("smoke/sedd.yaml")
    assert found.data["start"]["run"] == parent.hash and found.data["start"]["recipe"] == "smoke/sedd.yaml"
    assert parent.data["start"] is None
    changed = load(child, ["start.changes=[train.steps=40]"])
    assert changed.data["start"]["run"] == load("smoke/sedd.yaml", ["train.steps=40"]).hash
    others = [changed, load(child, ["start.weights=last"]), load(child, ["start.checkpoint=best"])]
    assert len({found.hash, *(one.hash for one in others)}) == 4
    elsewhere = tmp_path / "other.yaml"
    shutil.copy(RECIPES / "smoke" / "base.yaml", tmp_path / "base.yaml")
    shutil.copy(RECIPES / "smoke" / "sedd.yaml", elsewhere)
    assert load(child, [f"start.recipe={elsewhere}"]).hash == found.hash, "a file's name and place count for nothing"


def test_a_recipe_without_a_start_keeps_its_hash():
    """As it was before there were starts: runs of then are found."""
    resolved = load("smoke/sedd.yaml")
    data = resolved.node.material(False)
    assert data.pop("start") is None
    del data["name"]
    assert stable_hash(data | {"plugins": []}) == resolved.hash


def test_a_resolved_recipe_needs_the_parent_s_file_no_more(child, tmp_path):
    found = load(child)
    kept = tmp_path / "elsewhere" / "resolved.yaml"
    kept.parent.mkdir()
    kept.write_text(found.text())
    child.write_text(child.read_text().replace("smoke/sedd.yaml}", "smoke/uniform.yaml}"))
    again = load(kept)
    assert again.hash == found.hash and again.data == found.data
    assert load(kept, ["train.steps=7"]).data["start"] == found.data["start"]


def test_a_run_may_be_named_by_its_folder_or_hash(child, parent):
    run, own = parent
    for named in (str(run.path), run.hash):
        found = load(child, [*own, f"start={{run: '{named}', recipe: ''}}"])
        assert found.data["start"]["run"] == run.hash
        assert parent_run(found, RunFolder.create("x", found.hash, run.path.parent)).path == run.path


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["start.recipe=''"], "start: needs `recipe:`"),
        (["start.recipe=absent.yaml"], "start.recipe: .*absent.yaml"),
        (["start.run=nowhere"], "start.run: needs a run's folder or its hash"),
        (["start.recipe=recipes/quickstart/base.yaml"], "start.recipe: (?s:.)*recipe needs this"),
        (["train.unigram_start=true"], "train.unigram_start: the head begins as it was trained"),
        (["data.tokenizer={type: bpe, vocab: 300}"], "data.tokenizer: the weights it starts from know tokenizer"),
        (["start.wieghts=last"], "start.wieghts: start has no such setting. Did you mean 'weights'"),
        (["start=sedd.yaml"], "start: needs a map of settings"),
    ],
)
def test_what_is_wrong_is_said_while_resolving(child, overrides, said):
    with pytest.raises(WorkbenchError, match=said):
        load(child, overrides)


def test_a_start_cannot_go_round(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        text = f"extends: {os.path.relpath(RECIPES, tmp_path)}/smoke/sedd.yaml\nname: {name}\n"
        (tmp_path / f"{name}.yaml").write_text(f"{text}start: {{recipe: {other}.yaml}}\n")
    with pytest.raises(WorkbenchError, match=r"start.recipe: a run cannot begin with its own weights \(a.yaml\)"):
        load(tmp_path / "a.yaml")


# --- training -------------------------------------------------------------------------------------------------------


def test_it_begins_where_the_parent_ended(child, parent, cache_of_the_session):
    """At a rate of next to nothing the weights stay what they were: the parent's averaged ones, or its last."""
    run, own = parent
    for which, role in (("averaged", "ema"), ("last", "model")):
        still = [*own, "train.optimizer.lr=1e-12", f"start.weights={which}"]
        resolved = load(child, still)
        made = experiment.create(resolved, run.path.parent)
        experiment.train(made, resolved, cache_of_the_session, quiet=True)
        theirs, own_model = weights(run, role, 30), weights(made, "model", 6)
        other = weights(run, {"ema": "model", "model": "ema"}[role], 30)
        assert all(torch.allclose(own_model[name], value, rtol=0, atol=1e-9) for name, value in theirs.items())
        assert not all(torch.allclose(own_model[name], value, rtol=0, atol=1e-5) for name, value in other.items())
        note = json.loads((made.path / NOTE).read_text())
        assert (note["run"], note["hash"], note["step"]) == (run.path.name, run.hash, 30)
        state = json.loads((run.ckpt / "step-00000030" / "state.json").read_text())
        assert note["sha256"] == state["files"][note["file"]] and note["file"] == f"{role}.safetensors"
        results = experiment.evaluate(made.path, cache_of_the_session)
        assert results.provenance["start"] == note


def test_a_learned_tokenizer_is_the_parent_s(tmp_path, cache_of_the_session):
    """Though the child's text would teach another."""
    texts = []
    for name, turn in (("one", 1), ("two", -1)):
        (override,) = prose(tmp_path / name)
        file = tmp_path / name / "prose.txt"
        text = file.read_text().replace("the", "zyx") if turn < 0 else file.read_text()
        file.write_text("\n\n".join(text.split("\n\n")[::turn]))
        texts.append(override)
    common = [*EXACT, "data.tokenizer={type: bpe, vocab: 300}", "train.steps=2", "evaluations.valid=null"]
    first = load("smoke/sedd.yaml", [*common, texts[0]])
    run = experiment.create(first, tmp_path / "runs")
    experiment.train(run, first, cache_of_the_session, quiet=True)
    changes = json.dumps([*common, texts[0]])
    second = load("smoke/sedd.yaml", [*common, texts[1], f"start={{recipe: smoke/sedd.yaml, changes: {changes}}}"])
    made = experiment.create(second, tmp_path / "runs")
    experiment.train(made, second, cache_of_the_session, quiet=True)
    files = [next((one.path / "tokenizer").iterdir()).read_bytes() for one in (run, made)]
    assert files[0] == files[1]


def test_an_absent_parent_is_one_error_with_its_command(child, tmp_path, capsys):
    assert main(["train", str(child), "--runs", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "holds no run of hash" in said and f"workbench train smoke/sedd.yaml --runs {tmp_path / 'none'}" in said
    assert said.count("\n") == 1


def test_an_unfinished_parent_is_not_begun_with(child, parent):
    run, own = parent
    run.mark("interrupted", step=20)
    resolved = load(child, own)
    made = experiment.create(resolved, run.path.parent)
    with pytest.raises(WorkbenchError, match=r"is not trained to its end .*workbench train --resume"):
        experiment.train(made, resolved, quiet=True)
    at = load(child, [*own, "start.checkpoint=20"])
    other = RunFolder.create("x", at.hash, run.path.parent)
    assert parent_run(at, other).path == run.path, "a checkpoint that is asked for is one"


@pytest.mark.parametrize(
    ("change", "said"),
    [("backbone.dim=16", "has shape"), ("backbone.depth=3", "is not in the checkpoint")],
)
def test_another_network_is_told_by_the_first_weight(child, parent, change, said, cache_of_the_session):
    run, own = parent
    resolved = load(child, [*own, change])
    made = experiment.create(resolved, run.path.parent)
    with pytest.raises(WorkbenchError, match=f"start: the weights of .* do not fit: .*{said}.*Take its backbone"):
        experiment.train(made, resolved, cache_of_the_session, quiet=True)


def test_a_run_with_checkpoints_goes_on_without_its_parent(child, parent, cache_of_the_session):
    run, own = parent
    resolved = load(child, [*own, "train.checkpoint_every=2"])
    made = experiment.create(resolved, run.path.parent)
    experiment.train(made, resolved, cache_of_the_session, quiet=True)
    straight = weights(made, "model", 6)
    shutil.rmtree(made.ckpt / "step-00000006")
    made.mark("interrupted", step=4)
    shutil.rmtree(run.path)
    experiment.train(made, resolved, cache_of_the_session, quiet=True)
    assert all(torch.equal(value, straight[name]) for name, value in weights(made, "model", 6).items())


# --- a teacher is carried through a kill ----------------------------------------------------------------------------


def test_a_distillation_killed_at_any_moment_ends_as_one_left_alone(parent, tmp_path, cache_of_the_session):
    """Rounds of 10 updates, checkpoints every 5: the teacher of the round comes out of the checkpoint."""
    run, own = parent
    settings = [
        *own, "train.steps=40", "train.checkpoint_every=5", "train.keep=9", "train.tensorboard=false",
        "process.round=10", "process.teacher_steps=16", "process.divergence=forward_kl",
        "evaluations.valid=null", "evaluations.final.every=1000",
    ]  # fmt: skip
    recipe = str(RECIPES / "smoke" / "distill.yaml")
    places = ["--cache", str(cache_of_the_session), "--no-eval"]
    shutil.copytree(run.path, tmp_path / "killed" / run.path.name)
    words = [sys.executable, "-m", "workbench", "train", recipe, *settings, "--runs", str(tmp_path / "killed"), *places]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/smoke-distill-*/ckpt/step-*15")) and time.monotonic() < deadline:
        time.sleep(0.002)
    child.kill()  # in the second round or later; where it had ended before, what follows still takes it up at 20
    assert child.wait() in (-signal.SIGKILL, 0)
    (folder,) = tmp_path.glob("killed/smoke-distill-*")
    shutil.rmtree(tmp_path / "killed" / run.path.name)
    made = RunFolder(folder)
    for step in (25, 30, 35, 40):  # whatever the kill left, the last rounds are gone through from a checkpoint
        shutil.rmtree(made.ckpt / f"step-{step:08d}", ignore_errors=True)
    made.mark("interrupted")
    assert main(["train", "--resume", str(folder), *places]) == 0
    assert main(["train", recipe, *settings, "--runs", str(tmp_path / "runs"), *places]) == 0
    straight = RunFolder(next((tmp_path / "runs").glob("smoke-distill-*")))
    for role in ("model", "ema", "optimizer", "process"):
        one, two = weights(made, role, 40), weights(straight, role, 40)
        assert one.keys() == two.keys() and [name for name in one if not torch.equal(one[name], two[name])] == []
    teachers = [weights(straight, "process", step) for step in (5, 10, 15, 40)]
    same = [all(torch.equal(a[name], b[name]) for name in a) for a, b in itertools.pairwise(teachers)]
    assert same == [False, True, False], "a teacher stays for its round"
    handed = weights(straight, "ema", 40)
    assert all(torch.equal(teachers[-1][name], value) for name, value in handed.items()), "the average is handed over"


def test_what_is_distilled_is_measured_and_sampled_as_what_it_wraps(smoke):
    """Bound and samples of a student are those that the inner process gives its weights."""
    run = smoke("distill")
    resolved = load(run.resolved)
    data = resolved.data
    plain = {**data, "process": data["process"]["inner"], "start": None, "name": "plain"}
    opened = opening.open_trained(run.path)
    other = assemble.model(resolve_as(Recipe, plain), opened.model.tokenizer)
    other.backbone.load_state_dict(opened.model.backbone.state_dict())
    x0_BL = (torch.arange(64).reshape(2, 32) % 90).numpy()
    bounds = [one.process.nll(one.shell.eval(), x0_BL, x0_BL[:, 0], Rng(0), 2) for one in (opened.model, other)]
    assert (bounds[0].nats_BK == bounds[1].nats_BK).all()


def test_put_says_what_it_put(child, parent):
    run, own = parent
    resolved = load(child, own)
    made = assemble.model(resolved, assemble.kept_tokenizer(load(run.resolved), run.path))
    note = put(resolved, run, made.backbone)
    assert set(note) == {"run", "hash", "step", "file", "sha256"} and Path(note["file"]).stem == "ema"
