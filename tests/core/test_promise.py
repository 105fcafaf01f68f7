"""The promise: a plug-in file with parts of many kinds is listed, checked, trained, sampled and reported as it is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import yaml

from workbench.cli.main import main
from workbench.core.plugins import isolated, load_plugin, plugin_file, plugin_version
from workbench.data.workers import HERE, encode_chunks

PLUGIN = Path(__file__).parent / "many_parts.py"
PARTS = {
    "backbone": "promised_net",
    "corpus": "promised_text",
    "graph": "promised_ladder",
    "metric": "promised_metric",
    "mixer": "promised_scan",
    "noise": "promised_noise",
    "objective": "promised_loss",
    "predictor": "promised_rule",
    "readout": "promised_law",
    "schedule": "promised_pace",
    "shaper": "promised_shaper",
    "tokenizer": "promised_letters",
}
RECIPE = {
    "name": "promise",
    "plugins": ["./many_parts.py"],
    "data": {"corpus": "promised_text", "tokenizer": "promised_letters", "length": 16},
    "backbone": {"type": "promised_net", "dim": 16, "mixer": "promised_scan"},
    "process": {
        "type": "diffusion",
        "graph": "absorbing",
        "noise": "promised_noise",
        "readout": "promised_law",
        "objective": "promised_loss",
    },
    "sampler": {
        "type": "reverse",
        "steps": 4,
        "predictor": {"type": "promised_rule", "eta": 0.1},
        "shapers": [{"type": "promised_shaper", "strength": 0.5}],
    },
    "train": {
        "steps": 4, "batch": 4, "ema": 0.5, "precision": "fp32", "log_every": 2, "checkpoint_every": 2,
        "tensorboard": False, "schedule": "promised_pace",
    },
    "evaluations": {"final": {"blocks": 4, "samples": 2, "metrics": ["bits_per_byte", "promised_metric"]}},
}  # fmt: skip


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """A command in a folder of its own, beside a copy of the plug-in: its stdout, after a status of 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "many_parts.py").write_text(PLUGIN.read_text())
    (tmp_path / "promise.yaml").write_text(yaml.safe_dump(RECIPE))

    def call(*words):
        with isolated():
            status = main([str(word) for word in words])
        said = capsys.readouterr()
        assert status == 0, said.out + said.err
        return said.out

    return call


def test_it_is_listed_shown_and_checked(run):
    found = json.loads(run("list", "--json", "--plugin", "many_parts.py"))
    assert {kind: name for kind, name in PARTS.items() if name in found[kind]} == PARTS
    assert "cap on the share" in run("show", "predictor", PARTS["predictor"], "--plugin", "many_parts.py")
    contracts = json.loads(run("check", "--contract", "many_parts.py", "--json"))["contracts"]
    assert {found["part"]: found["problems"] for found in contracts} == {
        f"{kind} {name}": [] for kind, name in PARTS.items()
    }
    assert json.loads(run("check", "promise.yaml", "--json"))["recipes"][0]["parameters"] > 0


def test_it_is_trained_sampled_and_reported(run, tmp_path):
    run("train", "promise.yaml")
    (folder,) = (tmp_path / "runs").iterdir()
    (tmp_path / "many_parts.py").unlink()  # the run keeps its own copy
    drawn = json.loads(run("sample", folder, "--count", 2, "--prefix", "ab", "--json"))
    assert all(text.startswith("ab") for text in drawn["texts"])
    results = {value["name"]: value for value in json.loads((folder / "results.json").read_text())["values"]}
    assert "error" not in results["bits_per_byte"] and results["promised_metric"]["value"] is not None
    run("report", folder, "--out", "report")
    assert "promised metric" in (tmp_path / "report" / "report.md").read_text()


def test_an_edited_plugin_does_not_find_old_tokens(run, tmp_path):
    run("train", "promise.yaml", "--no-eval")
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1
    with (tmp_path / "many_parts.py").open("a") as file:
        file.write("# edited\n")
    run("train", "promise.yaml", "--no-eval")
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 2


def test_what_does_not_fit_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many_parts.py").write_text(PLUGIN.read_text())
    process = {**RECIPE["process"], "graph": "promised_ladder", "readout": "plain"}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**RECIPE, "process": process}))
    with isolated():
        assert main(["check", "bad.yaml"]) == 1
    out = capsys.readouterr().out
    assert "objective 'promised_loss' needs a graph with a mask" in out
    assert "Readouts that fit: leave_one_out, normalised, promised_law" in out
    assert "predictor 'promised_rule' needs a graph with a mask" in out


def test_a_plugins_tokenizer_goes_to_other_processes(tmp_path):
    file = tmp_path / "upper.py"
    file.write_text(
        "from workbench.data.base import Tokenizer\nfrom workbench.data.tokenizers import Bytes\n"
        '@Tokenizer.register("promised_upper")\nclass Upper(Bytes):\n    """Bytes under another name."""\n'
    )
    with isolated():
        (part,) = load_plugin(file).parts()
        assert plugin_file(part) == file.resolve() and plugin_version(part)
        batches = [[f"text {number}"] for number in range(HERE + 2)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would say that all was encoded here after all
            found = list(encode_chunks(part(), iter(batches), 1))
    assert [texts for texts, _ in found] == batches
    assert bytes(found[-1][1][0].astype("uint8")) == batches[-1][0].encode()
