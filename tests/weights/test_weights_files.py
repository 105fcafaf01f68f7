"""Files that are damaged, hostile or not what they seem: one message, nothing executed, no run made."""

from __future__ import annotations

import collections
import json
import os
import pickle
import sys
import types
import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backbones.gpt2 import GPT2
from backbones.weights import gpt2
from backbones.weights.base import Published
from backbones.weights.files import read_weights, weights_file
from backbones.weights.pickles import WeightsError
from tests.weights.imported import ids, import_run, say
from tests.weights.official import state_of

STATE = state_of(14, 16, 2, 1, 4)


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["value", "beside", "whole"])
@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt"])
def test_a_pickle_with_code_is_refused_in_words_and_nothing_runs(tmp_path, place, ending):
    mark, file = tmp_path / "mark", tmp_path / f"w.{ending}"
    evil = Evil(mark)
    content = {"value": {**STATE, "x": evil}, "beside": {"state_dict": STATE, "hyper_parameters": evil}, "whole": evil}
    torch.save(content[place], file)
    status, _, err = say("import", file, *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and "holds more than tensors" in err and "Nothing of it was run" in err
    assert "system" in err and "Traceback" not in err
    assert not mark.exists() and not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bare_pickle_is_refused_too(tmp_path):
    mark, file = tmp_path / "mark", tmp_path / "w.pt"
    file.write_bytes(pickle.dumps({"a": Evil(mark)}))
    assert say("import", file, "--runs", tmp_path / "runs")[0] == 1 and not mark.exists()


@pytest.fixture
def settings_library(monkeypatch):
    """A module called omegaconf, whose objects say when they are made; gone again when a file is read."""
    module, made = types.ModuleType("omegaconf"), []

    class DictConfig:
        def __init__(self, content):
            made.append(content)
            self.content, self.kind, self.cache = content, typing.Any, collections.defaultdict(dict)

        def __getstate__(self):
            return {"_content": self.content, "_metadata": (self.kind, self.cache, int, dict)}

        def __setstate__(self, state):
            made.append(state)

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf", "DictConfig"
    module.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    return DictConfig, made


@pytest.mark.parametrize("poisoned", [False, True])
def test_settings_of_a_lightning_checkpoint_are_shells_and_do_not_excuse_code(tmp_path, settings_library, poisoned):
    config, made = settings_library
    state = {f"backbone.{name}": value for name, value in STATE.items()}
    mark = tmp_path / "mark"
    settings = {"config": config({"lr": 1.0, "model": config([1, 2])})}
    whole = {"state_dict": state, "hyper_parameters": settings, "global_step": 3, "callbacks": {"a": config}}
    torch.save({**whole, "x": Evil(mark)} if poisoned else whole, tmp_path / "last.ckpt")
    made.clear()
    del sys.modules["omegaconf"]
    status, _, err = say("import", tmp_path / "last.ckpt", *ids(13), "--runs", tmp_path / "runs")
    assert made == [] and "omegaconf" not in sys.modules and not mark.exists()
    assert status == poisoned, err
    if poisoned:
        assert "system" in err and "holds more than tensors" in err


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_told(tmp_path, ending, share):
    file = tmp_path / f"w.{ending}"
    torch.save(STATE, file) if ending == "pt" else save_file(STATE, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    status, _, err = say("import", file, *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and f"{file} is damaged" in err
    assert not (tmp_path / "runs").exists()


def test_every_fault_of_a_state_dict_is_in_one_message_and_no_run_is_made(tmp_path):
    damaged = {**STATE, "mystery": torch.zeros(2), "blocks.0.mlp.2.bias": torch.zeros(3)}
    del damaged["blocks.0.attn_out.weight"], damaged["output_layer.linear.bias"]
    save_file(damaged, tmp_path / "w.safetensors")
    status, _, err = say("import", tmp_path / "w.safetensors", *ids(13), "--runs", tmp_path / "runs")
    assert status == 1
    for fault in ("unknown: mystery", "missing: blocks.0.attn_out.weight", "missing: output_layer.linear.bias"):
        assert fault in err
    assert "shape: blocks.0.mlp.2.bias is [3]" in err and not (tmp_path / "runs").exists()


def test_a_wrong_vocabulary_says_what_was_tried_and_what_to_say(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    status, _, err = say("import", tmp_path / "w.safetensors", *ids(20), "--runs", tmp_path / "runs")
    assert status == 1 and "a table of 14 ids" in err and "data.tokenizer.type=ids data.tokenizer.vocab=N" in err
    assert "21 states on graph 'absorbing'" in err and "20 states on graph 'uniform'" in err
    assert "'gpt2' has 50257 ids" in say("import", tmp_path / "w.safetensors", "--runs", tmp_path / "runs")[2]
    status, _, err = say("import", tmp_path / "w.safetensors", "data.tokenizer=bpe", "--runs", tmp_path / "runs")
    assert status == 1 and "tokenizer 'bpe' learns from text" in err
    run, _ = import_run(tmp_path / "w.safetensors", tmp_path / "runs", *ids(14))
    assert "type: uniform" in run.resolved.read_text()


def test_heads_that_nothing_tells_are_asked_for(tmp_path):
    save_file({name: value for name, value in STATE.items() if "rotary" not in name}, tmp_path / "w.safetensors")
    status, _, err = say("import", tmp_path / "w.safetensors", *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and "how many heads the attention has; add backbone.heads=…" in err
    import_run(tmp_path / "w.safetensors", tmp_path / "runs", *ids(13), "backbone.heads=2")
    wide = {name: value for name, value in state_of(14, 128, 2, 1, 4).items() if "rotary" not in name}
    save_file(wide, tmp_path / "wide.safetensors")
    _, said = import_run(tmp_path / "wide.safetensors", tmp_path / "runs", *ids(13))
    assert "heads 2" in said and "heads are taken to be 64 wide" in said


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds nothing"),
        ({"a": 1, "b": "x"}, "is no state dict"),
        ({"model": {"a": torch.zeros(2), "n": 3}}, "is no state dict"),
        ({"a": torch.zeros(2)}, "weights of no known layout (a …)"),
        ({**STATE, "output_layer.linear.bias": torch.full((14,), float("nan"))}, "not finite"),
        ({"model": STATE, "ema": {"shadow_params": 3}}, "no list of tensors"),
    ],
)
def test_what_is_no_weights_is_told(tmp_path, content, complaint):
    torch.save(content, tmp_path / "w.pt")
    status, _, err = say("import", tmp_path / "w.pt", *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and complaint in err, err


def test_places_without_weights_or_with_several(tmp_path):
    assert "no such file or folder" in say("import", tmp_path / "absent")[2]
    assert "holds no weights" in say("import", tmp_path)[2]
    for name in ("a.pt", "b.pt"):
        torch.save(STATE, tmp_path / name)
    assert "holds a.pt, b.pt: name the file" in say("import", tmp_path)[2]
    (tmp_path / "c.npz").write_bytes(b"x")
    assert "by the file's ending" in say("import", tmp_path / "c.npz")[2]
    save_file(STATE, tmp_path / "model.safetensors")
    assert weights_file(tmp_path).name == "model.safetensors"  # the usual name before others


def test_a_config_that_is_none(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    for text, complaint in (("{", "is no JSON"), ("[1]", "a mapping is due")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=complaint):
            read_weights(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    status, _, err = say("import", tmp_path, *ids(13))
    assert status == 1 and "config.json says 'bert'" in err
    status, _, err = say("import", tmp_path, *ids(13), "--layout", "sed")
    assert status == 1 and "Did you mean 'sedd'?" in err


def test_what_a_config_tells_is_the_outermost():
    found = Published({}, {"model": {"length": 8, "deep": {"n_heads": 3}}, "other": {"deep": {"length": 9}}, "x": True})
    assert (found.number("length"), found.number("n_heads"), found.number("x"), found.told("y")) == (8, 3, None, None)


@pytest.mark.parametrize(
    ("state", "key"), [(STATE, "blocks.{}.norm1.weight"), (gpt2.save(GPT2(9, 9, 6, 8, 1, 2)), "h.{}.ln_1.bias")]
)
def test_a_number_of_blocks_past_all_use_is_told(tmp_path, state, key):
    torch.save({**state, key.format(99_999_999): torch.zeros(8)}, tmp_path / "w.pt")
    status, _, err = say("import", tmp_path / "w.pt", *ids(13), "--runs", tmp_path / "runs")
    assert status == 1 and "a block number 99999999" in err


SHAPES = {"number": torch.zeros(()), "empty": torch.zeros(0), "flat": torch.zeros(0, 0), "deep": torch.zeros(2, 3, 4)}


@pytest.mark.parametrize("bent", sorted(SHAPES))
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_any_tensor_of_a_shape_that_makes_no_sense_is_told(tmp_path, bent, prefix):
    """Sizes are read from some of them: none may end in a traceback."""
    for name in STATE:
        state = {prefix + key: SHAPES[bent] if key == name else value for key, value in STATE.items()}
        torch.save(state, tmp_path / "w.pt")
        status, _, err = say("import", tmp_path / "w.pt", *ids(13), "backbone.heads=2", "--runs", tmp_path / "runs")
        assert (status == 1 and "w.pt" in err) or name.startswith("rotary"), (name, err)


@pytest.mark.parametrize("bent", sorted(SHAPES))
def test_a_bent_gpt2_is_told(tmp_path, bent):
    net = GPT2(9, 9, 6, dim=8, depth=1, heads=2)
    whole = gpt2.save(net)
    for name in whole:
        torch.save({key: SHAPES[bent] if key == name else value for key, value in whole.items()}, tmp_path / "w.pt")
        words = ["data.tokenizer={type: ids, vocab: 9}", "backbone.heads=2", "--runs", tmp_path / "runs"]
        status, _, err = say("import", tmp_path / "w.pt", *words)
        assert status == 1 and "w.pt" in err, (name, err)


@pytest.mark.parametrize("config", [
    {"n_heads": 3}, {"n_heads": "x"}, {"dropout": 7}, {"model": {"length": -1}}, {"model": []}, {"graph": "x"},
    {"graph": {}},
    {"graph": {"type": ["x"]}}, {"noise": {"type": "geometric", "sigma_min": "x"}}, {"noise": {"type": {}}},
    {"noise": {"type": "geometric", "sigma_min": 30}}, {"model_type": 3}, {"scale_by_sigma": "no"}, {"recipe": {}},
    {"model_type": "sedd-workbench"}, {"model_type": "sedd-workbench", "recipe": {"backbone": 3}},
    {"model_type": "sedd-workbench", "recipe": {"name": "x", "plugins": 3}},
])  # fmt: skip
def test_any_config_is_taken_or_told(tmp_path, config):
    save_file({name: value for name, value in STATE.items() if "rotary" not in name}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    status, _, err = say("import", tmp_path, *ids(13), "backbone.heads=2", "--runs", tmp_path / "runs")
    assert status == 0 or err.startswith("workbench import: ")
