"""Careless and hostile use: one message with place and remedy, no traceback, nothing finished lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from workbench import experiment, opening
from workbench.cli.main import main
from workbench.core.files import read_json, write_text
from workbench.train.log import read_log

ROOT = Path(__file__).parents[2]
WORDS = ("peace", "war", "union", "[red]bold[/red]", "<script>", "é", "the", "of")
RECIPE = """
extends: {parent}
name: hostile
data: {{corpus: {{type: text, paths: [text.txt], separator: "\\n"}}, tokenizer: {{type: bpe, vocab: 280}}}}
train: {{steps: 4, checkpoint_every: 2, log_every: 1, precision: fp32, tensorboard: false}}
evaluations: {{final: {{blocks: 2, draws: 1, samples: 1, metrics: [bits_per_byte]}}, valid: {{every: 0}}}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project folder with a text, a recipe and its finished run."""
    home = tmp_path_factory.mktemp("project")
    lines = (" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(30)) for i in range(120))
    (home / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    parent = os.path.relpath(ROOT / "recipes" / "smoke" / "sedd.yaml", home)
    (home / "r.yaml").write_text(RECIPE.format(parent=parent))
    before = Path.cwd()
    os.chdir(home)
    try:
        assert main(["train", "r.yaml", "--cache", "cache"]) == 0
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of it to damage, which is the working folder."""
    home = shutil.copytree(trained, tmp_path / "project")
    # the recipe's parent is named relative to it
    parent = os.path.relpath(ROOT / "recipes" / "smoke" / "sedd.yaml", home)
    (home / "r.yaml").write_text(RECIPE.format(parent=parent))
    monkeypatch.chdir(home)
    monkeypatch.setenv("WORKBENCH_CACHE", str(home / "cache"))
    return home


@pytest.fixture
def folder(project):
    """The finished run, relative to the working folder."""
    return next(Path("runs").glob("hostile-*"))


@pytest.fixture
def run(capsys):
    """Run a command: (exit status, stdout, stderr). A traceback fails the test."""

    def call(*words):
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as exit:
            status = exit.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def restate(folder, state):
    facts = json.loads((folder / "status").read_text())
    (folder / "status").write_text(json.dumps({**facts, "state": state}))


# --- sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--length", "0"], "0 tokens to write on"),
        (["--length", "-3"], "-3 tokens to write on"),
        (["--length", "999999999999"], "999999999999 tokens to write on"),
        (["--infill", "war __ peace", "--length", "2"], "leave --length out"),
        (["--infill", "no gap"], "tokens are given: leave some free"),
        (["--prefix", "war" * 99], "it ends beyond the last, 31"),
        (["--prefix", "\udcff"], "is not UTF-8 at character 0"),
        (["--fix", "3:war", "--fix", "3:peace"], "another --fix gives"),
        (["--fix", "²:war"], "--fix takes POSITION:TEXT"),
        (["--fix", "3:"], "--fix takes POSITION:TEXT"),
        (["--fix", "9" * 30 + ":a"], "--fix takes POSITION:TEXT"),
        (["--first", "-1"], "--first numbers sequences from 0"),
        (["--first", str(2**63)], "--first numbers sequences from 0"),
        (["--count", "0"], "at least 1"),
        (["sampler.type=left_to_right"], "What would fit: reverse"),
        (["train.steps=3"], "sampling changes sampler settings only"),
    ],
)
def test_impossible_canvases(run, folder, words, said):
    status, out, err = run("sample", folder, *words)
    assert (status, out) == (1, "")
    assert said in err


def test_drawn_bytes_do_not_command_the_terminal(run, folder, monkeypatch):
    real = opening.Opened.examiner

    def examiner(self, data=None):
        monkeypatch.setattr(type(self.model.tokenizer), "decode", lambda *_, **__: "\x1b[2J[red]a[/red]\x07")
        return real(self, data)

    monkeypatch.setattr(opening.Opened, "examiner", examiner)
    status, out, _ = run("sample", folder, "--count", "1")
    assert status == 0
    assert "\ufffd[2J[red]a[/red]\ufffd" in out


def test_drawn_texts_get_no_breaks_of_the_tools(run, folder, monkeypatch):
    text = "word " * 60 + "\n\ttab and trailing   \n" + "x" * 200 + "  "
    real = opening.Opened.examiner

    def examiner(self, data=None):
        monkeypatch.setattr(type(self.model.tokenizer), "decode", lambda *_, **__: text)
        return real(self, data)

    monkeypatch.setattr(opening.Opened, "examiner", examiner)
    monkeypatch.setenv("COLUMNS", "40")
    status, out, _ = run("sample", folder, "--count", "1")
    assert status == 0
    assert out.startswith(f"— 0 —\n{text}\n") and out.count("\n") == 5


