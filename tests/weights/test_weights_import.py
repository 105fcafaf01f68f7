"""Published weights through ``workbench import``: the numbers that their own code gives, and a run like any other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.weights.imported import ids, import_run, log_scores, say, small, tensors
from tests.weights.official import logits, sedd_log_scores, state_of
from workbench import experiment, opening
from workbench.core.files import sha256
from workbench.core.reading import read_yaml
from workbench.data.bpe import find_merges
from workbench.data.storage import DataError
from workbench.publish import sources
from workbench.run import RunFolder

GOLDEN = Path(__file__).parents[1] / "data_files"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


# --- the same numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sedd_absorb_d32", "sedd_uniform_d32"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_golden_scores_of_a_plain_state_dict(tmp_path, name, ending):
    """Scores of the official code, computed there: through a file, an import and the run's own view."""
    data = np.load(GOLDEN / f"{name}.npz")
    state = {key[6:]: torch.from_numpy(data[key]) for key in data.files if key.startswith("state/")}
    vocab, dim, heads, depth, length, _, scaled = data["meta"].tolist()
    file = tmp_path / f"golden.{ending}"
    torch.save(state, file) if ending == "pt" else save_file(state, file)
    run, said = import_run(file, tmp_path / "runs", *ids(vocab, length))
    found = log_scores(run, torch.from_numpy(data["xt"]), torch.from_numpy(data["sigma"]))
    torch.testing.assert_close(found, torch.from_numpy(data["log_score"]), **CLOSE)
    recipe = read_yaml(run.resolved)
    assert [recipe["backbone"][key] for key in ("type", "dim", "heads", "depth")] == ["transformer", dim, heads, depth]
    process = recipe["process"]
    assert process["graph"]["type"] == ("absorbing" if scaled else "uniform")
    assert process["readout"]["type"] == ("scaled" if scaled else "plain")
    if not scaled:
        assert process["noise"] == {"type": "geometric", "sigma_min": 1e-4, "sigma_max": 20.0}
    assert "layout:   sedd" in said and "no config.json tells" in said


CASES = [(20, 16, 2, 1, 8, 5), (31, 24, 3, 2, 12, 17), (9, 64, 4, 3, 128, 33), (50, 48, 2, 2, 7, 64)]


@pytest.mark.parametrize(("vocab", "dim", "heads", "depth", "cond", "length"), CASES)
@pytest.mark.parametrize("masked", [True, False])
def test_scores_of_the_official_forward_at_other_sizes(tmp_path, vocab, dim, heads, depth, cond, length, masked):
    states = vocab + masked
    state = state_of(states, dim, heads, depth, cond, seed=dim)
    save_file(state, tmp_path / "weights.safetensors")
    run, _ = import_run(tmp_path / "weights.safetensors", tmp_path / "runs", *ids(vocab, length))
    x_BL = torch.randint(0, states, (4, length))
    sigma_B = torch.tensor([2e-3, 0.4, 0.6, 6.5])
    due = sedd_log_scores(state, heads, x_BL, sigma_B, masked)
    torch.testing.assert_close(log_scores(run, x_BL, sigma_B).double(), due, **CLOSE)


@pytest.mark.parametrize("hears", [None, False, True])
def test_mdlm(tmp_path, hears):
    """Behind its prefix; deaf to σ unless the config says it hears; a masked row's score is its law over e^σ − 1."""
    vocab, heads, length = 23, 4, 12
    state = state_of(vocab + 1, 32, heads, 2, 8, seed=2, prefix="backbone.")
    save_file(state, tmp_path / "model.safetensors")
    if hears is not None:
        config = {"model_type": "mdlm", "model_length": length, "n_heads": heads, "time_conditioning": hears}
        (tmp_path / "config.json").write_text(json.dumps(config))
    run, said = import_run(tmp_path, tmp_path / "runs", *ids(vocab, length))
    assert "layout:   mdlm" in said and ("inferred: time-free" in said) == (hears is None)
    x_BL = torch.randint(0, vocab + 1, (3, length))
    x_BL[:, ::2] = vocab
    sigma_B = torch.tensor([0.01, 0.7, 4.0])
    heard_B = sigma_B if hears else torch.zeros(3)
    law = logits(state, heads, x_BL, heard_B, "backbone.")[..., :vocab].log_softmax(-1)
    due = law - torch.expm1(sigma_B.double()).log()[:, None, None]
    masked = x_BL == vocab
    found = log_scores(run, x_BL, sigma_B)[..., :vocab].double()
    torch.testing.assert_close(found[masked], due[masked], **CLOSE)


