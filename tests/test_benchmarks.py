"""The benchmarks of the docs stay alive: each runs at toy size, through its own ``main``, and writes what it should."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch):
    """Benchmarks import one another as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))


def test_lengths(monkeypatch, tmp_path):
    """Two small backbones at one length, each in a process of its own; scans beside their loop."""
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    import lengths

    sizes = {"transformer": "smoke/sedd.yaml", "mamba2": "smoke/mamba2.yaml"}
    monkeypatch.setattr(lengths, "SIZES", dict.fromkeys(("cpu", "cuda"), sizes))
    monkeypatch.setattr(lengths, "LOOP", {"batch": 1, "length": 8, "channels": 64, "state": 4})
    words = ["--lengths", "32", "--threads", "1", "--repeats", "1", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["lengths.py", *words])
    lengths.main()
    (found,) = tmp_path.glob("lengths-*.json")
    record = json.loads(found.read_text())
    assert [row["backbone"] for row in record["lengths"]] == ["transformer", "mamba2"]
    assert all(row["tokens_per_second"] > 0 and row["peak_mb"] >= 0 for row in record["lengths"])
    assert {row["kernel"] for row in record["scans"]} >= {"recurrence"}
    assert "mamba2" in found.with_suffix(".md").read_text() and found.with_suffix(".svg").stat().st_size > 1000


def test_ablation(monkeypatch, tmp_path):
    """A grid of two arms, five updates each: trained as runs of their own, and put beside one another."""
    import ablation

    metrics = ["bits_per_byte", "unigram_bits_per_byte", "known_words", "unigram_entropy", "repetition", "distinct"]
    (tmp_path / "base.yaml").write_text(
        f"extends: {os.path.relpath(ROOT, tmp_path)}/recipes/smoke/sedd.yaml\nname: toy\ntrain: {{log_every: 1}}\n"
        f"evaluations: {{final: {{metrics: [{', '.join(metrics)}]}}}}\n"
    )
    grid = tmp_path / "toy.yaml"
    grid.write_text(
        "base: base.yaml\naxes:\n  backbone: {two: {}, one: {backbone.depth: 1}}\n"
        "  rate: {x1: {train.optimizer.lr: 3e-3}}\n  seed: [0]\n"
    )
    words = [str(grid), "--steps", "5", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *words])
    ablation.main()
    record = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [(row["backbone"], row["chosen"]) for row in record["rows"]] == [("two", True), ("one", True)]
    assert all(math.isfinite(row["seeds"][0]["bits_per_byte"]) for row in record["rows"])
    assert "one − two" in (tmp_path / "out" / "ablation.md").read_text()


def test_grid_overhead(monkeypatch, tmp_path):
    """A grid of one cell beside the same training, a round of each."""
    import grid_overhead

    words = ["--steps", "2", "--cells", "1", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["grid_overhead.py", *words])
    grid_overhead.main()
    record = json.loads((tmp_path / "overhead.json").read_text())
    assert {len(found) for found in record["seconds_a_cell"].values()} == {1}
    assert record["ratio"] > 0 and "beside plain" in (tmp_path / "overhead.md").read_text()


SMALL = ["--vocab", "60", "--dim", "32", "--depth", "1", "--length", "16", "--threads", "1", "--rounds", "1"]


def test_sampling(monkeypatch, tmp_path):
    """Every way, a process each, at two numbers of steps: a row each, beside the published way."""
    import sampling

    words = [*SMALL, "--precision", "fp32", "--batches", "2", "--steps", "2", "4", "--out", str(tmp_path)]
    monkeypatch.setattr(sampling, "OTHERS", {})
    monkeypatch.setattr(sys, "argv", ["sampling.py", *words])
    monkeypatch.setattr(sampling, "MAIN", {"analytic": sampling.MAIN["analytic"]})
    sampling.main(words)
    record = json.loads((tmp_path / "sampling-cpu.json").read_text())
    found = [(row["way"], row["steps"]) for row in record["table"]]
    assert found == [("published fp32", 2), ("published fp32", 4), ("analytic", 2), ("analytic", 4)]
    assert all(row["ratio"] > 0 and row["tokens_per_second"] > 0 for row in record["table"])
    calls = [row["calls"] for row in record["table"]]
    assert calls[:2] == [3, 5] and 0 < calls[2] <= 3 and 0 < calls[3] <= 5
    assert "| analytic | 2 | 4 |" in (tmp_path / "sampling-cpu.md").read_text()


def test_bound(monkeypatch, tmp_path):
    """Both ways are the same bound: the plain loop is told the same noise and comes to the same nats."""
    import bound

    bound.main([*SMALL, "--precision", "fp32", "--draws", "3", "--batch", "3", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "bound-cpu.json").read_text())
    plain, ours = record["table"]
    assert (plain["way"], ours["way"]) == ("plain fp32", "workbench")
    assert ours["nats"] == pytest.approx(plain["nats"], rel=1e-5) and 2.0 < ours["nats"] < 8.0
    assert "| workbench |" in (tmp_path / "bound-cpu.md").read_text()
