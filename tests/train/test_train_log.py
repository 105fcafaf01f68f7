"""The log first, TensorBoard its view; what a reader is shown while training runs."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import pytest
import torch

from tests.train.toy import LENGTH, Ticks, trainer
from workbench.processes.base import BUCKETS
from workbench.train.base import Evaluator
from workbench.train.log import Log, curve, flat, read_log
from workbench.train.loggers import TensorBoard
from workbench.train.parallel import Parallel
from workbench.train.progress import Bar, Plain, clock, display
from workbench.train.window import Window


def scalars(folder):
    """What TensorBoard would show: (step, value) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}, events


def test_a_run_shows_what_it_should_in_tensorboard(tmp_path):
    made = trainer(
        tmp_path,
        steps=10,
        tensorboard=True,
        evaluators=[Evaluator("valid", 5, Ticks())],
        hparams={"train": {"steps": 10, "betas": [0.9, 0.99]}, "name": "toy"},
    )
    made.fit()
    shown, events = scalars(made.run.tb)
    for name in (
        "train/loss_nats_per_token",
        "train/bits_per_byte",
        "train/grad_norm",
        "train/lr",
        "train/tokens_per_second",
        "train/memory_mb",
        "bound_by_noise/t_0.0-0.1",
        "bound_by_noise/t_0.9-1.0",
        "valid/total",
    ):
        assert [step for step, _ in shown[name]][:2] == [5, 10], name
    assert "valid/text/text_summary" in events.Tags()["tensors"]
    assert any("_hparams_" in tag for tag in events.summary_metadata)
    assert shown["final/train/grad_norm"] == [(10, pytest.approx(made.log.last["train/grad_norm"], rel=1e-6))]
    assert [path.name for path in made.run.tb.iterdir() if path.is_dir()] == []

    # The jsonl holds the same, and the view is rebuilt from it where it is gone.
    records = read_log(made.run.log)
    for (step, value), (shown_step, shown_value) in zip(
        curve(records, "train/grad_norm"), shown["train/grad_norm"], strict=True
    ):
        assert step == shown_step and value == pytest.approx(shown_value, rel=1e-6)
    for file in made.run.tb.iterdir():
        file.unlink()
    Log(made.run.log, 10, [TensorBoard()]).close()
    assert scalars(made.run.tb)[0]["train/grad_norm"] == shown["train/grad_norm"]


def test_figures_of_a_line_are_what_they_say(tmp_path):
    made = trainer(tmp_path, steps=20)
    made.fit()
    records = read_log(made.run.log)
    assert [record["step"] for record in records] == [5, 10, 15, 20]
    for record in records:
        values = record["values"]
        bits = values["train/loss_nats_per_token"] / math.log(2) / 2.0
        assert values["train/bits_per_byte"] == pytest.approx(bits, rel=1e-12)
        assert record["tokens"] == record["step"] * 8 * LENGTH
        total = sum(pair[0] for pair in record["buckets"]["bound"])
        weight = sum(pair[1] for pair in record["buckets"]["bound"])
        assert weight == 5 * 8 * LENGTH
        assert total / weight == pytest.approx(values["train/loss_nats_per_token"], rel=1e-5)
    factor = made.settings.schedule.factor(4, 20)
    assert records[0]["values"]["train/lr"] == pytest.approx(3e-3 * factor)


def test_a_window_weighs_micro_batches_by_their_tokens():
    window = Window(Parallel())
    for step in range(2):
        window.add({"x": torch.tensor(1.0), "y/bucket": torch.ones(BUCKETS, 2)}, 0.25)
        window.add({"x": torch.tensor(3.0), "y/bucket": torch.ones(BUCKETS, 2)}, 0.75)
        window.close_update(step, torch.tensor(2.0 + step), torch.tensor(4.0))
    reading = window.read()
    assert reading.values == {"train/loss_nats_per_token": 2.5, "train/grad_norm": 4.0, "train/x": 2.5}
    assert reading.buckets == {"y": [[4.0, 4.0]] * BUCKETS}
    assert len(window) == 0


def test_numbers_that_are_not_finite_are_null_and_the_file_stays_json(tmp_path):
    log = Log(tmp_path / "log.jsonl", 0)
    log.write(1, 0.5, 10, {"a": math.nan, "b": math.inf, "c": 1.0}, {"d": [[math.nan, 1.0]]}, {"t": ["line\u2028two"]})
    log.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert record["values"] == {"a": None, "b": None, "c": 1.0}
    assert record["texts"] == {"t": ["line\u2028two"]}
    assert curve(read_log(tmp_path / "log.jsonl"), "a") == []
    assert log.last == {"c": 1.0}


def test_opening_anew_drops_what_was_there(tmp_path):
    path = tmp_path / "log.jsonl"
    for step in (0, 0, 3):
        log = Log(path, step)
        for k in range(1, 6):
            log.write(k, 0.0, 0, {"a": float(k)})
        log.close()
    assert [record["step"] for record in read_log(path)] == [1, 2, 3, 1, 2, 3, 4, 5]
    assert curve(read_log(path), "a") == [(k, float(k)) for k in range(1, 6)]


def test_flat_settings():
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": True}) == {
        "a.b": 1,
        "a.c": "[1, 2]",
        "d": "null",
        "e": True,
    }


def test_reading_a_log_needs_no_torch():
    code = "import sys; import workbench.train.log; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- the display ------------------------------------------------------------------------------------------------


def test_piped_progress_is_a_line_now_and_then_with_the_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with display("toy", 100, 300) as shown:
        assert isinstance(shown, Plain)
        for step in range(101, 301):
            now[0] += 0.25
            shown.show(step, {"train/loss_nats_per_token": 2.0, "train/tokens_per_second": 12345.6})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("toy: 101/300 · loss 2 nats/token, 12,346 tokens/s · 0:50 left")
    assert 5 <= len(lines) <= 7
    assert lines[-1].endswith("0:00 left")
    with display("toy", 0, 300) as shown:
        shown.show(1, {})  # before the first line of the log
    assert capsys.readouterr().err == "toy: 1/300 · 0:00 left\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with display("toy", 0, 10) as shown:
        assert isinstance(shown, Bar)
        shown.say("[not markup]")
        shown.show(10, {"train/bits_per_byte": 1.5})
    assert "10/10" in terminal.getvalue() and "[not markup]" in terminal.getvalue()


def test_quiet_is_quiet(capsys):
    with display("toy", 0, 10, quiet=True) as shown:
        shown.say("x")
        shown.show(3, {})
    assert capsys.readouterr() == ("", "")


def test_clock():
    assert [clock(s) for s in (0, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
