"""What happens between two log lines, summed on the device and read once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.train.parallel import Parallel

BUCKET = "/bucket"


@dataclass(frozen=True)
class Reading:
    """A window read: means over its updates, and sums by noise bucket."""

    values: Mapping[str, float]
    buckets: Mapping[str, list[list[float]]]


@dataclass(frozen=True)
class Update:
    """One update's loss (nats per token) and gradient norm, as numbers."""

    step: int
    loss: float
    norm: float

    @property
    def finite(self) -> bool:
        """Whether both are."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Window:
    """Sums of losses, norms and logs since the last reading. Nothing is read from the device before ``read``."""

    def __init__(self, parallel: Parallel) -> None:
        """Means and sums are over ``parallel``'s processes."""
        self._parallel = parallel
        self._updates: list[tuple[int, Tensor, Tensor]] = []
        self._means: dict[str, Tensor] = {}
        self._buckets: dict[str, Tensor] = {}

    def add(self, logs: Mapping[str, Tensor], share: float) -> None:
        """Take in a micro-batch's logs, ``share`` of its update's tokens."""
        for name, value in logs.items():
            if name.endswith(BUCKET):
                sums = self._buckets.setdefault(name.removesuffix(BUCKET), torch.zeros_like(value))
                sums.add_(value)
            else:
                mean = self._means.setdefault(name, torch.zeros_like(value))
                mean.add_(value, alpha=share)

    def close_update(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """End an update."""
        self._updates.append((step, loss.detach(), norm.detach()))

    def last(self) -> Update:
        """The newest update, read from the device now."""
        return self._read(self._updates[-1:])[0]

    def clear(self) -> None:
        """Start anew; what was summed since the last reading is lost."""
        self._updates, self._means, self._buckets = [], {}, {}

    def updates(self) -> list[Update]:
        """The window's updates, read from the device."""
        return self._read(self._updates)

    def read(self) -> Reading:
        """Means and sums of the window, which then starts anew. Call on every process, never on an empty window."""
        updates = self.updates()
        values = {
            "train/loss_nats_per_token": math.fsum(u.loss for u in updates) / len(updates),
            "train/grad_norm": math.fsum(u.norm for u in updates) / len(updates),
        }
        for name, total in self._means.items():
            values[f"train/{name}"] = float(self._parallel.mean(total)) / len(updates)
        buckets = {name: self._parallel.sum(sums).tolist() for name, sums in self._buckets.items()}
        self.clear()
        return Reading(values, buckets)

    def __len__(self) -> int:
        """Updates since the last reading."""
        return len(self._updates)

    def _read(self, updates: list[tuple[int, Tensor, Tensor]]) -> list[Update]:
        pairs = torch.stack([torch.stack([loss.double(), norm.double()]) for _, loss, norm in updates])
        rows = self._parallel.mean(pairs).tolist()
        return [Update(step, *row) for (step, _, _), row in zip(updates, rows, strict=True)]
