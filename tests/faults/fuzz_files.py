"""Damaged checkpoints, packed tokens and files of run folders: what is read is what was written, or is refused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.faults.junk import damaged, junk, tear
from tests.report.folders import make_run
from tests.train.toy import ToyNet, trainer
from workbench.core.part import Part
from workbench.data.corpora import Text
from workbench.data.section import Data
from workbench.data.tokenizers import Bytes
from workbench.report.write import write_report
from workbench.run import RunFolder, every
from workbench.train.checkpoint import STATE, Checkpoints, digest, load_weights, read

Case = tuple[str, Callable[[], object]]
ROLES = ("model", "ema", "optimizer", "process")


def damaged_checkpoints(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """A run with two checkpoints, of which files are damaged: read, resumed, and (signed anew) meant to deceive."""
    whole = folder / "whole"
    trainer(whole, steps=20, checkpoint_every=10, log_every=10).fit()
    (run,) = every(whole)
    truth = {step: read(run.ckpt / f"step-{step:08d}", ROLES) for step in (10, 20)}
    place = run.ckpt.relative_to(whole)
    for number in range(count):
        spoiled = folder / "spoiled"
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(whole, spoiled)
        ckpt = spoiled / place
        lies = rng.random() < 0.15
        told = _lie(ckpt, rng) if lies else [tear(file, rng) for file in _some(ckpt, rng)]
        resume = rng.random() < 0.1 or lies

        which = rng.choice(["last", "last", "best", "10"])

        def act(ckpt=ckpt, spoiled=spoiled, resume=resume, lies=lies, which=which):
            try:
                found = load_weights(ToyNet(), ckpt, which=which)
                assert lies or _same(found, truth), "weights were taken that were not written"
            finally:
                if resume:
                    made = trainer(spoiled, steps=20, checkpoint_every=10, log_every=10)
                    made.fit()
                else:
                    taken = Checkpoints(ckpt, run.hash).load_last()
                    assert taken is None or lies or _same(taken, truth), "weights were taken that were not written"

        yield f"checkpoint {number} ({'; '.join(told)}{', resumed' if resume else ''})", act


def _some(ckpt: Path, rng: random.Random) -> list[Path]:
    files = sorted(file for file in ckpt.rglob("*") if file.is_file())
    return rng.sample(files, rng.choice([1, 1, 1, 2, 3]))


def _lie(ckpt: Path, rng: random.Random) -> list[str]:
    """Numbers with a hash of their own that are not what a trainer writes."""
    file = rng.choice(sorted(ckpt.glob(f"step-*/{STATE}")))
    state = json.loads(file.read_text())
    del state["digest"]
    state = damaged(state, rng) if rng.random() < 0.7 else {**state, rng.choice(list(state)): junk(rng)}
    try:
        file.write_text(json.dumps({**state, "digest": digest(state)}))
    except (TypeError, ValueError, AttributeError):  # no JSON, no map: still a file
        file.write_text(json.dumps(state, default=str))
    return ["numbers signed anew"]


def _same(found: Any, truth: dict[int, Any]) -> bool:
    real = truth.get(found.step)
    return real is not None and all(
        torch.equal(value, real.tensors[role][name])
        for role, tensors in found.tensors.items()
        for name, value in tensors.items()
    )


def damaged_tokens(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """A cache with files damaged: the next preparation gives the same tokens, or says what to do."""
    text = folder / "text.txt"
    text.write_text("\n".join(f"line {i} of war and peace {i * i}" for i in range(400)))

    def data() -> Data:
        return Data(Text(paths=[str(text)], separator="\n"), Bytes(), 16)

    whole = folder / "whole"
    made = data().prepare(whole, workers=0)
    truth = {"train": np.array(made.train.ids), "valid": np.array(made.valid.ids)}
    for number in range(count):
        cache = folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        shutil.copytree(whole, cache)
        files = sorted(file for file in cache.rglob("*") if file.is_file() and file.name != "lock")
        told = [tear(file, rng) for file in rng.sample(files, rng.choice([1, 1, 2]))]

        def act(cache=cache):
            for _ in range(2):  # what is made again is found the next time
                made = data().prepare(cache, workers=0)
                for split, blocks in (("train", made.train), ("valid", made.valid)):
                    assert np.array_equal(blocks.ids, truth[split]), f"{split}: tokens that nobody packed"
                assert made.meta["train"]["tokens"] == len(truth["train"])

        yield f"tokens {number} ({'; '.join(told)})", act


def damaged_run_files(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Run folders with damaged notes, logs and results, and a report on them."""
    assert issubclass(Text, Part)
    for number in range(count):
        root = folder / "runs"
        shutil.rmtree(root, ignore_errors=True)
        one, two = make_run(root, "sedd"), make_run(root, "gpt2", "autoregressive", "22" * 8)
        files = sorted(file for file in one.rglob("*") if file.is_file() and file.suffix != ".safetensors")
        told = []
        for file in rng.sample(files, rng.choice([1, 1, 2])):
            if file.suffix in (".json", "") and rng.random() < 0.5:
                content = json.dumps(damaged(json.loads(file.read_text()), rng), default=str)
                file.write_text(content, encoding="utf-8", errors="replace")
                told.append(f"{file.name} changed")
            else:
                told.append(tear(file, rng))
        page = number % 10 == 0

        def act(one=one, two=two, page=page, root=root):
            for run in every(root):
                str(run.state), run.finished, run.figures("0" * 16)
            if page:
                write_report([one, two], root / "report")
            else:
                RunFolder(one)
                from workbench.report.collect import collect
                from workbench.report.tables import main_table

                main_table(collect([one, two]))

        yield f"run files {number} ({'; '.join(told)}{', reported' if page else ''})", act