def test_duo(tmp_path):
    """Known by its config alone; a score is x̄_y/x̄_x of its law."""
    vocab, heads, length = 21, 2, 10
    state = state_of(vocab, 32, heads, 2, 8, seed=3, prefix="backbone.")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "duo", "model_length": length}))
    run, said = import_run(tmp_path, tmp_path / "runs", *ids(vocab))
    assert "layout:   duo" in said
    x_BL, sigma_B = torch.randint(0, vocab, (3, length)), torch.tensor([0.05, 0.7, 4.0])
    alpha = torch.exp(-sigma_B.double())[:, None, None]
    law = logits(state, heads, x_BL, sigma_B, "backbone.").softmax(-1)
    bar = vocab * alpha * law + 1 - alpha
    due = (bar / bar.gather(-1, x_BL[..., None])).log()
    torch.testing.assert_close(log_scores(run, x_BL, sigma_B).double(), due, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("spare", [0, 1])
def test_the_padding_token_of_duo_is_a_spare_id(tmp_path, spare):
    try:
        find_merges(None)
    except DataError as error:
        pytest.skip(str(error))
    save_file(state_of(50257 + spare, 8, 2, 1, 4, prefix="backbone."), tmp_path / "model.safetensors")
    run, _ = import_run(tmp_path, tmp_path / "runs", "--layout", "duo")
    assert read_yaml(run.resolved)["data"]["tokenizer"]["spare"] == spare
    opened = opening.open_trained(run.path)
    assert (opened.model.process.states, opened.model.tokenizer.eos) == (50257 + spare, 50256)


def test_gpt2(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the reference GPT-2 is in transformers")
    config = transformers.GPT2Config(vocab_size=50, n_positions=24, n_embd=32, n_layer=2, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path / "hf")
    run, said = import_run(tmp_path / "hf", tmp_path / "runs", "data.tokenizer={type: ids, vocab: 50}")
    assert "layout:   gpt2" in said and "process:  autoregressive; blocks of 24" in said
    opened = opening.open_trained(run.path)
    x_BL = torch.randint(0, 50, (3, 24))
    with torch.no_grad():
        found = opened.model.backbone.head(opened.model.backbone(x_BL))
        torch.testing.assert_close(found, theirs(x_BL).logits, **CLOSE)
    status, _, err = say("sample", run.path, "--count", 2, "--length", 6)
    assert status == 0, err


def test_bd3lm_is_used_where_its_block_is_the_text_and_refused_with_the_reason_where_not(tmp_path):
    state = state_of(12, 16, 2, 1, 4, prefix="backbone.") | {"sampling_eps_min": torch.tensor(1e-3)}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bd3lm", "block_size": 4, "model_length": 16}))
    status, _, err = say("import", tmp_path, *ids(11, 16), "--runs", tmp_path / "runs")
    assert status == 1 and "blocks of 4 tokens" in err and "block_size1024-pretrain" in err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bd3lm", "block_size": 16, "model_length": 16}))
    run, said = import_run(tmp_path, tmp_path / "runs", *ids(11, 16))
    assert "layout:   bd3lm" in said and read_yaml(run.resolved)["process"]["readout"]["type"] == "normalised"


# --- a run like any other ---------------------------------------------------------------------------------------


def test_an_imported_run_is_sampled_evaluated_reported_and_found_again(tmp_path):
    vocab = 15
    save_file(state_of(vocab + 1, 16, 2, 1, 4), tmp_path / "tiny.safetensors")
    words = [*ids(vocab), *small(tmp_path, vocab), "name=tiny"]
    run, said = import_run(tmp_path / "tiny.safetensors", tmp_path / "runs", *words)
    assert run.state == "trained" and run.env.is_file() and run.name == "tiny"
    note = json.loads((run.path / "source.json").read_text())
    assert note["layout"] == "sedd"
    assert note["files"] == {"tiny.safetensors": sha256(tmp_path / "tiny.safetensors")}
    assert "checked name by name" in said and "on other text: workbench import" in said
    status, out, err = say("sample", run.path, "--count", 2, "--infill", "3 ____ 5", "--json")
    assert status == 0, err
    assert all(row[0] == 3 and row[-1] == 5 for row in json.loads(out)["ids"])
    status, _, err = say("eval", run.path, "--cache", tmp_path / "cache")
    assert status == 0, err
    assert run.state == "evaluated"
    before = {path: path.stat().st_mtime_ns for path in run.ckpt.rglob("*")}
    again, said = import_run(tmp_path / "tiny.safetensors", tmp_path / "runs", *words)
    assert again.path == run.path and "holds these weights already" in said
    assert again.state == "evaluated"
    assert before == {path: path.stat().st_mtime_ns for path in run.ckpt.rglob("*")}
    assert say("report", run.path, "--out", tmp_path / "report")[0] == 0
    assert "is trained already" in say("train", "--resume", run.path, "--no-eval")[1]


def test_other_weights_under_the_same_recipe_are_another_run_and_so_is_training_it(tmp_path):
    first, second = tmp_path / "a" / "w.safetensors", tmp_path / "b" / "w.safetensors"
    runs = []
    for seed, file in enumerate((first, second)):
        file.parent.mkdir()
        save_file(state_of(10, 16, 2, 1, 4, seed=seed), file)
        runs.append(import_run(file, tmp_path / "runs", *ids(9))[0])
    assert runs[0].path != runs[1].path and runs[0].name == runs[1].name == "w"
    _, resolved = opening.reopen(runs[0].path)
    assert experiment.create(resolved, tmp_path / "runs").path not in {run.path for run in runs}


def test_an_import_that_was_killed_is_made_anew(tmp_path):
    save_file(state_of(10, 16, 2, 1, 4), tmp_path / "w.safetensors")
    run, _ = import_run(tmp_path / "w.safetensors", tmp_path / "runs", *ids(9))
    before = tensors(run)
    run.mark("created")
    again, said = import_run(tmp_path / "w.safetensors", tmp_path / "runs", *ids(9))
    assert again.path == run.path and "already" not in said and again.finished
    assert all(torch.equal(before[name], value) for name, value in tensors(again).items())


# --- containers -------------------------------------------------------------------------------------------------


def test_the_official_checkpoint_has_weights_and_averages_in_order(tmp_path):
    """{optimizer, model, ema, step}; ema.shadow_params is a list in the order of parameters."""
    vocab, heads = 13, 2
    state, shadow = (state_of(vocab + 1, 16, heads, 2, 4, seed=seed) for seed in (0, 1))
    listed = [value for name, value in shadow.items() if "rotary" not in name]
    whole = {
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 3e-4, "params": [0]}]},
        "model": state,
        "ema": {"decay": 0.9999, "num_updates": 70, "shadow_params": listed},
        "step": 70,
    }
    folder = tmp_path / "run"
    (folder / "checkpoints-meta").mkdir(parents=True)
    torch.save(whole, folder / "checkpoints-meta" / "checkpoint.pth")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(
        "tokens: 13\ngraph: {type: absorb}\nnoise: {type: geometric, sigma_min: 0.001, sigma_max: 12}\n"
        "model: {n_heads: 2, length: 20, scale_by_sigma: false, dropout: 0.05}\n"
    )
    run, said = import_run(folder, tmp_path / "runs", *ids(vocab)[:1])
    recipe = read_yaml(run.resolved)
    assert recipe["process"]["noise"] == {"type": "geometric", "sigma_min": 0.001, "sigma_max": 12.0}
    assert recipe["process"]["readout"]["type"] == "plain" and recipe["data"]["length"] == 20
    assert recipe["backbone"]["dropout"] == 0.05 and "graph" not in "".join(said.split("inferred:")[1:])
    assert run.read_status()["step"] == 70
    assert torch.equal(tensors(run)["head.bias"], state["output_layer.linear.bias"])
    averaged = tensors(run, "ema")
    assert torch.equal(averaged["head.bias"], shadow["output_layer.linear.bias"])
    assert torch.equal(averaged["blocks.1.mlp.inner.weight"], shadow["blocks.1.mlp.0.weight"])
    x_BL, sigma_B = torch.randint(0, vocab + 1, (2, 9)), torch.tensor([0.3, 2.0])
    due = sedd_log_scores(shadow, heads, x_BL, sigma_B, False)  # the averages are what is used
    torch.testing.assert_close(log_scores(run, x_BL, sigma_B).double(), due, **CLOSE)


