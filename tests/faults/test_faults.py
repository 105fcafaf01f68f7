"""Faults one by one: nothing finished is lost, what happened is said, the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.train.toy import ToyNet, trainer
from workbench import experiment
from workbench.core.errors import in_words
from workbench.core.secrets import without_secrets
from workbench.environment import environment
from workbench.metrics.judge import JudgeError
from workbench.metrics.language_models import CausalLM
from workbench.run import RunFolder
from workbench.train.checkpoint import load_weights, read
from workbench.train.log import read_log
from workbench.train.loggers import TensorBoard

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hf_planted0123456789"


# --- TensorBoard is a view ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["open", "show", "finish"])
def test_a_dead_tensorboard_stops_nothing(tmp_path, monkeypatch, capsys, where):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, where, fail)
    made = trainer(tmp_path, steps=20, tensorboard=True, hparams={"a": 1})
    made.fit()
    assert made.run.state == "trained"
    assert [record["step"] for record in read_log(made.run.log)] == [5, 10, 15, 20]
    err = capsys.readouterr().err
    assert err.count("logger tensorboard: [Errno 28]") == 1 and "log.jsonl goes on" in err


FULL = """
import threading, time
from pathlib import Path
from workbench.train.loggers import TensorBoard
board = TensorBoard()
board.open(Path("run"), {}, [])
events = board.writer.file_writer.event_writer
def full(data):
    raise OSError(28, "No space left on device")
events._async_writer._writer.write = full
record = {"step": 1, "time": 0.0, "values": {"loss": 1.0}}
try:
    for _ in range(200):
        board.show(record)
        time.sleep(0.01)
except OSError as error:
    print("told:", error)
threading.Thread(target=lambda: 1 / 0).start()
"""


def test_a_full_disk_is_told_once_and_not_by_the_traceback_of_a_thread(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", FULL]
    found = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert found.stdout.startswith("told: [Errno 28]")
    assert "Errno 28" not in found.stderr
    assert found.stderr.count("Traceback") == 1 and "ZeroDivisionError" in found.stderr, "others' threads stay loud"


# --- judges -------------------------------------------------------------------------------------------------------


def test_a_judge_that_cannot_be_had_is_told_at_once(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    began = time.monotonic()
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1:9 does not answer.*take judge: smollm2"):
        CausalLM(model="nobody/nothing-of-this-name").identity()
    assert time.monotonic() - began < 30  # importing transformers on a busy machine; its own tries take longer


# --- trained runs that lost something -----------------------------------------------------------------------------


def test_a_trained_run_without_its_weights_does_not_stand(tmp_path):
    made = trainer(tmp_path, steps=20)
    made.fit()
    run = RunFolder(made.run.path)
    assert experiment.stands(run)
    whole = read(run.ckpt / "step-00000020", ("model", "ema")).tensors
    file = run.ckpt / "step-00000020" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert not experiment.stands(run)
    trainer(tmp_path, steps=20).fit()
    assert experiment.stands(run)
    again = read(run.ckpt / "step-00000020", ("model", "ema")).tensors
    assert all(torch.equal(again[role][name], whole[role][name]) for role in whole for name in whole[role])
    shutil.rmtree(run.ckpt)
    assert not experiment.stands(run) and run.finished


def test_a_trained_run_stands_by_what_it_is_measured_with(tmp_path):
    """Averaged weights count, where it has them; its optimizer does not: nothing goes on from a run's end by it."""
    made = trainer(tmp_path, steps=20)
    made.fit()
    run = RunFolder(made.run.path)
    last = run.ckpt / "step-00000020"
    (last / "optimizer.safetensors").write_bytes(b"x")
    assert experiment.stands(run)
    (last / "ema.safetensors").write_bytes(b"x")
    assert not experiment.stands(run)
    assert load_weights(ToyNet(), run.ckpt).step == 10, "it would be measured at another step than its end"


# --- secrets ------------------------------------------------------------------------------------------------------


def test_secrets_of_the_environment_are_not_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}x@proxy:3128")
    monkeypatch.setattr("sys.argv", ["workbench", "train", f"https://me:{SECRET}y@host/x", SECRET])
    assert SECRET not in json.dumps(environment())
    assert without_secrets("https://me:pw@host/x and a@b.c") == "https://[hidden]@host/x and a@b.c"
    made = trainer(tmp_path, steps=2)
    made.run.mark("failed", error=f"cannot reach https://me:{SECRET}z@host/ with {SECRET}")
    for file in made.run.path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()
    assert "cannot reach https://[hidden]@host/ with [hidden]" in made.run.status.read_text()


def test_no_memory_for_a_thread_is_no_memory():
    assert in_words(RuntimeError("can't start new thread")).startswith("out of memory")
    assert in_words(RuntimeError("shape mismatch")) == ""
