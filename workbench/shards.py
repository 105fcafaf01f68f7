"""Pieces of a likelihood, kept in the run's folder while an evaluation goes on: one that is interrupted goes on there.

A shard is found by a digest of all that moves its nats: weights, process, precision, noise, tokens. One of anything
else is never looked at; finished evaluations remove them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from workbench import __version__
from workbench.core.files import read_json, write_json
from workbench.processes.base import Bound


class Shards:
    """The shards of one model in one folder; without a folder nothing is kept."""

    def __init__(
        self, folder: Path | None = None, shell: nn.Module | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """``shell``: around the weights; ``facts``: plain data that moves the figures beside them."""
        self.folder, self.shell, self.facts = folder, shell, dict(facts or {})

    def bound(self, about: Mapping[str, Any], arrays: Sequence[npt.NDArray[Any]], make: Callable[[], Bound]) -> Bound:
        """What ``make`` gives, or gave before for the same ``about`` (plain data) and ``arrays``."""
        if self.folder is None:
            return make()
        path = self.folder / f"{self._key(about, arrays)}.json"
        kept = _read(path)
        if kept is None:
            kept = make()
            self.folder.mkdir(exist_ok=True)
            write_json(path, _plain(kept))
        return kept

    def _key(self, about: Mapping[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> str:
        text = json.dumps([self._whose, self.facts, dict(about)], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode())
        for array in arrays:
            digest.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    @cached_property
    def _whose(self) -> list[str]:
        return ["" if self.shell is None else weights_digest(self.shell), __version__, torch.__version__]


def weights_digest(module: nn.Module) -> str:
    """Hash of all weights and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def forget(folder: Path) -> None:
    """Remove all shards of a run: what they were for is done."""
    shutil.rmtree(folder, ignore_errors=True)


def _plain(bound: Bound) -> dict[str, Any]:
    parts = {name: nats_B.tolist() for name, nats_B in bound.parts.items()}
    return {"kind": bound.kind, "nats": bound.nats_BK.tolist(), "parts": parts}


def _read(path: Path) -> Bound | None:
    """None where there is none, or a damaged one."""
    try:
        data = read_json(path)
        parts = {str(name): np.asarray(nats, dtype=np.float64) for name, nats in data["parts"].items()}
        nats_BK = np.asarray(data["nats"], dtype=np.float64)
        return Bound(nats_BK, data["kind"], parts) if nats_BK.ndim == 2 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
