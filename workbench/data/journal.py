"""The journal of a packing: chunks of tokens that are on disk, one after the other, and found again after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from workbench.data.base import Ids, Tokenizer
from workbench.data.storage import DataError

PIECE = 1 << 20
"""Ids that are brought into the form they are stored in at once."""


@dataclass(frozen=True)
class Chunk:
    """One line of the journal: ``read`` documents consumed, ``documents`` of them not empty, their ``tokens``
    (eos counted) and ``bytes`` of UTF-8, and the SHA-256 of the tokens as stored."""

    read: int
    documents: int
    tokens: int
    bytes: int
    sha256: str


def append(
    stream: BinaryIO,
    lines: BinaryIO,
    batch: Sequence[str],
    ids: Sequence[Ids],
    tokenizer: Tokenizer,
    dtype: np.dtype[Any],
) -> Chunk:
    """Store a chunk: its tokens, durably, then its line of the journal, durably."""
    kept = [document for text, document in zip(batch, ids, strict=True) if text]
    written, digest = 0, hashlib.sha256()
    for piece in _pieces(kept, np.array([tokenizer.eos])):
        if int(piece.min()) < 0 or int(piece.max()) >= tokenizer.vocab:
            found = f"{piece.min()} … {piece.max()}"
            raise DataError(f"`{tokenizer.type_name}` gave ids {found} with a vocabulary of {tokenizer.vocab}")
        content = piece.astype(dtype).tobytes()
        stream.write(content)
        digest.update(content)
        written += len(piece)
    _flush(stream)
    size = sum(len(text.encode()) for text in batch)
    done = Chunk(len(batch), len(kept), written, size, digest.hexdigest())
    lines.write(json.dumps(asdict(done)).encode() + b"\n")
    _flush(lines)
    return done


def _pieces(documents: Sequence[Ids], end: Ids) -> Iterator[Ids]:
    """Documents, each with ``end`` behind it, as one stream in pieces of about ``PIECE`` ids: of a document as large as
    a file no second copy is made."""
    parts: list[Ids] = []
    size = 0
    for document in documents:
        for start in range(0, len(document), PIECE):
            parts.append(document[start : start + PIECE])
            size += len(parts[-1])
            if size >= PIECE:
                yield np.concatenate(parts)
                parts, size = [], 0
        parts.append(end)
    if parts:
        yield np.concatenate(parts)


def _flush(file: BinaryIO) -> None:
    """Down to the disk."""
    file.flush()
    os.fsync(file.fileno())


def recover(tokens: Path, journal: Path, dtype: np.dtype[Any]) -> list[Chunk]:
    """The chunks of an earlier, killed packing that are whole on disk; both files are cut behind them."""
    chunks: list[Chunk] = []
    size = kept = 0
    tokens.touch()
    with tokens.open("r+b") as stream:
        for line in journal.read_bytes().splitlines(keepends=True) if journal.is_file() else ():
            try:
                chunk = Chunk(**json.loads(line))
            except (ValueError, TypeError):
                break  # the line that was being written
            content = stream.read(chunk.tokens * dtype.itemsize)
            if not line.endswith(b"\n") or hashlib.sha256(content).hexdigest() != chunk.sha256:
                break
            chunks.append(chunk)
            size += len(content)
            kept += len(line)
        stream.truncate(size)
    if journal.is_file():
        os.truncate(journal, kept)
    return chunks