def test_averages_of_another_network_are_refused(tmp_path):
    state = state_of(14, 16, 2, 1, 4)
    listed = [value for name, value in state.items() if "rotary" not in name]
    torch.save({"model": state, "ema": {"shadow_params": listed[:-1]}, "step": 1}, tmp_path / "w.pth")
    status, _, err = say("import", tmp_path / "w.pth", *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and f"{len(listed) - 1} tensors, the network has {len(listed)} parameters" in err
    listed[0], listed[1] = listed[1], listed[0]
    torch.save({"model": state, "ema": {"shadow_params": listed}, "step": 1}, tmp_path / "w.pth")
    status, _, err = say("import", tmp_path / "w.pth", *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and "shape: vocab_embed.embedding" in err


def test_a_lightning_checkpoint(tmp_path):
    """state_dict['backbone.*'], averages of the backbone and then of the noise's single numbers."""
    state, shadow = (state_of(14, 16, 2, 1, 4, seed=seed, prefix="backbone.") for seed in (0, 1))
    listed = [*(value for name, value in shadow.items() if "rotary" not in name), torch.tensor(0.0)]
    ema = {"decay": 0.9999, "shadow_params": listed}
    whole = {"state_dict": state, "ema": ema, "global_step": 9, "loops": {"a": 1}}
    torch.save(whole, tmp_path / "last.ckpt")
    run, said = import_run(tmp_path / "last.ckpt", tmp_path / "runs", *ids(13))
    assert "layout:   mdlm" in said and run.read_status()["step"] == 9
    assert torch.equal(tensors(run, "ema")["embed.table.weight"], shadow["backbone.vocab_embed.embedding"])


def test_shards_with_an_index(tmp_path):
    state = state_of(14, 16, 2, 2, 4)
    names = list(state)
    parts = {f"model-0000{i}-of-00003.safetensors": names[i::3] for i in range(3)}
    for file, held in parts.items():
        save_file({name: state[name] for name in held}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in parts.items() for name in held}}))
    run, _ = import_run(tmp_path, tmp_path / "runs", *ids(13))
    assert torch.equal(tensors(run)["head.weight"], state["output_layer.linear.weight"])
    assert len(json.loads((run.path / "source.json").read_text())["files"]) == 4
    first = next(iter(parts))
    save_file({name: state[name] for name in parts[first][1:]}, tmp_path / first)
    assert f"promises tensors that no shard holds: {parts[first][0]}" in say("import", tmp_path, *ids(13))[2]
    (tmp_path / first).unlink()
    assert f"not there: {first}" in say("import", tmp_path, *ids(13))[2]
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    assert "outside its folder: ../../etc/passwd" in say("import", tmp_path, *ids(13))[2]


