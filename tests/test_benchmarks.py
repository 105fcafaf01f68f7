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


def test_moments(monkeypatch, tmp_path, capsys):
    """Steps by float32 and by one byte at a toy size; torchao's would compile for half a minute."""
    import moments

    words = ["--vocab", "60", "--dim", "64", "--depth", "1", "--repeats", "1", "--ways", "adamw", "adamw8bit"]
    monkeypatch.setattr(sys, "argv", ["moments.py", *words, "--out", str(tmp_path / "moments.json")])
    moments.main()
    rows = json.loads((tmp_path / "moments.json").read_text())["rows"]
    assert rows["adamw"]["bytes"] > 7.9 and rows["adamw8bit"]["bytes"] < 2.5
    assert "| adamw8bit |" in capsys.readouterr().out
