"""``workbench export`` and back: the same bits, in every layout that has a place for a run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.smoke import EXACT, RECIPES, prose
from tests.weights.imported import ids, import_run, same, say, small, tensors
from tests.weights.official import sedd_log_scores, state_of
from workbench import experiment, opening
from workbench.core.plugins import isolated
from workbench.core.reading import read_yaml
from workbench.recipe import load
from workbench.run import RunFolder
from workbench.train.checkpoint import Checkpoints, list_steps, read

GRU = Path(__file__).parents[2] / "docs" / "plugins"


def averaged(run: RunFolder):
    """The weights that a trained run is used by."""
    step = max(list_steps(run.ckpt))
    found = read(run.ckpt / f"step-{step:08d}", ("model", "ema")).tensors
    return {**found["model"], **found.get("ema", {})}


def export(run: RunFolder, folder: Path, *words) -> str:
    status, out, err = say("export", run.path, "--to", folder, *words)
    assert status == 0, err
    return out


def imported_again(said: str, runs: Path) -> RunFolder:
    """By the very command that an export prints."""
    (line,) = [line for line in said.splitlines() if line.startswith("back: ")]
    words = shlex.split(line.removeprefix("back:"))
    assert words[:2] == ["workbench", "import"]
    return import_run(words[2], runs, *words[3:])[0]


@pytest.mark.parametrize(
    ("name", "layout", "more"),
    [("sedd", "sedd", []), ("uniform", "sedd", []), ("gpt2", "gpt2", []), ("sedd", "native", ["--layout", "native"]),
     ("uniform", "native", ["--layout", "native"]), ("gpt2", "native", ["--layout", "native"])],
)  # fmt: skip
def test_smoke_runs_go_out_and_come_back_bit_by_bit(smoke, tmp_path, name, layout, more):
    run = smoke(name)
    said = export(run, tmp_path / "out", *more)
    assert f"layout: {layout}" in said and "no place" not in said
    back = imported_again(said, tmp_path / "runs")
    assert same(tensors(back), averaged(run))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name:") and f"# smoke-{name}" in card and "| bits_per_byte" in card
    assert shlex.split(next(line for line in said.splitlines() if line.startswith("back:")))[-1] in card or more
    again = export(back, tmp_path / "again", *more)
    first, second = (load_file(tmp_path / where / "model.safetensors") for where in ("out", "again"))
    assert same(first, second) and "imported from out" in (tmp_path / "again" / "README.md").read_text()
    assert again
    if layout == "native":
        _, now = opening.reopen(back.path)
        _, then = opening.reopen(run.path)
        assert (now.hash, now.data) == (then.hash, then.data), "the recipe comes back whole"
        assert say("sample", back.path, "--count", 1)[0] == 0


def test_last_weights_and_steps(smoke, tmp_path):
    run = smoke("sedd")
    step = max(list_steps(run.ckpt))
    export(run, tmp_path / "last", "--last-weights", "--layout", "native")
    kept = read(run.ckpt / f"step-{step:08d}", ("model",)).tensors["model"]
    assert same(load_file(tmp_path / "last" / "model.safetensors"), kept)
    early = min(list_steps(run.ckpt))
    export(run, tmp_path / "early", "--checkpoint", early)
    card = (tmp_path / "early" / "README.md").read_text()
    assert f"after {early} updates, averaged" in card and "## Figures" not in card, "the figures are of other weights"


@pytest.mark.parametrize("masked", [True, False])
def test_the_official_torch_layout(smoke, tmp_path, masked):
    """What load_model_local of the official code opens: its settings, weights, averages in the order of parameters."""
    run = smoke("sedd" if masked else "uniform")
    said = export(run, tmp_path / "out", "--format", "torch")
    whole = torch.load(tmp_path / "out" / "checkpoints-meta" / "checkpoint.pth", weights_only=True)
    settings = read_yaml(tmp_path / "out" / ".hydra" / "config.yaml")
    assert settings["graph"]["type"] == ("absorb" if masked else "uniform") and settings["tokens"] == 257
    assert settings["model"]["scale_by_sigma"] is masked and settings["model"]["n_heads"] == 2
    names = [name for name in whole["model"] if "rotary" not in name]
    assert [whole["model"][name].shape for name in names] == [value.shape for value in whole["ema"]["shadow_params"]]
    shadow = dict(zip(names, whole["ema"]["shadow_params"], strict=True))
    opened = opening.open_trained(run.path)
    x_BL, sigma_B = torch.randint(0, 257 + masked, (2, 12)), torch.tensor([0.2, 1.5])
    look = opened.model.process.view(opened.model.shell).look(x_BL, sigma_B.double())
    with torch.no_grad():
        found = look.log_score(torch.arange(24)).reshape(2, 12, -1)
    due = sedd_log_scores(shadow, 2, x_BL, sigma_B, masked)
    torch.testing.assert_close(found.double(), due, rtol=1e-5, atol=1e-5)
    back = imported_again(said, tmp_path / "runs")
    assert same({**tensors(back), **tensors(back, "ema")}, averaged(run))
    assert whole["step"] == back.read_status()["step"] == max(list_steps(run.ckpt))


@pytest.mark.parametrize(
    ("config", "states"), [({"model_type": "mdlm", "time_conditioning": False}, 16), ({"model_type": "duo"}, 15)]
)
def test_mdlm_and_duo_go_out_as_they_came(tmp_path, config, states):
    state = state_of(states, 16, 2, 2, 4, prefix="backbone.")
    (tmp_path / "in").mkdir()
    save_file(state, tmp_path / "in" / "model.safetensors")
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    run, _ = import_run(tmp_path / "in", tmp_path / "runs", *ids(15))
    said = export(run, tmp_path / "out")
    assert f"layout: {config['model_type']}" in said
    assert same(load_file(tmp_path / "out" / "model.safetensors"), state)
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["vocab_size"] == states and config.items() <= told.items()
    assert same(tensors(imported_again(said, tmp_path / "runs2")), tensors(run))
    export(run, tmp_path / "torch", "--format", "torch")
    assert same(torch.load(tmp_path / "torch" / "pytorch_model.bin", weights_only=True), state)


def test_gpt2_loads_into_transformers(smoke, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the reference GPT-2 is in transformers")
    run = smoke("gpt2")
    export(run, tmp_path / "out")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    theirs.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    opened = opening.open_trained(run.path)
    x_BL = torch.randint(0, 257, (2, 32))
    with torch.no_grad():
        ours = opened.model.backbone.head(opened.model.backbone(x_BL))
        torch.testing.assert_close(ours, theirs(x_BL).logits, rtol=1e-5, atol=1e-5)


@pytest.fixture
def neighbours(tmp_path, cache_of_the_session):
    """A run whose backbone no published layout has a place for, on tokens that were learned."""
    words = [
        *EXACT, *prose(tmp_path / "text"), "train.steps=1", "backbone.neighbours=1", "backbone.shortconv=3",
        "data.tokenizer={type: bpe, vocab: 280}", "name=odd", "evaluations.valid.every=100",
    ]  # fmt: skip
    resolved = load(RECIPES / "smoke" / "sedd.yaml", words)
    run = experiment.create(resolved, tmp_path / "trained")
    experiment.train(run, resolved, cache_of_the_session, quiet=True)
    return run


def test_a_run_without_a_published_layout_is_refused_with_every_reason_or_written_natively(neighbours, tmp_path):
    status, _, err = say("export", neighbours.path, "--to", tmp_path / "out", "--layout", "sedd")
    assert status == 1 and "layout 'sedd' has no place for this run" in err
    assert "backbone.shortconv is 3" in err and "backbone.neighbours is 1" in err
    assert not (tmp_path / "out").exists()
    said = export(neighbours, tmp_path / "out")
    assert "layout: native" in said and "no place: sedd: backbone.shortconv" in said
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").is_file()
    back = imported_again(said, tmp_path / "runs")
    assert same(tensors(back), averaged(neighbours))
    status, out, err = say("sample", back.path, "--count", 1, "--json")
    assert status == 0, err
    assert json.loads(out)["texts"] == json.loads(say("sample", neighbours.path, "--count", 1, "--json")[1])["texts"]
    assert say("export", neighbours.path, "--to", tmp_path / "out")[0] == 1, "a folder that is not empty is left alone"


@pytest.fixture
def own_registers():
    """What a test plugs in is gone after it."""
    with isolated():
        yield


def test_plug_ins_travel_and_run_only_when_they_are_trusted(tmp_path, cache_of_the_session, own_registers):
    for name in ("gru.yaml", "my_gru.py"):
        shutil.copy(GRU / name, tmp_path)
    words = [*EXACT, *prose(tmp_path / "text"), "train.steps=1", "name=gru", "data.length=32", "data.tokenizer=bytes"]
    resolved = load(tmp_path / "gru.yaml", words)
    run = experiment.create(resolved, tmp_path / "trained")
    experiment.train(run, resolved, cache_of_the_session, quiet=True)
    said = export(run, tmp_path / "out")
    assert "layout: native" in said and "--trust" in said
    status, _, err = say("import", tmp_path / "out", "--runs", tmp_path / "runs")
    assert status == 1 and "they come with Python code" in err and "my_gru.py" in err and "--trust" in err
    back = imported_again(said, tmp_path / "runs")
    assert same(tensors(back), averaged(run)) and (back.path / "plugins" / "my_gru.py").is_file()


def test_an_imported_run_is_evaluated_like_the_run_it_came_from(tmp_path):
    """Figures of a network do not depend on the way its weights came."""
    vocab = 15
    save_file(state_of(vocab + 1, 16, 2, 1, 4), tmp_path / "w.safetensors")
    first, _ = import_run(tmp_path / "w.safetensors", tmp_path / "runs", *ids(vocab), *small(tmp_path, vocab))
    export(first, tmp_path / "out", "--layout", "native")
    second, _ = import_run(tmp_path / "out", tmp_path / "runs")
    figures = []
    for run in (first, second):
        status, _, err = say("eval", run.path, "--cache", tmp_path / "cache")
        assert status == 0, err
        figures.append([value["value"] for value in json.loads(run.results.read_text())["values"]])
    assert figures[0] == figures[1] and first.path != second.path


def test_a_checkpoint_that_is_damaged_is_not_exported(smoke, tmp_path):
    run = RunFolder(shutil.copytree(smoke("sedd").path, tmp_path / "run"))
    for step in Checkpoints(run.ckpt, run.hash).steps():
        (run.ckpt / f"step-{step:08d}" / "model.safetensors").write_bytes(b"torn")
    status, _, err = say("export", run.path, "--to", tmp_path / "out")
    assert status == 1 and "no usable checkpoint" in err and not (tmp_path / "out").exists()
