"""−log p of many blocks: batch by batch, each kept as a shard, so that an interrupted evaluation loses one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from workbench.assemble import Model
from workbench.core.rng import Rng
from workbench.processes.base import Bound
from workbench.shards import Shards

Ids = npt.NDArray[np.int64]


def spread(count: int, size: int) -> npt.NDArray[np.int64]:
    """``count`` of ``size`` block numbers, evenly spread over the split and the same for every run; 0: all."""
    if count <= 0 or count >= size:
        return np.arange(size)
    return np.floor((np.arange(count) + 0.5) * size / count).astype(np.int64)


@dataclass(frozen=True)
class Counter:
    """Counts nats under one model. ``draws`` noise draws a block, ``batch`` blocks at a time, ``rng``: their noise."""

    model: Model
    rng: Rng
    draws: int
    batch: int
    autocast: Callable[[], torch.autocast]
    place: str
    shards: Shards

    def nats(
        self, tokens_NT: Ids, number_N: Ids, told_N: Ids | None = None, tell: Callable[[float], None] | None = None
    ) -> Bound:
        """−log p of blocks [N, T], whose noise is that of ``number_N``; of block i without its first ``told_N[i]``
        tokens, which are given (none: 0).
        """
        told = np.zeros(len(tokens_NT), dtype=np.int64) if told_N is None else told_N
        found: list[Bound] = []
        order = [np.flatnonzero(told == given) for given in np.unique(told)]
        done = 0
        for rows_N in order:
            for start in range(0, len(rows_N), self.batch):
                piece = rows_N[start : start + self.batch]
                found.append(self._piece(tokens_NT[piece], number_N[piece], int(told[piece[0]])))
                done += len(piece)
                if tell is not None:
                    tell(done / len(tokens_NT))
        back = np.argsort(np.concatenate(order), kind="stable")
        names = set.intersection(*(set(bound.parts) for bound in found))
        parts = {n: np.concatenate([bound.parts[n] for bound in found])[back] for n in found[0].parts if n in names}
        return Bound(np.concatenate([bound.nats_BK for bound in found])[back], found[0].kind, parts)

    def _piece(self, tokens_BT: Ids, number_B: Ids, given: int) -> Bound:
        def made() -> Bound:
            with self.autocast():
                process, shell = self.model.process, self.model.shell
                if not given:
                    return process.nll(shell, tokens_BT, number_B, self.rng, self.draws)
                return process.continuation(shell, tokens_BT, given, number_B, self.rng, self.draws).bound

        about = {"seed": self.rng.seed, "draws": self.draws, "given": given, "place": self.place}
        return self.shards.bound(about, (tokens_BT, number_B), made)
