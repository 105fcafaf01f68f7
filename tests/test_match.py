"""Sizes at which one recipe costs what another does, and costs by length."""

from __future__ import annotations

import json

import pytest

from tests.smoke import RECIPES
from workbench.check import at_lengths, estimate
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.match import match, measure
from workbench.recipe import load

SMALL = RECIPES / "sedd-small.yaml"
SMOKE = RECIPES / "smoke" / "sedd.yaml"
MAMBA2 = ["backbone={type: mamba2, dim: 32, depth: 2, cond_dim: 16, dropout: 0.0, mixer: {head_dim: 8, state: 8}}"]


@pytest.mark.parametrize("by", ["parameters", "total", "flops"])
def test_a_match_is_within_its_tolerance(by):
    recipe, to = load(SMOKE, MAMBA2), load(RECIPES / "smoke" / "gpt2.yaml", ["backbone.dim=96"])
    found = match(recipe, to, by, within=0.02)
    sizes = [f"{name}={size}" for name, size in found.sizes.items()]
    resized = load(SMOKE, [*MAMBA2, *sizes])  # the printed settings, as another command would take them
    assert measure(resized, by) == found.value
    assert found.target == measure(to, by)
    assert abs(found.error) <= 0.02
    assert found.was == measure(recipe, by)


def test_what_fits_already_stays():
    found = match(load(SMALL, ["backbone={type: mamba2}"]), load(SMALL))
    assert found.sizes == {"backbone.dim": 768, "backbone.depth": 12}
    assert found.error == pytest.approx(-0.0063, abs=0.0005)


def test_widths_that_a_backbone_cannot_have_are_passed_over():
    found = match(load(SMOKE, ["backbone.heads=4"]), load(SMOKE, ["backbone.dim=60"]), within=0.05)
    assert found.sizes["backbone.dim"] % 8 == 0  # a head of even width, four of them


def test_no_size_within_reach_says_the_nearest():
    said = r"no depth up to 16 with a width of 4 to 256 of smoke-sedd comes within 1\.0% .*; the nearest is"
    with pytest.raises(WorkbenchError, match=said):
        match(load(SMOKE, MAMBA2), load(SMALL))


def test_a_width_far_from_the_first_is_found():
    found = match(load(RECIPES / "sedd-mamba2-small.yaml"), load(RECIPES / "quickstart" / "gpt2.yaml"))
    assert abs(found.error) <= 0.01 and found.sizes["backbone.dim"] < 256  # of 768, more than sixteen widths away


def test_a_match_keeps_all_of_a_pattern():
    mixers = "mixers: {M: {state: 8, head_dim: 8}, A: {heads: 2}}"
    hybrid = load(SMOKE, [f"backbone={{type: hybrid, dim: 32, depth: 6, cond_dim: 16, pattern: MMA, {mixers}}}"])
    to = load(SMOKE, ["backbone.dim=48"])
    found = match(hybrid, to, within=0.05)
    assert found.sizes["backbone.depth"] >= 3
    two = load(SMOKE, [f"backbone={{type: hybrid, dim: 32, depth: 2, cond_dim: 16, pattern: MM, {mixers}}}"])
    assert match(two, load(SMOKE), within=0.2).sizes["backbone.depth"] <= 3  # where the pattern lets it


def test_a_network_that_cannot_read_a_length_is_told(monkeypatch):
    learned = load(RECIPES / "smoke" / "gpt2.yaml")
    monkeypatch.setattr("backbones.embedding.TokensAndPositions.forward", lambda *_: 1 / 0)
    with pytest.raises(WorkbenchError, match=r"cost cannot be told: ZeroDivisionError.*at length 16"):
        at_lengths(learned, (16,))


def test_a_backbone_without_sizes_is_refused():
    with pytest.raises(WorkbenchError, match="has no setting 'depth'"):
        match(load(RECIPES.parent / "docs" / "plugins" / "gru.yaml"), load(SMOKE))
    with pytest.raises(WorkbenchError, match="no measure 'flop'"):
        match(load(SMOKE), load(SMOKE), by="flop")


def test_match_by_the_command_line(capsys):
    words = ["match", str(SMOKE), *MAMBA2, "--to", str(SMOKE), "--within", "0.04"]
    assert main(words) == 0
    said = capsys.readouterr().out
    line = said.strip().splitlines()[-1]
    assert line.startswith("backbone.dim=") and " backbone.depth=" in line
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert line == " ".join(f"{name}={size}" for name, size in data["sizes"].items())
    assert abs(data["value"] / data["target"] - 1) <= 0.04
    load(SMOKE, [*MAMBA2, *line.split()])  # they are overrides


# --- costs by length --------------------------------------------------------------------------------------------


def test_costs_are_functions_of_length():
    attention = {one.length: one for one in at_lengths(load(SMALL), (256, 1024))}
    scans = {one.length: one for one in at_lengths(load(SMALL, ["backbone={type: mamba2}"]), (1024, 4096))}
    pairs = 12 * 4 * 768 * (1024 - 256)
    assert attention[1024].flops_per_token - attention[256].flops_per_token == pytest.approx(pairs, rel=2e-3)
    assert scans[4096].flops_per_token == pytest.approx(scans[1024].flops_per_token, rel=1e-3)
    assert scans[4096].activation_bytes == pytest.approx(scans[1024].activation_bytes, rel=0.05)
    assert attention[1024].flops_per_token == estimate(load(SMALL)).flops_per_token
    assert attention[256].state_bytes is None
    cached = ["process=autoregressive", "sampler=left_to_right"]
    keys = at_lengths(load(SMALL, ["backbone={type: transformer, causal: true}", *cached]), (100, 200))
    assert keys[1].state_bytes == 2 * keys[0].state_bytes == 12 * 2 * 200 * 768 * 4  # float32, as they are kept
    state = at_lengths(load(SMALL, ["backbone={type: mamba2, causal: true}", *cached]), (100, 200))
    assert state[0].state_bytes == state[1].state_bytes > 0


def test_check_shows_lengths(capsys):
    assert main(["check", str(SMOKE), "--lengths", "16,64", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["recipes"]
    assert [one["length"] for one in found["lengths"]] == [16, 64]
    assert main(["check", str(SMOKE), "--lengths", "16,64"]) == 0
    assert "activations/token" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["check", str(SMOKE), "--lengths", "16,x"])
    assert "needs lengths as in 256,1024" in capsys.readouterr().err


@pytest.mark.parametrize("within", ["-1", "nan", "1", "x"])
def test_a_tolerance_is_a_share(within, capsys):
    with pytest.raises(SystemExit):
        main(["match", str(SMOKE), "--to", str(SMOKE), "--within", within])
    assert "needs a share between 0 and 1" in capsys.readouterr().err


def test_show_kernels(capsys):
    assert main(["show", "kernels"]) == 0
    said = capsys.readouterr().out
    for words in ("attention", "state-space dual", "selective scan", "convolution", "a run's log says"):
        assert words in said
    assert main(["show", "kernels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["operations"]
    assert all(sum(row[1] == "auto" for row in rows) == 1 for rows in found.values())