# --- run folders --------------------------------------------------------------------------------------------------


def test_a_lost_or_damaged_status_costs_nothing_finished(run, folder):
    weights = {file: file.read_bytes() for file in folder.rglob("*.safetensors")}
    (folder / "status").write_text("[" * 100_000)
    for words in (["sample", folder], ["report", folder], ["train", "--resume", folder], ["train", "r.yaml"]):
        status, _, err = run(*words)
        assert status == 1
        assert "remove that file and train the recipe again" in err
    (folder / "status").unlink()
    assert "the file is made anew" in run("sample", folder)[2]
    assert run("train", "r.yaml")[0] == 0
    assert run("sample", folder, "--count", "1")[0] == 0
    assert {file: file.read_bytes() for file in folder.rglob("*.safetensors")} == weights


def test_a_file_or_a_recipe_is_no_run(run, folder):
    for words in (["sample", "r.yaml"], ["eval", folder / "status"], ["report", "."], ["train", "--resume", "nope"]):
        status, _, err = run(*words)
        assert status == 1
        assert "is no run folder" in err
    assert f"workbench train --resume {folder}" in run("train", folder)[2]
    assert "--resume changes no settings" in run("train", "--resume", folder, "train.steps=9")[2]


def test_a_damaged_log_hinders_nothing(run, folder):
    log = folder / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"step": 5}\n\xff\xfe\n[1]\n' + b"[" * 100_000 + b"\n")
    assert [record["step"] for record in read_log(log)] == [record["step"] for record in read_log(log)]
    assert len(read_log(log)) == len(whole.splitlines())
    for words in (["sample", folder, "--count", "1"], ["eval", folder], ["report", folder]):
        assert run(*words)[0] == 0


def test_a_checkpoint_that_is_passed_over_is_told(run, folder):
    last = sorted((folder / "ckpt").glob("step-*"))[-1]
    (last / "model.safetensors").write_bytes(b"x")
    status, _, err = run("sample", folder, "--count", "1")
    assert status == 0
    assert "does not match its hash; the weights of step 2 are used" in err
    (last / "state.json").write_text("[" * 100_000)
    assert "is damaged" in run("sample", folder, "--count", "1")[2]
    shutil.rmtree(folder / "ckpt")
    status, _, err = run("eval", folder)
    assert status == 1
    assert "no usable checkpoint" in err


def test_a_finished_run_needs_its_optimizer_no_more(run, folder):
    """More steps are another recipe: a run of its own, which takes nothing of the finished one."""
    last = sorted((folder / "ckpt").glob("step-*"))[-1]
    (last / "optimizer.safetensors").write_bytes(b"x")
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert f"{folder} is trained already" in run("train", "r.yaml")[1]
    assert "train the recipe with them, as a run of its own" in run("train", "--resume", folder, "train.steps=6")[2]
    for words in (["eval", folder], ["train", "--resume", folder, "--no-eval"], ["train", "r.yaml", "train.steps=6"]):
        assert run(*words)[0] == 0
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == before
    assert len(list(folder.parent.glob("hostile-*"))) == 2


def test_a_changed_recipe_is_not_trained_into_an_old_run(run, folder):
    kept = folder / "resolved.yaml"
    kept.write_text(kept.read_text().replace("steps: 4", "steps: 6"))
    restate(folder, "training")
    status, _, err = run("train", "--resume", folder)
    assert status == 1
    assert "is not the recipe that this run was begun with" in err
    assert not list((folder / "ckpt").glob("step-00000006"))


def test_changed_text_is_neither_trained_nor_measured(run, folder):
    text = Path("text.txt")
    text.write_text(text.read_text(encoding="utf-8").replace("peace", "quiet"), encoding="utf-8")
    tokenizer = (folder / "tokenizer" / "tokenizer.json").read_bytes()
    results = (folder / "results.json").read_bytes()
    assert "the corpus of" in run("eval", folder)[2]
    restate(folder, "training")
    status, _, err = run("train", "--resume", folder)
    assert status == 1
    assert "changed since it was begun" in err
    assert (folder / "tokenizer" / "tokenizer.json").read_bytes() == tokenizer
    assert (folder / "results.json").read_bytes() == results


def test_from_another_folder(run, folder, tmp_path, monkeypatch):
    there = folder.resolve()
    monkeypatch.chdir(tmp_path)
    assert run("sample", there, "--count", "1")[0] == 0
    status, _, err = run("eval", there)
    assert status == 1
    assert "a relative path starts where the command runs" in err


def test_a_finished_run_keeps_the_environment_it_was_trained_in(run, folder):
    before = (folder / "env.json").read_bytes()
    status, out, _ = run("train", "r.yaml")
    assert status == 0
    assert "is trained already" in out
    assert (folder / "env.json").read_bytes() == before


# --- disks, memory, streams, signals ------------------------------------------------------------------------------


