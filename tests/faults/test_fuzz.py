"""A few of every kind of hostile input; ``make fuzz`` runs thousands. Then what they found once, one test each."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

from backbones.weights.files import read_weights
from backbones.weights.pickles import WeightsError
from tests.faults.fuzz_recipes import RECIPES
from tests.fuzz import KINDS, fuzz
from tests.train.toy import ToyNet, trainer
from workbench.core.errors import WorkbenchError
from workbench.data.corpora import Text
from workbench.data.section import Data
from workbench.data.tokenizers import Bytes
from workbench.grid.cells import plan
from workbench.recipe import load
from workbench.report.collect import collect
from workbench.run import RunError, RunFolder, status_line
from workbench.train import stored
from workbench.train.checkpoint import STATE, CheckpointError, Checkpoints, Unreadable, digest, load_weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_of_each_kind(kind, tmp_path):
    guard = fuzz(kind, {"recipes": 25, "yaml": 15}.get(kind, 8), seed=3, folder=tmp_path)
    assert [f"{one.label}: {one.why}" for one in guard.findings] == []
    assert guard.counts["told"] + guard.counts["taken"] >= 8


# --- packed tokens ------------------------------------------------------------------------------------------------


def prepared(folder):
    text = folder / "text.txt"
    text.write_text("\n".join(f"line {i} of war and peace" for i in range(300)))
    return Data(Text(paths=[str(text)], separator="\n"), Bytes(), 16).prepare(folder / "cache", workers=0)


def test_a_bit_that_turned_over_in_packed_tokens_is_seen_set_aside_and_made_again(tmp_path, capsys):
    whole = np.array(prepared(tmp_path).train.ids)
    (file,) = (tmp_path / "cache").rglob("train/tokens.bin")
    bent = bytearray(file.read_bytes())
    bent[len(bent) // 2] ^= 4
    file.write_bytes(bent)
    assert np.array_equal(prepared(tmp_path).train.ids, whole)
    assert "chunk 0 is damaged" in capsys.readouterr().err
    assert file.with_name("tokens.bin.damaged").read_bytes() == bent
    assert np.array_equal(prepared(tmp_path).train.ids, whole)
    assert capsys.readouterr().err == ""


def test_numbers_beside_packed_tokens_have_a_hash_which_older_ones_need_not_have(tmp_path, capsys):
    before = prepared(tmp_path).meta["train"]
    (file,) = (tmp_path / "cache").rglob("train/meta.json")
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, "documents": meta["documents"] + 1}))
    assert prepared(tmp_path).meta["train"] == before
    assert "does not match its own hash" in capsys.readouterr().err
    meta.pop("digest")
    file.write_text(json.dumps(meta))
    assert prepared(tmp_path).meta["train"] == before
    assert capsys.readouterr().err == ""


# --- checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture
def ckpt(tmp_path):
    made = trainer(tmp_path, steps=20)
    made.fit()
    return made.run.ckpt


def restated(folder, **changes):
    state = json.loads((folder / STATE).read_text())
    state = {name: value for name, value in {**state, **changes}.items() if name != "digest" and value is not ...}
    (folder / STATE).write_text(json.dumps({**state, "digest": digest(state)}))


def test_a_checkpoint_under_another_steps_name_is_not_that_step(ckpt):
    shutil.rmtree(ckpt / "step-00000020")
    shutil.copytree(ckpt / "step-00000010", ckpt / "step-00000020")
    found = load_weights(ToyNet(), ckpt)
    assert found.step == 10 and "is of step 10, not of this one" in found.passed[0]


def test_what_the_machine_will_not_read_now_is_not_called_damaged(ckpt, monkeypatch):
    def refuse(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(stored, "sha256", refuse)
    for read in (Checkpoints(ckpt, "0123456789abcdef").load_last, lambda: load_weights(ToyNet(), ckpt)):
        with pytest.raises(Unreadable, match="nothing is wrong with it"):
            read()
    assert sorted(path.name for path in ckpt.iterdir()) == ["step-00000010", "step-00000020"]


@pytest.mark.parametrize(
    "changes", [{"optimizer": "x"}, {"tokens": [1]}, {"machine": ...}, {"skipped": 3}, {"best": 2}]
)
def test_numbers_that_no_training_writes_are_told_though_their_hash_is_right(ckpt, tmp_path, changes):
    restated(ckpt / "step-00000020", **changes)
    with pytest.raises(CheckpointError, match="holds what no training writes"):
        trainer(tmp_path, steps=30).fit()


def test_a_checkpoint_without_weights_is_damaged(ckpt):
    held = json.loads((ckpt / "step-00000020" / STATE).read_text())["files"]
    held.pop("model.safetensors")
    restated(ckpt / "step-00000020", files=held)
    assert load_weights(ToyNet(), ckpt).step == 10


# --- run folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"name": {}}, {"name": 3}, {"hash": None}, {"state": []}, {"step": "x"}, {"steps": [1]}, {"step": 1e999}],
)
def test_a_status_that_no_run_writes_is_told(ckpt, changes):
    status = ckpt.parent / "status"
    status.write_text(json.dumps({**json.loads(status.read_text()), **changes}))
    with pytest.raises(RunError, match="remove that file and train the recipe again"):
        collect([ckpt.parent])


def test_a_status_may_have_lost_how_far_the_run_is(ckpt):
    status = ckpt.parent / "status"
    facts = json.loads(status.read_text())
    assert facts.pop("step") == facts["steps"] == 20
    status.write_text(json.dumps({**facts, "error": 3}))
    (found,) = collect([ckpt.parent])
    assert found.state.endswith(" 0/20")
    assert status_line(RunFolder(ckpt.parent).read_status()).endswith(" 0/20: 3")


# --- weights to import --------------------------------------------------------------------------------------------


def test_a_view_larger_than_what_it_views_is_no_tensor(tmp_path):
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="w is no plain tensor"):
        read_weights(tmp_path / "w.pt")


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused_unread(tmp_path):
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as old,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
    assert read_weights(tmp_path / "w.pt")[0].state["w"].numel() == 1 << 20
    with pytest.raises(WeightsError, match="unpacks to more than it holds"):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64)])
def test_tensors_that_are_no_weights_are_told_by_name(tmp_path, value):
    torch.save({"w": value}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=": w "):
        read_weights(tmp_path / "w.pt")


# --- recipes and grids --------------------------------------------------------------------------------------------


def test_narrow_floats_are_widened_and_held_to_be_finite(tmp_path):
    """Not every narrow type can be asked whether it is finite: it is asked of what it is widened to."""
    narrow = torch.tensor([0.5, 2.0]).to(torch.float8_e4m3fn)
    torch.save({"a": narrow}, tmp_path / "whole.pt")
    assert torch.equal(read_weights(tmp_path / "whole.pt")[0].state["a"], torch.tensor([0.5, 2.0]))
    torch.save({"a": torch.tensor([0.5, torch.nan]).to(torch.float8_e4m3fn)}, tmp_path / "nan.pt")
    with pytest.raises(WeightsError, match="not finite"):
        read_weights(tmp_path / "nan.pt")


def test_a_file_name_that_no_system_takes_is_told(tmp_path):
    for text in ('plugins: ["\\0.py"]', 'start: {recipe: "\\0"}'):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(WorkbenchError, match="is no name of a file"):
            load(tmp_path / "r.yaml")


def test_numbers_that_are_not_finite_are_told_where_any_value_may_stand(tmp_path):
    text = f"base: {RECIPES / 'smoke' / 'sedd.yaml'}\naxes: {{a: {{x: {{train.steps: .inf}}}}}}\n"
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(WorkbenchError, match=r"axes\.a\.x\.train\.steps: inf is no number"):
        plan(tmp_path / "g.yaml")


def test_messages_stay_readable_however_long_what_is_wrong():
    with pytest.raises(WorkbenchError) as caught:
        load(RECIPES / "smoke" / "sedd.yaml", [f"backbone.k{i}={'x' * 5000}" for i in range(80)])
    assert len(str(caught.value)) < 60_000 and "problems more" in str(caught.value)
    with pytest.raises(WorkbenchError) as caught:
        load(RECIPES / "smoke" / "sedd.yaml", ["x" * 100_000])
    assert len(str(caught.value)) < 2000
