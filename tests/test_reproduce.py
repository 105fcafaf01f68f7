"""A run made again from its folder alone: what counts as agreement, and what is said of the environment."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, write_json
from workbench.environment import computes, installed
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.reproduce import changes, compared, reproduce


@pytest.fixture
def run(smoke, tmp_path):
    """A copy of a finished run: its folder is all that there is of it."""
    return shutil.copytree(smoke("sedd").path, tmp_path / "kept" / smoke("sedd").path.name)


def results(*values):
    return Results("h", "n", "r", "p", list(values))


def test_a_run_is_made_again_to_the_last_bit(run, tmp_path, capsys):
    words = ["reproduce", str(run), "--to", str(tmp_path / "again"), "--exactly"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agrees"] and found["exact"]
    assert found["weights"] == "the weights are the same to the last bit"
    assert found["samples"] == "4 of 4 samples are the same text"
    verdicts = {one["name"]: one["verdict"] for one in found["figures"]}
    assert verdicts["bits_per_byte"] == "exactly" and verdicts["sample_tokens_per_second"] == "time"
    assert read_json(tmp_path / "again" / run.name / "reproduced.json") == found
    assert main(words) == 0, "what is made already is only compared"
    assert "10 exactly, 0 within intervals, 0 not" in capsys.readouterr().out


def test_figures_that_do_not_agree_end_with_status_1(run, tmp_path, capsys):
    kept = read_json(run / "results.json")
    first = kept["values"][0]
    assert first["name"] == "bits_per_byte"
    inside, outside = (first["value"] + share * (first["high"] - first["value"]) for share in (0.5, 40.0))
    for value, status, exactly in ((inside, 0, 1), (outside, 1, 1)):
        shift = value - first["value"]
        moved = {**first, "value": value, "low": first["low"] + shift, "high": first["high"] + shift}
        write_json(run / "results.json", {**kept, "values": [moved, *kept["values"][1:]]})
        assert main(["reproduce", str(run), "--measure-only"]) == status
        assert main(["reproduce", str(run), "--measure-only", "--exactly"]) == exactly
    assert "outside of both 95 % intervals" in capsys.readouterr().out
    assert not (tmp_path / "reproduced").exists(), "measuring keeps nothing"


def test_agreement_of_one_figure():
    pairs = {
        "same": (Value("a", 1.0), Value("a", 1.0), "exactly"),
        "inside the old": (Value("a", 1.0, 0.9, 1.1), Value("a", 1.05), "within intervals"),
        "inside the new": (Value("a", 1.0), Value("a", 1.05, 0.9, 1.1), "within intervals"),
        "outside": (Value("a", 1.0, 0.9, 1.1), Value("a", 1.2, 1.11, 1.3), "not"),
        "bare": (Value("a", 1.0), Value("a", 1.0000001), "not"),
        "a time": (Value("a", 1.0, unit="tokens/s"), Value("a", 9.0), "time"),
        "gone": (Value("a", 1.0), Value("b", 1.0), "not"),
        "failed now": (Value("a", 1.0), Value("a", None, error="why"), "not"),
        "failed twice": (Value("a", None, error="why"), Value("a", None, error="why"), "exactly"),
    }
    for name, (before, now, verdict) in pairs.items():
        (found,) = compared(results(before), results(now))
        assert found.verdict == verdict, name


def test_what_differs_in_the_environment():
    packages, source = {"torch": "1", "PyYAML": "1"}, {"commit": "x", "diff": ""}
    before = {"python": "3.11", "threads": 1, "packages": packages, "git": source}
    assert list(changes(before, before)) == []
    packages, source = {"torch": "2", "nvidia-nccl": "1"}, {"commit": "x", "diff": "y"}
    now = {"python": "3.12", "threads": 2, "packages": packages, "git": source}
    assert list(changes(before, now)) == [
        "python: 3.11, now 3.12",
        "threads: 1, now 2",
        "package nvidia-nccl: absent, now 1",
        "package PyYAML: 1, now absent",
        "package torch: 1, now 2",
        "uncommitted changes of the source are other ones",
    ]
    assert list(changes({}, now)) == [], "what was not written down is not compared"


def test_packages_on_which_no_figure_depends_are_counted(run, capsys):
    facts = read_json(run / "env.json")
    packages = facts["packages"] | {"numpy": "0.1", "pytest": "0.1", "a-tool": "1"}
    write_json(run / "env.json", facts | {"packages": packages})
    assert main(["reproduce", str(run), "--measure-only"]) == 0
    said = capsys.readouterr().out
    assert "package numpy: 0.1, now " in said and "package pytest" not in said and "a-tool" not in said
    assert "no figure depends on: 2 (--json names them)" in said
    assert main(["reproduce", str(run), "--measure-only", "--json"]) == 0
    others = json.loads(capsys.readouterr().out)["other_packages"]
    assert others[0] == "package a-tool: 1, now absent" and others[1].startswith("package pytest: 0.1, now ")


def test_copies_that_packages_carry_along_are_none_that_are_installed(tmp_path, monkeypatch):
    for folder, version in (("site", "2.0"), ("site/setuptools/_vendor", "1.0")):
        made = tmp_path / folder / f"carried_along-{version}.dist-info"
        made.mkdir(parents=True)
        (made / "METADATA").write_text(f"Name: carried-along\nVersion: {version}\n")
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / folder)])  # the last stands for those before
        assert installed()["carried-along"] == "2.0"


def test_every_package_that_is_required_is_known_to_compute_or_not():
    """setup.py names them; one that is new there has to be put on a side."""
    aside = {"tensorboard", "rich", "matplotlib", "wandb", "mlflow-skinny", "mkdocs-material", "hypothesis", "ruff"}
    aside |= {"pytest", "pytest-xdist", "pytest-timeout", "mypy"}
    text = (Path(__file__).parents[1] / "setup.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"([a-z][\w-]*)[<>=]=?\d[^"]*"', text))
    assert {"torch", "scipy", "torchao", "lm-eval", "zstandard"} <= named
    assert {name for name in named if not computes(name)} == aside


def test_runs_that_cannot_be_made_again_say_why(run, tmp_path):
    with pytest.raises(WorkbenchError, match="name another folder by --to"):
        reproduce(run, run.parent)
    status = read_json(run / "status")
    write_json(run / "status", {**status, "state": "interrupted"})
    with pytest.raises(WorkbenchError, match="not trained to its end"):
        reproduce(run, tmp_path / "again")
    write_json(run / "source.json", {})
    with pytest.raises(WorkbenchError, match="published weights"):
        reproduce(run, tmp_path / "again")
    (run / "results.json").unlink()
    with pytest.raises(WorkbenchError, match="keeps no figures"):
        reproduce(run, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_run_that_began_with_anothers_weights_finds_them(smoke, tmp_path):
    run = smoke("distill").path
    made = reproduce(run, tmp_path / "again")
    assert made.agrees and made.weights == "the weights are the same to the last bit"
