"""What TensorBoard shows of a run, read by its own reader."""

from __future__ import annotations

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from workbench.core.reading import read_yaml
from workbench.train.log import read_log

LOGGED = [5, 10, 15, 20, 25, 30]
BUCKETS = [f"t_{i / 10:.1f}-{(i + 1) / 10:.1f}" for i in range(10)]


@pytest.fixture(scope="module")
def board(smoke):
    """Reader of a smoke run's board, by the recipe's name; each is read once."""
    read = {}

    def reader(name):
        if name not in read:
            read[name] = EventAccumulator(str(smoke(name).tb), size_guidance={"scalars": 0, "tensors": 0})
            read[name].Reload()
        return read[name]

    return reader


def points(events, tag):
    return {event.step: event.value for event in events.Scalars(tag)}


@pytest.mark.parametrize("name", ["sedd", "uniform", "gpt2"])
def test_curves_of_training_and_validation(board, name):
    events = board(name)
    for tag in ("loss_nats_per_token", "bits_per_byte", "grad_norm", "lr", "tokens_per_second", "memory_mb"):
        found = points(events, f"train/{tag}")
        assert list(found) == LOGGED, tag
        assert all(math.isfinite(value) and value > 0 for value in found.values()), tag
    loss, bits = points(events, "train/loss_nats_per_token"), points(events, "train/bits_per_byte")
    for step in LOGGED:  # bytes: one token each, and one more a document for its end
        assert bits[step] == pytest.approx(loss[step] / math.log(2), rel=0.02)
    assert points(events, "train/lr")[30] == pytest.approx(3e-3)
    assert points(events, "train/memory_mb")[30] > 50
    assert list(points(events, "valid/bits_per_byte")) == [10, 20, 30]


def test_the_bound_by_noise_level(board, smoke):
    events = board("sedd")
    for bucket in BUCKETS:
        found = points(events, f"bound_by_noise/{bucket}")
        assert list(found) == LOGGED
        assert all(value > 0 for value in found.values())
    # Buckets, weighed by their tokens, are the loss.
    for record in read_log(smoke("sedd").log):
        if "buckets" in record:
            weights = [weight for _, weight in record["buckets"]["bound"]]
            shown = [points(events, f"bound_by_noise/{bucket}")[record["step"]] for bucket in BUCKETS]
            mean = sum(w * value for w, value in zip(weights, shown, strict=True)) / sum(weights)
            assert mean == pytest.approx(record["values"]["train/loss_nats_per_token"], rel=1e-4)


def test_the_calibration_of_the_score_sum_by_noise_level(board):
    events = board("sedd")
    for bucket in BUCKETS:
        found = points(events, f"calibration_by_noise/{bucket}")
        assert set(found) <= set(LOGGED) and len(found) > 3, "a bucket without masked rows shows no point"
        assert all(value >= 0 for value in found.values()), "Z − 1 − ln Z"
    assert max(points(events, f"calibration_by_noise/{BUCKETS[-1]}").values()) > 0


def test_a_baseline_shows_no_noise_levels(board):
    assert not [tag for tag in board("gpt2").Tags()["scalars"] if "by_noise" in tag]


@pytest.mark.parametrize("name", ["sedd", "gpt2"])
def test_samples_as_text_over_time(board, smoke, name):
    events = board(name)
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("valid/texts")]
    assert len(tags) == 1
    shown = events.Tensors(tags[0])
    assert [event.step for event in shown] == [10, 20, 30]
    logged = {r["step"]: r["texts"]["valid/texts"] for r in read_log(smoke(name).log) if "texts" in r}
    for event in shown:
        text = event.tensor_proto.string_val[0].decode()
        assert len(logged[event.step]) == 2
        assert all(part.splitlines()[0] in text for part in logged[event.step] if part.strip())


@pytest.mark.parametrize("name", ["sedd", "gpt2"])
def test_hyperparameters_beside_what_came_out(board, smoke, name):
    events = board(name)
    contents = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(meta.plugin_data.content)
        for tag, meta in events.summary_metadata.items()
        if meta.plugin_data.plugin_name == "hparams"
    }
    start = next(data for tag, data in contents.items() if tag.endswith("session_start_info"))
    shown = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.session_start_info.hparams.items()}
    recipe = read_yaml(smoke(name).resolved.read_text())
    assert shown["backbone.type"] == recipe["backbone"]["type"]
    assert shown["train.optimizer.lr"] == recipe["train"]["optimizer"]["lr"] == 3e-3
    assert shown["process.type"] == recipe["process"]["type"]
    last = points(events, "train/loss_nats_per_token")[30]
    assert points(events, "final/train/loss_nats_per_token") == {30: pytest.approx(last)}
    assert list(points(events, "final/valid/bits_per_byte")) == [30]
    assert [path for path in smoke(name).tb.iterdir() if path.is_dir()] == [], "one run, not two"
