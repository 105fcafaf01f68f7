"""One TensorBoard folder for runs and grids, read by TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.grid.files import written
from tests.smoke import EXACT, RECIPES, prose
from workbench import experiment
from workbench.cli.main import main
from workbench.metrics.value import Value
from workbench.recipe import load
from workbench.report.board import Board, layout, of_runs
from workbench.report.collect import collect
from workbench.train.log import read_log

sys.path.insert(0, str(Path(__file__).parent))
from folders import make_run

GRID = {
    "axes": {"steps": {"few": {"sampler.steps": 2}, "many": {"sampler.steps": 4}}, "seed": [0, 1]},
    "set": {"train.steps": 6, "evaluations.valid": None},
}


def reader(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def hparams(events):
    """The HParams records of a folder, by the last word of their tags."""
    return {
        tag.rpartition("/")[2]: plugin_data_pb2.HParamsPluginData.FromString(meta.plugin_data.content)
        for tag, meta in events.summary_metadata.items()
        if meta.plugin_data.plugin_name == "hparams"
    }


@pytest.fixture
def pair(tmp_path):
    runs = [make_run(tmp_path / "runs", "sedd"), make_run(tmp_path / "runs", "gpt2", "autoregressive", "fe" * 8)]
    return collect(runs)


def test_curves_finals_samples_and_what_differs(pair, tmp_path):
    board = Board(tmp_path / "board", of_runs(pair))
    board.close()
    assert sorted(path.name for path in (tmp_path / "board").iterdir()) == ["00 sedd", "01 gpt2", "layout"]
    events = reader(tmp_path / "board" / "00 sedd")
    assert len(events.Scalars("train/bits_per_byte")) == 200
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("final/bits_per_byte")] == [(2000, 1.812)]
    assert "bound_by_noise/t_0.0-0.1" in events.Tags()["scalars"]
    assert "people of the United States" in str(events.Tensors("samples/text_summary")[0].tensor_proto.string_val)
    row = hparams(events)["session_start_info"].session_start_info
    shown = {name: value.string_value for name, value in row.hparams.items()}
    assert shown["arm"] == "00 sedd" and shown["backbone.type"] == "transformer"
    assert "train.steps" not in shown, "it is the same in both"


def test_hparams_have_a_column_for_every_setting_and_figure(pair, tmp_path):
    Board(tmp_path / "board", of_runs(pair)).close()
    found = hparams(reader(tmp_path / "board" / "layout"))["experiment"].experiment
    columns = {info.name: [one.string_value for one in info.domain_discrete.values] for info in found.hparam_infos}
    assert columns["arm"] == ["00 sedd", "01 gpt2"] and columns["backbone.type"] == ["gpt2", "transformer"]
    assert "final/unigram_entropy" in [info.name.tag for info in found.metric_infos]


def test_the_layout_goes_by_what_figures_are(pair, tmp_path):
    values = [
        Value("bits", 1.0, better="lower"), Value("repeats", 0.1, real=0.2), Value("floor", 2.0, unit="bits/byte"),
        Value("speed", 9.0, better="higher", unit="tokens/s"), Value("asked", 8.0, better="lower", unit="calls a text"),
    ]  # fmt: skip
    found = {part: [name for name in charts if name.startswith("final/")] for part, charts in layout(values).items()}
    assert found == {
        "quality": ["final/bits", "final/floor"], "diversity": ["final/repeats"],
        "cost": ["final/speed", "final/asked"],
    }  # fmt: skip
    Board(tmp_path / "board", of_runs(pair)).close()
    content = reader(tmp_path / "board" / "layout").Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    parsed = layout_pb2.Layout.FromString(content)
    assert [category.title for category in parsed.category] == ["quality", "diversity", "cost"]


def test_text_trained_on_held_out_and_final_figures_have_charts_of_their_own(pair):
    values = [value for run in pair for value in run.results.values]
    charts = layout(values, pair[0].logged())["quality"]
    shown = ["train/bits_per_byte", "valid/bits_per_byte", "final/bits_per_byte"]
    assert [name for name in charts if name.endswith("/bits_per_byte")] == shown
    tags = [*pair[0].logged(), *(f"final/{value.name}" for value in values), "final/bits_per_byte_of_words"]
    for name, (_, patterns) in charts.items():
        assert {tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)} == {name}


def test_a_board_shows_what_logs_gain(pair, tmp_path):
    board = Board(tmp_path / "board", of_runs(pair))
    assert board.refresh() == 0
    log = pair[0].path / "log.jsonl"
    with open(log, "a") as more:
        more.write(json.dumps({"step": 2010, "time": 1.8e9, "values": {"train/bits_per_byte": 1.5}}) + "\n")
    assert board.refresh() == 1
    board.close()
    assert reader(tmp_path / "board" / "00 sedd").Scalars("train/bits_per_byte")[-1].step == 2010


def test_the_board_of_a_grid(tmp_path, capsys):
    file = written(tmp_path, **GRID)
    places = ["--runs", str(tmp_path / "runs"), "--grids", str(tmp_path / "grids")]
    assert main(["board", str(file), "--no-start", *places]) == 1
    assert "nothing has been trained yet" in capsys.readouterr().err
    assert main(["grid", str(file), "--workers", "1", *places]) == 0
    assert main(["board", str(file), "--no-start", "--out", str(tmp_path / "board"), *places]) == 0
    folders = [path.parent for path in sorted((tmp_path / "board").rglob("events*"))]
    names = [folder.relative_to(tmp_path / "board").as_posix() for folder in folders]
    assert names == ["00 few/0", "00 few/1", "01 many/0", "01 many/1", "layout"]
    rows = [hparams(reader(folder))["session_start_info"].session_start_info.hparams for folder in folders[:4]]
    assert [(row["steps"].string_value, row["seed"].string_value) for row in rows] == [
        ("few", "0"), ("few", "1"), ("many", "0"), ("many", "1"),
    ]  # fmt: skip
    calls = [reader(folder).Scalars("final/network_calls")[0].value for folder in folders[:4]]
    assert calls[0] < calls[2], "each cell has its own figures, though they share a training"


def test_what_is_absent_or_taken_is_said(pair, tmp_path, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["board", str(pair[0].path), "--port", str(port)]) == 1
    assert "name another by --port" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["board", str(pair[0].path)]) == 1
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "board").exists()


def test_what_was_given_is_marked_in_what_was_written(tmp_path):
    prompts = "{lengths: [4], infill: [3, 2], count: 2, each: 2}"
    valid = f"evaluations.valid={{prompts: {prompts}, metrics: [bits_per_byte, continuation_diversity], every: 2}}"
    resolved = load(RECIPES / "smoke/sedd.yaml", [*prose(tmp_path), *EXACT, valid, "train.steps=2"])
    run = experiment.create(resolved, tmp_path / "runs")
    experiment.train(run, resolved, tmp_path / "cache", quiet=True)
    texts = {name: found for record in read_log(run.log) for name, found in record.get("texts", {}).items()}
    assert len(texts["valid/continued_k4"]) == len(texts["valid/continued_infill"]) == 2
    for text in texts["valid/continued_k4"]:
        assert re.fullmatch("⟦.{4}⟧[^⟦⟧]*", text, flags=re.S), text
    for text in texts["valid/continued_infill"]:
        assert re.fullmatch("⟦.{3}⟧[^⟦⟧]*⟦.{2}⟧", text, flags=re.S), text
    shown = reader(run.tb).Tensors("valid/continued_k4/text_summary")[0].tensor_proto.string_val[0].decode()
    assert texts["valid/continued_k4"][0][:6] in shown
