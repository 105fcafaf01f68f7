"""`kill -9` at any moment, then resume: bit for bit the weights of a run that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.toy import trainer
from workbench.train import checkpoint, pieces

ROOT = Path(__file__).parents[2]
STEPS = 60


def last_checkpoint(folder: Path):
    """Tensors of the newest checkpoint's files, by role and name."""
    steps = sorted(folder.glob("*/ckpt/step-*[0-9]"))
    files = sorted(steps[-1].glob("*.safetensors"))
    return {f"{file.stem}/{name}": t for file in files for name, t in load_file(file).items()}


def differing(one, two):
    """Names of tensors that differ in any bit."""
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The last checkpoint of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    trainer(folder, steps=STEPS).fit()
    return last_checkpoint(folder)


def test_three_real_kills_and_a_resume(tmp_path, straight):
    """A process of its own, killed after its first checkpoints, at moments that nobody chose."""
    rng = random.Random(1)
    changes = json.dumps({"steps": STEPS, "delay": 0.03, "prefetch": 1})
    reached = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-m", "tests.train.toy", str(tmp_path), changes], cwd=ROOT)
        before = set(tmp_path.glob("*/ckpt/step-*"))
        deadline = time.monotonic() + 60
        while not set(tmp_path.glob("*/ckpt/step-*")) - before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.25)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        reached.append(max(int(path.name[5:]) for path in tmp_path.glob("*/ckpt/step-*[0-9]")))
    assert reached == sorted(set(reached)) and reached[-1] < STEPS, "every session must get on, none may finish"
    trainer(tmp_path, steps=STEPS).fit()
    assert differing(last_checkpoint(tmp_path), straight) == []


# --- fail-points: the very places where a checkpoint is half done -------------------------------------------------


def die():
    """End as a kill or a power cut does: no handler, no finally."""
    os.kill(os.getpid(), signal.SIGKILL)


class At:
    """Calls a function in its place, but dies before, after, or in the middle of its ``count``-th call."""

    def __init__(self, function, count, when, half=None):
        self.function, self.left, self.when, self.half = function, count, when, half

    def __call__(self, *args, **more):
        self.left -= 1
        if self.left == 0 and self.when == "before":
            die()
        if self.left == 0 and self.when == "in":
            self.half(*args)
            die()
        out = self.function(*args, **more)
        if self.left == 0 and self.when == "after":
            die()
        return out


def half_tensors(tensors, path):
    """A torn file of tensors."""
    checkpoint_save(tensors, path)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def half_json(path, data, sync=True):
    """A torn file of numbers under its final name, worse than what a rename allows."""
    path.write_text('{"step": 1')


def half_delete(path, ignore_errors=True):
    """A folder of which some files are gone."""
    (path / "model.safetensors").unlink()


checkpoint_save = pieces.save_file
# Saves happen after steps 10, 20, …; each writes three files of tensors and one of numbers, renames one folder,
# and from the third on (keep = 2) renames and removes an old one.
POINTS = {
    "before any tensors": ("save_file", At, (1, "before")),
    "model torn": ("save_file", At, (4, "in", half_tensors)),
    "optimizer torn": ("save_file", At, (5, "in", half_tensors)),
    "between ema and numbers": ("write_json", At, (2, "before")),
    "numbers torn": ("write_json", At, (2, "in", half_json)),
    "before the rename": ("sync_file", At, (8, "before")),
    "after the rename": ("sync_file", At, (10, "before")),
    "in the removal of an old one": ("shutil.rmtree", At, (1, "in", half_delete)),
}


def run_and_die(folder, name):
    """In a process of its own: train with a fail-point set."""
    where, at, args = POINTS[name]
    owners = {"shutil.rmtree": (shutil, "rmtree"), "save_file": (pieces, where)}
    owner, attribute = owners.get(where, (checkpoint, where))
    setattr(owner, attribute, at(getattr(owner, attribute), *args))
    trainer(folder, steps=STEPS).fit()


@pytest.mark.parametrize("name", POINTS)
def test_dying_inside_a_checkpoint_costs_nothing(tmp_path, straight, name):
    child = multiprocessing.get_context("spawn").Process(target=run_and_die, args=(tmp_path, name))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "the fail-point was not met"
    made = trainer(tmp_path, steps=STEPS)
    made.fit()
    assert differing(last_checkpoint(tmp_path), straight) == []
    assert made.checkpoints.damaged == [], "a half-written checkpoint must never look like one"
    left = [path.name for path in made.run.ckpt.iterdir() if not path.name.startswith("step-")]
    assert left == []


def test_a_checkpoint_damaged_after_it_was_written_falls_back_and_ends_the_same(tmp_path, straight):
    child = multiprocessing.get_context("spawn").Process(
        target=run_and_die, args=(tmp_path, "in the removal of an old one")
    )
    child.start()
    child.join()
    newest = sorted(tmp_path.glob("*/ckpt/step-*[0-9]"))[-1]
    file = newest / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    made = trainer(tmp_path, steps=STEPS)
    made.fit()
    assert newest.name in made.checkpoints.damaged[0]
    assert newest.with_name(f"{newest.name}.damaged").exists()
    assert differing(last_checkpoint(tmp_path), straight) == []
