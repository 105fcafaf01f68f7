"""Checkpoints: whole or absent, verified, kept as asked."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.train.toy import ToyNet
from workbench.processes.base import named_weights
from workbench.train.checkpoint import CheckpointError, Checkpoints, load_weights
from workbench.train.weights import all_finite, copy_into


def roles(value: float):
    """Tensors of every role, told apart by ``value``."""
    return {role: {"w": torch.full((5, 3), value + i)} for i, role in enumerate(("model", "ema", "optimizer"))}


@pytest.fixture
def kept(tmp_path):
    """Checkpoints at steps 10, 20 and 30."""
    checkpoints = Checkpoints(tmp_path / "ckpt", "abc", keep=3)
    for step in (10, 20, 30):
        checkpoints.save(step, roles(step), {"tokens": step * 7})
    return checkpoints


def test_round_trip_is_exact_and_of_every_type(tmp_path):
    checkpoints = Checkpoints(tmp_path, "abc")
    torch.manual_seed(0)
    tensors = {
        "f32": torch.randn(4, 3).t(),
        "f64": torch.randn(2, dtype=torch.float64),
        "bf16": torch.randn(3).bfloat16(),
        "i64": torch.arange(4),
        "zero_dim": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
    }
    checkpoints.save(1, {"model": tensors}, {"seconds": 0.1 + 0.2})
    found = checkpoints.load_last(["model"])
    assert found is not None and found.step == 1
    assert found.state["seconds"] == 0.1 + 0.2
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors["model"][name], tensor)
        assert found.tensors["model"][name].dtype == tensor.dtype


def test_nothing_is_pickled(kept):
    files = sorted(path.name for path in kept.path(30).iterdir())
    assert files == ["ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
    for path in kept.path(30).glob("*.safetensors"):
        head = path.read_bytes()
        json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])


def test_the_last_k_and_the_best_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, "abc", keep=2)
    for step in range(10, 70, 10):
        checkpoints.save(step, roles(step), {}, best=20 if step >= 20 else -1)
    assert checkpoints.steps() == [20, 50, 60]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def flip(path):
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "bit in model": lambda f: flip(f / "model.safetensors"),
    "bit in ema": lambda f: flip(f / "ema.safetensors"),
    "bit in state": lambda f: flip(f / "state.json"),
    "torn optimizer": lambda f: (f / "optimizer.safetensors").write_bytes(b"\x10\x00"),
    "no model": lambda f: (f / "model.safetensors").unlink(),
    "no state": lambda f: (f / "state.json").unlink(),
    "empty state": lambda f: (f / "state.json").write_text(""),
    "state is a list": lambda f: (f / "state.json").write_text("[]"),
    "altered number": lambda f: (f / "state.json").write_text((f / "state.json").read_text().replace("210", "211")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_set_aside(kept, name):
    DAMAGE[name](kept.path(30))
    found = kept.load_last()
    assert found is not None and found.step == 20
    assert torch.equal(found.tensors["model"]["w"], roles(20)["model"]["w"])
    assert len(kept.damaged) == 1 and "step-00000030" in kept.damaged[0]
    assert (kept.folder / "step-00000030.damaged").is_dir()
    assert kept.steps() == [10, 20]


def test_all_damaged_is_an_error_that_says_so(kept):
    for step in (10, 20, 30):
        flip(kept.path(step) / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"every checkpoint .* is damaged"):
        kept.load_last()


def test_another_recipe_is_refused(kept):
    with pytest.raises(CheckpointError, match="another recipe"):
        Checkpoints(kept.folder, "xyz").load_last()


def test_drafts_of_a_killed_writer_are_no_checkpoints_and_are_removed(kept):
    draft = kept.folder / ".draft-00000040-1"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")
    assert kept.load_last().step == 30
    kept.clean()
    assert not draft.exists()


def test_saving_over_a_step_replaces_it_and_keeps_the_old(kept):
    kept.save(30, roles(99), {})
    assert torch.equal(kept.load_last().tensors["model"]["w"], roles(99)["model"]["w"])
    assert (kept.folder / "step-00000030.damaged").is_dir()


def net_checkpoints(folder, steps=(1, 2, 3)):
    """Checkpoints of toy networks whose weights tell the step."""
    checkpoints = Checkpoints(folder, "abc", keep=9)
    for step in steps:
        net = ToyNet()
        with torch.no_grad():
            for p in net.parameters():
                p.fill_(float(step))
        averaged = {name: p.detach() + 0.5 for name, p in net.named_parameters()}
        checkpoints.save(step, {"model": named_weights(net), "ema": averaged}, {})
    return checkpoints


def test_readers_get_averaged_raw_best_or_numbered_weights(tmp_path):
    checkpoints = net_checkpoints(tmp_path)
    net = ToyNet()
    assert load_weights(net, tmp_path).step == 3 and net.apart[0, 0] == 3.5
    assert load_weights(net, tmp_path, ema=False).step == 3 and net.apart[0, 0] == 3.0
    assert load_weights(net, tmp_path, which="1").step == 1 and net.apart[0, 0] == 1.5
    with pytest.raises(CheckpointError, match="names no best"):
        load_weights(net, tmp_path, which="best")
    for damaged in ("[]", "null", '{"step": null}'):
        (tmp_path / "best.json").write_text(damaged)
        with pytest.raises(CheckpointError, match="names no best"):
            load_weights(net, tmp_path, which="best")
    checkpoints.mark_best({"figure": "valid/bits", "value": 1.0, "step": 2})
    assert load_weights(net, tmp_path, which="best").step == 2
    with pytest.raises(CheckpointError, match=r"has no checkpoint '7'; it keeps those of steps 1, 2, 3"):
        load_weights(net, tmp_path, which="7")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        load_weights(net, tmp_path / "nowhere")


def test_a_reader_falls_back_without_renaming(tmp_path):
    checkpoints = net_checkpoints(tmp_path)
    flip(checkpoints.path(3) / "ema.safetensors")
    assert load_weights(ToyNet(), tmp_path).step == 2
    assert checkpoints.steps() == [1, 2, 3]


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    net_checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"another network"):
        load_weights(nn.Linear(2, 2), tmp_path)
    net = ToyNet()
    net.hidden = nn.Linear(16, 3)
    with pytest.raises(CheckpointError, match=r"hidden\.\w+ has shape"):
        load_weights(net, tmp_path)


def test_tied_weights_are_stored_once(tmp_path):
    net = ToyNet()
    net.head.weight = net.embed.weight
    weights = named_weights(net)
    assert "head.weight" not in weights and "embed.weight" in weights
    Checkpoints(tmp_path, "abc").save(1, {"model": weights}, {})
    twin = ToyNet()
    twin.head.weight = twin.embed.weight
    load_weights(twin, tmp_path)
    assert torch.equal(twin.head.weight, net.embed.weight)
    copy_into(twin, weights)


def test_all_finite():
    assert all_finite([torch.ones(2), torch.arange(3), torch.zeros(0), torch.full((3,), 3e38)])
    assert not all_finite([torch.ones(2), torch.tensor([1.0, float("nan")])])
    assert not all_finite([torch.tensor([float("-inf")])])