def test_a_full_disk_is_one_message_and_the_run_goes_on(run, project, monkeypatch):
    from workbench.train import pieces

    real = pieces.save_file

    def full(tensors, file):
        if "step-" in str(file) or "00000004" in str(file):
            file.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(tensors, file)

    monkeypatch.setattr(pieces, "save_file", full)
    status, _, err = run("train", "r.yaml", "seed=1")
    assert status == 1
    assert "the checkpoint of step 4 could not be written to" in err
    assert "make room" in err
    started = next(path for path in Path("runs").iterdir() if read_json(path / "status")["state"] == "failed")
    assert [path.name for path in (started / "ckpt").iterdir()] == ["step-00000002"]  # no half of another
    monkeypatch.undo()
    monkeypatch.chdir(project)
    status, _, err = run("train", "r.yaml", "seed=1", "--cache", "cache")
    assert status == 0
    assert "resumed after 2 updates" in err


def test_what_the_system_refuses_names_the_file(run, folder, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for words in (["report", folder, "--out", file / "x"], ["train", "r.yaml", "seed=3", "--runs", file]):
        status, _, err = run(*words)
        assert status == 1
        assert str(file) in err

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(file, "new")
    assert caught.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to …")])
def test_out_of_memory(run, folder, monkeypatch, error):
    def burst(*_, **__):
        raise error

    monkeypatch.setattr(experiment, "train", burst)
    status, _, err = run("train", "r.yaml", "seed=4")
    assert status == 1
    assert "out of memory" in err
    assert "smaller batch" in err


def test_an_own_fault_keeps_its_traceback(run, folder, monkeypatch):
    def burst(*_, **__):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(experiment, "train", burst)
    with pytest.raises(RuntimeError, match="shape"):
        run("train", "r.yaml", "seed=4")


def test_streams_that_take_little():
    start = f"{sys.executable} -m workbench list"
    for shell, status in (
        (f"PYTHONIOENCODING=ascii {start}", 0),
        (f"{start} >&- 2>&-", 0),
        (f"{start} > /dev/full", 1),
        (f"COLUMNS=1 TERM=dumb {start}", 0),
        (f"{start} | head -c 1; exit ${{PIPESTATUS[0]}}", 0),
    ):
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == status, shell
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_outside_training(run, folder, monkeypatch, number, status):
    monkeypatch.setattr(experiment, "evaluate", lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    found, _, err = run("eval", folder)
    assert found == status
    assert "the same command goes on" in err
    assert signal.getsignal(signal.SIGTERM) is before


# --- recipes ------------------------------------------------------------------------------------------------------


def check(run, folder, text):
    (folder / "c.yaml").write_text(f"extends: r.yaml\n{text}\n")
    status, out, _ = run("check", "c.yaml")
    return status, out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {batch: 99999999999999999}", "its cost cannot be told"),
        ("data: {length: 99999999999999999}", "its cost cannot be told"),
        ("train: {steps: 99999999999999999999}", "more than 63 bits"),
        ("train: {accumulate: 3}", "unequal parts"),
        ("train: {best: final/bits_per_byte}", "evaluation with `every:`"),
        ("data: {corpus: {type: text, paths: []}}", "names no file"),
    ],
)
def test_check_tells_what_training_would_refuse(run, project, text, said):
    status, out = check(run, project, text)
    assert status == 1
    assert said in out


def test_a_network_that_fails_is_a_problem_of_its_recipe(run, project):
    (project / "bad.py").write_text(
        "from torch import nn\nfrom backbones.base import Backbone\n\n\n"
        '@Backbone.register("broken")\nclass Broken(Backbone):\n    """Broken."""\n\n'
        "    def __init__(self, states: int, outputs: int) -> None:\n"
        "        super().__init__()\n        self.head = nn.Linear(2, outputs)\n\n"
        "    def forward(self, x_BL, sigma=None, cache=None):\n        raise KeyError('oh')\n"
    )
    status, out = check(run, project, "plugins: [bad.py]\nbackbone: broken")
    assert status == 1
    assert "backbone: its cost cannot be told: KeyError" in out


def test_parents_and_folders_are_told_apart_from_recipes(run):
    for words in (["check"], ["train"]):
        status, out, err = run(*words, ROOT / "recipes" / "smoke" / "base.yaml")
        assert status == 1
        assert "A file without a name is a parent" in out + err
    assert "is a folder; name a .yaml file" in run("check", ROOT / "recipes")[1]


def test_a_real_limit_on_file_sizes(project):
    """A disk that takes no file larger than 350 kB, which the optimizer's is: one message."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (350_000, 350_000))

    words = [sys.executable, "-m", "workbench", "train", "r.yaml", "seed=7", "--no-eval"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the checkpoint of step 2 could not be written" in done.stderr
