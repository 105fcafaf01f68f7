"""Keyed random numbers: the same (seed, stream, step, sequence) gets the same numbers in any batch, on any
world size, after any resume.

The generator is Philox-4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") as numpy
ships it: key = (seed, stream), counter = (block, step, sequence, 0). Numbers are drawn on the host, in
float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

WORD = (1 << 64) - 1


class Rng:
    """Named streams of uniform numbers, each addressed by (stream, step, sequence)."""

    def __init__(self, seed: int) -> None:
        """``seed``: any integer; streams of different seeds are independent."""
        self.seed = int(seed)

    def uniform(
        self, stream: str, step: int, seq_B: Sequence[int] | npt.NDArray[Any], n: int
    ) -> npt.NDArray[np.float64]:
        """Uniform numbers in [0, 1), shape [B, n], float64 with 53 random bits.

        Row ``b`` depends on (seed, stream, step, seq_B[b]) only, and its first ``m`` numbers do not depend on
        ``n``.
        """
        name = self.key(stream)
        out = np.empty((len(seq_B), n), dtype=np.float64)
        for row, seq in enumerate(np.asarray(seq_B).tolist()):
            bits = np.random.Philox(
                key=np.array([self.seed & WORD, name], dtype=np.uint64),
                counter=np.array([0, step & WORD, int(seq) & WORD, 0], dtype=np.uint64),
            ).random_raw(n)
            out[row] = (bits >> np.uint64(11)) * 2.0**-53
        return out

    def child(self, name: str) -> Rng:
        """An independent family of streams (one sampler's, one evaluator's)."""
        return Rng(self.key(f"{self.seed}/{name}"))

    def integer(self, stream: str) -> int:
        """A 63-bit seed for a library that wants one."""
        return self.key(f"{self.seed}/{stream}") >> 1

    @staticmethod
    def key(text: str) -> int:
        """64 bits that stand for ``text``, the same on every machine."""
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
