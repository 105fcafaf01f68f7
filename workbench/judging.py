"""Judge `run`: a left-to-right run of this workbench reads the texts of others."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.base import Backbone
from workbench.core.bounds import Count
from workbench.core.errors import WorkbenchError
from workbench.core.reading import is_yaml
from workbench.metrics.judge import Judge, JudgeError, Passage, Reading
from workbench.metrics.language_models import next_token_nats
from workbench.opening import Opened, open_trained
from workbench.processes.autoregressive import Autoregressive
from workbench.processes.views import features
from workbench.recipe import load
from workbench.run import RunFolder, find
from workbench.train.checkpoint import weights_digest


@Judge.register("run")
class RunJudge(Judge):
    """A trained left-to-right run: a judge of the same text and size as the runs it judges, hence no stranger's taste.

    Passages of its own tokenizer's ids are read as they stand, other texts are encoded anew. It reads a block's length
    at most; its feature is the state that predicts the last token.

    Settings:
        run: folder of the run, or the recipe that it was trained by.
        runs: folder of run folders, where a recipe is given.
        batch: sequences read at a time.
    """

    immaterial = frozenset({"runs", "batch"})

    def __init__(self, run: str, runs: str = "runs", batch: Count = 32) -> None:
        """See Settings."""
        self.run, self.runs, self.batch = run, runs, batch

    @classmethod
    def example(cls) -> dict[str, str]:
        """A run that is nowhere: the contract is held against trained ones."""
        return {"run": "runs/none"}

    @classmethod
    def known_as(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """A recipe by the hash that its weights follow from, a folder by the hash of its weights."""
        return {**settings, "run": _by_content(settings["run"])}

    def identity(self) -> str:
        """Hashes of its recipe and of its weights, their step, the precision; not where it lies."""
        opened = _opened(self.run, self.runs)
        weights = weights_digest(opened.run.ckpt, opened.step)[:12]
        return f"run: recipe {opened.run.hash}, step {opened.step}, weights sha256 {weights}, {opened.precision}"

    def reread(self, passages: Sequence[Passage]) -> list[Reading]:
        """Sorted by length, padding behind."""
        opened = _opened(self.run, self.runs)
        rows = [_row(opened, passage) for passage in passages]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        found: dict[int, Reading] = {}
        for start in range(0, len(order), self.batch):
            piece = order[start : start + self.batch]
            found |= zip(piece, _read(opened, [rows[i] for i in piece]), strict=True)
        return [found[i] for i in range(len(rows))]


@dataclass(frozen=True)
class _Row:
    """Ids, of which those from ``first`` on count and stand for ``bytes``."""

    ids: tuple[int, ...]
    first: int
    bytes: int


def _by_content(run: str) -> str:
    path = Path(run)
    try:
        if is_yaml(path):
            return f"recipe {load(path).hash}"
        return f"weights {weights_digest(RunFolder(path).ckpt)}"
    except (WorkbenchError, OSError):
        return run


@functools.lru_cache(maxsize=2)
def _opened(run: str, runs: str) -> Opened:
    """The run, its weights loaded once a process.

    Raises:
        JudgeError: there is none, or it does not read left to right.
    """
    folder = Path(run)
    if is_yaml(folder):
        known = [found for found in find(load(folder).hash, runs) if found.finished]
        if not known:
            raise JudgeError(f"judge run: no finished run of {run} in {runs}; `workbench train {run}` makes it")
        folder = known[0].path
    if not folder.is_dir():
        raise JudgeError(f"judge run: {run} is no folder; name a run's folder, or the recipe of one (.yaml)")
    RunFolder(folder)  # says what is wrong with a folder that is no run
    opened = open_trained(folder)
    if not isinstance(opened.model.process, Autoregressive):
        raise JudgeError(f"judge run: {run} does not read left to right; a judge's likelihood is exact: take a GPT-2")
    return opened


def _row(opened: Opened, passage: Passage) -> _Row:
    tokenizer = opened.model.tokenizer
    if passage.ids and passage.tokenizer == tokenizer.digest():
        given, own = passage.given_ids, passage.ids
    else:
        given, own = (tuple(tokenizer.encode(text).tolist()) if text else () for text in (passage.given, passage.text))
    room = opened.model.length
    if own and len(given) >= room:
        raise JudgeError(f"judge run: {len(given)} tokens are given, its blocks have {room}; give shorter prompts")
    ids = (*given, *own)[:room]
    return _Row(ids, min(len(given), len(ids)), len(tokenizer.decode_bytes(ids[len(given) :])))


@torch.no_grad()
def _read(opened: Opened, rows: Sequence[_Row]) -> list[Reading]:
    process, device = opened.model.process, opened.device
    assert isinstance(process, Autoregressive)
    width = max(1, *(len(row.ids) for row in rows))
    ids_BL = torch.zeros(len(rows), width, dtype=torch.long)
    for row, into_L in zip(rows, ids_BL, strict=True):
        into_L[: len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
    x_BL = process.shifted(ids_BL)
    with torch.autocast(device.type, torch.bfloat16, enabled=opened.precision == "bf16"):
        nats_BL, h_BLD = opened.model.shell(_nats, x_BL.to(device), ids_BL.to(device))
    return [
        Reading(nats_L[row.first : len(row.ids)], row.bytes, h_LD[max(0, len(row.ids) - 1)].cpu().numpy())
        for row, nats_L, h_LD in zip(rows, nats_BL, h_BLD, strict=True)
    ]


def _nats(net: Backbone, x_BL: Tensor, target_BL: Tensor) -> tuple[np.ndarray, Tensor]:  # type: ignore[type-arg]
    h_BLD = features(net, x_BL, None).float()
    head: nn.Linear = net.head
    return next_token_nats(head, h_BLD.flatten(0, 1), target_BL.flatten()).reshape(target_BL.shape), h_BLD