def test_half_precision_is_widened(tmp_path):
    state = {name: value.bfloat16() for name, value in state_of(14, 16, 2, 1, 4).items() if "rotary" not in name}
    save_file(state, tmp_path / "w.safetensors")
    run, _ = import_run(tmp_path / "w.safetensors", tmp_path / "runs", *ids(13), "backbone.heads=4")
    found = tensors(run)["head.bias"]
    assert found.dtype == torch.float32 and torch.equal(found, state["output_layer.linear.bias"].float())
    assert read_yaml(run.resolved)["backbone"]["heads"] == 4


# --- the hub ----------------------------------------------------------------------------------------------------


def test_the_hub_is_asked_for_safetensors_and_for_torch_files_only_where_there_are_none(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    place, asked = tmp_path / "snapshots" / ("c0ffee" * 6), []
    place.mkdir(parents=True)
    state = state_of(14, 16, 2, 1, 4)
    (place / "config.json").write_text(json.dumps({"graph": {"type": "absorb"}, "model": {"length": 8}}))

    def download(name, revision=None, allow_patterns=()):
        asked.append((name, revision, "*.bin" in allow_patterns))
        if "*.bin" in allow_patterns:
            torch.save(state, place / "pytorch_model.bin")
        return str(place)

    monkeypatch.setattr(hub, "snapshot_download", download)
    run, _ = import_run("hub:louaaron/sedd-tiny@main", tmp_path / "runs", *ids(13)[:1])
    assert asked == [("louaaron/sedd-tiny", "main", False), ("louaaron/sedd-tiny", "main", True)]
    note = json.loads((run.path / "source.json").read_text())
    assert (note["source"], note["revision"]) == ("hub:louaaron/sedd-tiny", place.name) and run.name == "sedd-tiny"


def test_no_network_and_no_package_are_one_clear_error(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*words, **more):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    status, _, err = say("import", "hub:louaaron/sedd-small", "--runs", tmp_path)
    assert status == 1 and "cannot be fetched (no route to host)" in err and "import its folder" in err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    status, _, err = say("import", "hub:louaaron/sedd-small", "--runs", tmp_path)
    assert status == 1 and "pip install -e '.[hub]'" in err
    assert "write hub:owner/name" in say("import", "hub:sedd-small")[2]
    assert "on the hub it is hub:louaaron/sedd-small" in say("import", "louaaron/sedd-small")[2]


def test_names_after_sources(tmp_path):
    (tmp_path / "a folder").mkdir()
    names = [sources.default_name(one) for one in ("hub:a/b-c.d@v1", str(tmp_path / "a folder"), "x/y.tar.pt", "/.pt")]
    assert names[:3] == ["b-c.d", "a-folder", "y.tar"] and RunFolder and names[3]


def test_a_tokenizer_that_is_not_on_this_machine_is_said_before_a_run_is_made(tmp_path):
    save_file(state_of(50258, 8, 2, 1, 4), tmp_path / "w.safetensors")
    words = [f"data.tokenizer={{type: gpt2, folder: '{tmp_path / 'nowhere'}'}}", "--runs", tmp_path / "runs"]
    status, _, err = say("import", tmp_path / "w.safetensors", *words)
    assert status == 1 and "vocab.bpe or merges.txt" in err and not (tmp_path / "runs").exists()
