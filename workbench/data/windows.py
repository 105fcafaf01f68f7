"""Blocks of equal length cut from a packed stream, and batches of them as a pure function of seed and
step."""

from __future__ import annotations

import functools
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from workbench.core.rng import Rng
from workbench.data.base import Ids, Split, Tokenizer
from workbench.data.storage import DataError

ROUNDS = 8
"""Feistel rounds: the law of the first places is uniform within sampling error down to domains of a few
blocks."""
SCAN = 1 << 24
"""Tokens looked at at once when a whole stream is read."""


class Blocks:
    """A stream cut into blocks of ``length`` tokens, end to end; the remainder behind the last one is
    dropped.

    A block may begin within a document and hold several: nothing is padded.
    """

    def __init__(self, ids: npt.NDArray[Any], length: int, tokenizer: Tokenizer, split: Split) -> None:
        """``ids``: the stream (``Tokens.ids``), one axis; ``tokenizer``: the one it was packed with.

        Raises:
            DataError: the stream is shorter than a block.
        """
        if len(ids) < length:
            raise DataError(
                f"the {split} split has {len(ids)} tokens, less than one block of {length}: take a shorter "
                "`length`, or more text"
            )
        self.ids, self.length, self.tokenizer, self.split = ids, length, tokenizer, split

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.ids) // self.length

    @property
    def dropped(self) -> int:
        """Tokens behind the last whole block."""
        return len(self.ids) % self.length

    @overload
    def __getitem__(self, index: int) -> Ids: ...
    @overload
    def __getitem__(self, index: npt.NDArray[np.integer[Any]]) -> Ids: ...
    def __getitem__(self, index: int | npt.NDArray[np.integer[Any]]) -> Ids:
        """Block ``index``, int64 [L]; of an array [N] of indices, [N, L]. Negative ones count from the end.

        Raises:
            IndexError: there is no such block.
        """
        numbers = np.asarray(index, dtype=np.int64)
        if numbers.size and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(f"block {index} of {len(self)}")
        starts = np.where(numbers < 0, numbers + len(self), numbers) * self.length
        return self.ids[starts[..., None] + np.arange(self.length)].astype(np.int64)

    def between(self, first: int, last: int) -> Blocks:
        """Blocks ``first`` … ``last`` − 1, numbered from 0; documents are numbered from the first of them."""
        ids = self.ids[first * self.length : last * self.length]
        return Blocks(ids, self.length, self.tokenizer, self.split)

    def bytes_of(self, index: int | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Bytes of text a block stands for: an integer, or [N] of an array of indices. Eos counts none."""
        sizes: npt.NDArray[np.int64] = self._token_bytes[self[index]].sum(-1)
        return sizes

    def text(self, index: int, eos: str = "") -> str:
        """A block's text. A character cut by the block's edge shows as U+FFFD; ``eos`` is shown as given."""
        return self.tokenizer.decode(self[index], eos)

    def document_of(self, index: int | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Number of the document, in its split, that a block's first token belongs to: errors of blocks of
        one document are not independent. Reads the whole stream once."""
        starts = np.asarray(index, dtype=np.int64) % len(self) * self.length
        return np.searchsorted(self._ends, starts, side="left")

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each id occurs in the whole stream, [vocab]."""
        total = np.zeros(self.tokenizer.vocab, dtype=np.int64)
        for start in range(0, len(self.ids), SCAN):
            total += np.bincount(self.ids[start : start + SCAN], minlength=len(total))
        return total

    @functools.cached_property
    def _token_bytes(self) -> npt.NDArray[np.int64]:
        return self.tokenizer.token_bytes()

    @functools.cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """Where in the stream each eos stands."""
        ids, eos = self.ids, self.tokenizer.eos
        found = [start + np.flatnonzero(ids[start : start + SCAN] == eos) for start in range(0, len(ids), SCAN)]
        return np.concatenate(found)


class Windows:
    """Training batches. Sequence number q = step · batch + b takes block π_e(q mod n) of the n blocks in
    epoch e = ⌊q / n⌋, with π_e a permutation keyed by seed and epoch: each block once an epoch, no state to
    save.

    The cuts between blocks are the same in every epoch.
    """

    def __init__(self, blocks: Blocks, batch: int, seed: int) -> None:
        """``batch``: sequences of a step over all ranks."""
        self.blocks, self.size, self.seed = blocks, batch, seed

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Ids, npt.NDArray[np.int64]]:
        """(x0_BL int64, seq_B int64) of a step: a pure function of (seed, step).

        ``rows``: a rank's part of the batch, ``slice(rank * B // world, (rank + 1) * B // world)``; only
        those are read.
        """
        seq_B = step * self.size + np.arange(self.size, dtype=np.int64)[rows]
        epoch_B, place_B = np.divmod(seq_B, len(self.blocks))
        index_B = np.empty_like(place_B)
        for epoch in np.unique(epoch_B).tolist():
            here = epoch_B == epoch
            index_B[here] = permuted(place_B[here], len(self.blocks), self.seed, epoch)
        return self.blocks[index_B], seq_B

    def epoch(self, step: int) -> float:
        """How many times the data has been gone through before ``step``."""
        return step * self.size / len(self.blocks)


def permuted(place_N: npt.NDArray[np.int64], size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Where a keyed permutation of 0 … size − 1 takes each place, in O(N) whatever the size.

    A balanced Feistel network on the smallest 4^k ≥ size numbers, walked along its cycle until it falls below
    ``size`` (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"); fewer than four steps on
    average.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = _keys(seed, epoch)
    out = place_N.astype(np.uint64)
    walking = np.arange(len(out))
    while len(walking):
        left, right = out[walking] >> half, out[walking] & low
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & low)
        out[walking] = (left << half) | right
        walking = walking[out[walking] >= size]
    return out.astype(np.int64)


@functools.lru_cache(maxsize=8)
def _keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(Rng.key(f"{seed}/blocks/{epoch}/{turn}")) for turn in range(ROUNDS))


def _mix(x_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every bit of the result depends on every
    bit."""
    x_N = (x_N ^ (x_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_N = (x_N ^ (x_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_N ^ (x_N >> np.uint64(31))
