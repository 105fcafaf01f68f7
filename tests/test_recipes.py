"""Every shipped recipe: it says what it is, resolves, is built; the small ones go the whole way."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from samplers.blockwise import Blockwise
from tests.smoke import EXACT, RECIPES
from workbench import assemble, experiment
from workbench.check import estimate
from workbench.cli import quickstart
from workbench.cli.main import COMMANDS, main
from workbench.core.errors import WorkbenchError
from workbench.core.reading import read_yaml
from workbench.grid.fairness import costed, require_fair
from workbench.processes.autoregressive import Autoregressive
from workbench.recipe import load
from workbench.run import RunFolder
from workbench.study.plan import planned as plan
from workbench.train.log import curve, read_log

ROOT = RECIPES.parent
ALL = sorted(path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml"))
PARENTS = [name for name in ALL if name.endswith("base.yaml") or name.startswith("base/")]
GRIDS = [name for name in ALL if read_yaml(RECIPES / name).keys() & {"axes", "questions"}]
AUDITS = [name for name in ALL if name.startswith("audits/")]
TASKS = [name for name in ALL if name.startswith("tasks/")]
RUNNABLE = [name for name in ALL if name not in (*PARENTS, *GRIDS, *AUDITS, *TASKS)]
SMOKE = [Path(name).stem for name in RUNNABLE if name.startswith("smoke/")]


def header(name: str) -> list[str]:
    """The comment at the top of a recipe, without its marks."""
    lines = (RECIPES / name).read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return [line.lstrip("# ").rstrip() for line in lines[:end]]


# --- every recipe -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_recipe_resolves_and_is_built(name):
    resolved = load(RECIPES / name)
    found = estimate(resolved)  # on the meta device
    assert found.parameters > found.non_embedding > 0
    assert found.training_bytes > 16 * found.parameters
    settings = assemble.train_settings(resolved)
    assert settings.batch % settings.accumulate == 0
    assert assemble.sampler(resolved) is not None
    assert assemble.evaluations(resolved)
    data = assemble.data_of(resolved)
    assert found.vocab_assumed == (data.tokenizer.planned_vocab is None)
    if not found.vocab_assumed:
        assert found.vocab == data.tokenizer.planned_vocab


def test_names_of_recipes_are_their_own():
    names = [load(RECIPES / name).name for name in RUNNABLE]
    hashes = [load(RECIPES / name).hash for name in RUNNABLE]
    assert len(set(names)) == len(set(hashes)) == len(RUNNABLE)


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("quickstart/sedd.yaml", "31586789"),
        ("quickstart/gpt2.yaml", "e0d4aac2"),
        ("quickstart/sedd-mamba2.yaml", "c042132c"),
    ],
)
def test_settings_that_came_later_leave_the_runs_of_before_found(name, hashed):
    """A new setting declares where it is ``neutral``; change a figure here only where a default has truly moved."""
    assert load(RECIPES / name).hash[:8] == hashed


@pytest.mark.parametrize("name", PARENTS)
def test_a_parent_says_that_it_is_none_to_run(name):
    assert "Not run by itself" in " ".join(header(name))
    with pytest.raises(WorkbenchError, match="recipe needs this"):
        load(RECIPES / name)


@pytest.mark.parametrize("name", [*RUNNABLE, *AUDITS])
def test_the_header_has_purpose_command_and_figures(name):
    lines = header(name)
    text = "\n".join(lines)
    assert len(lines[0]) > 30 and not lines[0].startswith(("run:", "expected:")), "the first line is the purpose"
    expected = text.partition("expected:")[2].strip()
    assert len(expected) > 10, "expected: time and figures of a real run"
    assert not re.search(r"TO BE|TODO|TBD|\?\?", text), "figures come from a real run"
    commands = re.findall(r"(?:-m )?workbench ((?:\w[\w-]*)(?: recipes/\S+)?)", text.partition("run:")[2])
    assert commands, "run: the command"
    assert any(name in command for command in commands), "one command names this very file"
    for command in commands:
        assert shlex.split(command)[0] in COMMANDS
        assert all((ROOT / word).is_file() for word in shlex.split(command)[1:])


@pytest.mark.parametrize("name", GRIDS)
def test_every_cell_of_a_grid_resolves_and_its_arms_are_fair(name):
    assert "run:" in "\n".join(header(name)) and "expected:" in "\n".join(header(name))
    planned = plan(RECIPES / name)
    for grid in planned.grids:
        require_fair(grid, costed(grid.cells))


# --- the small ones, the whole way ------------------------------------------------------------------------------

LOSS = {
    "blocks": (2.998167, 4.624889),
    "distill": (0.000180778, 3.941898773),
    "gpt2": (3.410450, 4.165792),
    "hollow": (3.382556, 3.935270),
    "hybrid": (3.271814, 3.937829),
    "mamba2": (3.646903, 4.286557),
    "sedd": (3.227184, 3.938827),
    "self-conditioned": (3.220990, 3.939776),
    "uniform": (5.471730, 4.908949),
}
"""Nats per token (a divergence: of two laws) over updates 16 … 20, and held-out bits per byte at the end (averaged
weights; 8 before training)."""


def test_every_smoke_recipe_is_pinned():
    assert sorted(LOSS) == SMOKE


@pytest.mark.parametrize("name", SMOKE)
def test_nothing_moved(smoke, name):
    """The same updates at a fixed seed. Processors round apart: AVX-512, AVX2 and plain code by 1e-7 of these figures.

    A change that moves these figures on purpose shows in the same commit what it is good for.
    """
    run = smoke(name)
    values = {value["name"]: value for value in json.loads(run.results.read_text())["values"]}
    found = dict(curve(read_log(run.log), "train/loss_nats_per_token"))[20], values["bits_per_byte"]["value"]
    # a divergence is a small difference of log-probabilities: they round by 1e-7, whatever it is
    assert found == pytest.approx(LOSS[name], rel=2e-6, abs=1e-7), f"{name}: {found}"


@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_run_is_evaluated(smoke, name):
    run = smoke(name)
    results = json.loads(run.results.read_text())
    values = {value["name"]: value for value in results["values"]}
    assert run.state == "evaluated"
    assert not [value for value in values.values() if value.get("error") or value["value"] is None]
    expected = {"bits_per_byte", "unigram_bits_per_byte", "unigram_entropy", "rep_2", "rep_4", "distinct_2"}
    assert expected < values.keys()
    process = assemble.model(*_opened(run)).process
    assert values["bits_per_byte"].get("relation", "=") == ("=" if isinstance(process, Autoregressive) else "≤")
    assert values["bits_per_byte"]["se"] > 0
    assert values["rep_4"]["real"] is not None
    assert len(results["samples"]) == len(results["real"]) == 4


def _opened(run: RunFolder):
    resolved = load(run.resolved)
    return resolved, assemble.kept_tokenizer(resolved, run.path)


def drawn(capsys, *words) -> dict:
    """What ``workbench sample … --json`` says."""
    assert main(["sample", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_run_is_sampled(smoke, name, capsys):
    run = smoke(name).path
    free = drawn(capsys, run, "--count", 3)
    assert [len(ids) for ids in free["ids"]] == [32] * 3
    assert drawn(capsys, run, "--count", 1, "--first", 2)["ids"] == free["ids"][2:], "a text is its number's"
    assert drawn(capsys, run, "--count", 3, "--batch", 2)["ids"] == free["ids"]
    texts = drawn(capsys, run, "--count", 2, "--prefix", "The law ")["texts"]
    assert all(text.startswith("The law ") for text in texts) and texts[0] != texts[1]
    if isinstance(assemble.model(*_opened(RunFolder(run))).process, Autoregressive):
        assert main(["sample", str(run), "--infill", "the ____ of"]) == 1
        assert "anywhere" in capsys.readouterr().err
        return
    texts = drawn(capsys, run, "--count", 2, "--infill", "the ____ of ___")["texts"]
    # bytes: each stands for one character, unless the model drew one that is none (then it is shown by U+FFFD)
    assert all(text.startswith("the ") and " of " in text for text in texts)
    within = isinstance(assemble.sampler(_opened(RunFolder(run))[0]), Blockwise)
    few = "sampler.inner.steps=4" if within else "sampler.steps=4"
    shown = drawn(capsys, run, "--count", 2, "--fix", "4:peace", "--fix", "20:law", few)
    tokenizer = _opened(RunFolder(run))[1]
    for ids in shown["ids"]:
        assert tokenizer.decode(ids[4:9]) == "peace" and tokenizer.decode(ids[20:23]) == "law"


def test_blocks_are_written_beyond_the_length_of_training(smoke, capsys):
    run = smoke("blocks").path
    (ids,) = drawn(capsys, run, "--count", 1, "--length", 75)["ids"]
    assert len(ids) == 75
    assert drawn(capsys, run, "--count", 1, "--length", 40)["ids"] == [ids[:40]], "the first forty of seventy-five"
    assert main(["sample", str(smoke("sedd").path), "--length", "75"]) == 1
    assert "trained on blocks of 32 and writes 1 to 32" in capsys.readouterr().err


def test_smoke_runs_are_reported(smoke, tmp_path, capsys):
    runs = [smoke(name).path for name in SMOKE]
    assert main(["report", *map(str, runs), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    page, data = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "report.json").read_text())
    for name in SMOKE:
        assert f"smoke-{name}" in said and f"smoke-{name}" in page and f"smoke-{name}" in json.dumps(data)
    assert "held-out" in said
    assert page.count("<script") == 1, "the page's own"
    assert "http://" not in page.replace("http://www.w3.org", "")


# --- the quickstart's path, on toys -----------------------------------------------------------------------------


def test_the_quickstart_end_to_end_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, "RECIPES", ("smoke/sedd.yaml", "smoke/gpt2.yaml"))
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart"]) == 0
    first = capsys.readouterr()
    for words in ("smoke-sedd", "smoke-gpt2", "held-out", "run:", "report:", "TensorBoard:", "took"):
        assert words in first.out
    assert "left" in first.err, "progress with a time left"
    folders = [Path(line.split()[-1]) for line in first.out.splitlines() if line.startswith("run:")]
    assert [RunFolder(folder).state for folder in folders] == ["evaluated"] * 2
    page = Path(next(line.split()[-1] for line in first.out.splitlines() if line.startswith("report:")))
    assert page.is_file()
    shown = shlex.split(next(line for line in first.out.splitlines() if "workbench sample" in line))
    assert main([*shown[shown.index("sample") :], "--count", "1"]) == 0, "the command that it prints works"
    capsys.readouterr()

    def never(*words, **more):
        raise AssertionError("a second call trains and evaluates nothing")

    for name in ("trainer", "evaluate", "load_trained"):
        monkeypatch.setattr(experiment, name, never)
    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("ckpt/*/*")}
    assert main(["quickstart"]) == 0
    again = capsys.readouterr()
    timeless = [[line for line in out.splitlines() if not line.startswith("took")] for out in (first.out, again.out)]
    assert timeless[0] == timeless[1]
    assert before == {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("ckpt/*/*")}


# --- kill -9 by the command line --------------------------------------------------------------------------------


def last_weights(runs: Path) -> dict[str, torch.Tensor]:
    """Tensors of the newest checkpoint of the one run below ``runs``."""
    newest = sorted(runs.glob("*/ckpt/step-*[0-9]"))[-1]
    files = sorted(newest.glob("*.safetensors"))
    return {f"{newest.name}/{file.stem}/{key}": t for file in files for key, t in load_file(file).items()}


def test_kill_9_and_resume_by_the_command_line_is_bit_identical(tmp_path, cache_of_the_session):
    recipe, steps = str(RECIPES / "smoke" / "sedd.yaml"), 100
    settings = [
        *EXACT, f"train.steps={steps}", "train.optimizer={type: muon, lr: 3e-3}", "backbone.dropout=0.1",
        "train.accumulate=2", "evaluations.valid.every=1000", "evaluations.final.every=1000", "train.tensorboard=false",
    ]  # fmt: skip
    places = ["--cache", str(cache_of_the_session), "--no-eval"]
    killed = [sys.executable, "-m", "workbench", "train", recipe, *settings, "--runs", "killed", *places]
    child = subprocess.Popen(killed, cwd=tmp_path, env=_environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/*/ckpt/step-*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL, "it was to be killed while it trains"
    (folder,) = (tmp_path / "killed").iterdir()
    run = RunFolder(folder)
    assert run.state == "died" and not run.finished
    assert max(int(path.name[5:]) for path in run.ckpt.glob("step-*[0-9]")) < steps
    assert main(["train", "--resume", str(folder), *places]) == 0
    assert main(["train", recipe, *settings, "--runs", str(tmp_path / "straight"), *places]) == 0
    one, two = last_weights(tmp_path / "killed"), last_weights(tmp_path / "straight")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    steps_logged = [[record["step"] for record in read_log(next(tmp_path.glob(f"{place}/*/log.jsonl")))]
                    for place in ("killed", "straight")]  # fmt: skip
    assert steps_logged[0] == steps_logged[1]


def test_resuming_a_finished_run_says_so(smoke, capsys):
    run = smoke("sedd")
    assert main(["train", "--resume", str(run.path), "--no-eval"]) == 0
    assert "is trained already" in capsys.readouterr().out


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
