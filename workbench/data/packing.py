"""Packing: the documents of a split, each followed by eos, as one stream of tokens in a file that is mapped.

The stream is stored uncut, so that blocks of any length share it. A folder of the cache holds one stream and
is addressed by the content that made it (corpus, tokenizer, protocol)::

    tokens.bin     the ids, little-endian uint16 (uint32 above 65,536 ids)
    chunks.jsonl   the journal: one line a chunk of documents, written once its tokens are on disk
    meta.json      written last: its presence says that the stream is whole
    lock           who writes

A killed packing goes on behind the last chunk of its journal; whatever lies in ``tokens.bin`` behind that is
cut off.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.core import files
from workbench.core.files import write_json
from workbench.core.plugins import plugin_version
from workbench.data.base import Corpus, Progress, Split, Tokenizer
from workbench.data.journal import append, recover
from workbench.data.storage import DataError, fingerprint, locked
from workbench.data.workers import cores, encode_chunks, threads

META = ("meta.json", "tokens.bin")
PROTOCOL = {"version": 1, "eos": "after every document", "bos": "none", "empty documents": "left out"}
"""What the stream is made of, part of its address. Blocks cut from it drop the remainder behind the last
one."""
CHUNK = 4 << 20
"""Characters of text in a chunk: what is encoded at once, and lost at most by a kill."""


class Damaged(DataError):
    """A stream that is not what was written."""


class Tokens:
    """A packed stream, mapped from its file: ``len()`` tokens, ``meta`` as in meta.json."""

    def __init__(self, folder: Path) -> None:
        """Open a whole stream.

        Raises:
            DataError: it is not whole.
            Damaged: its file has another size than it was written with, or its numbers another hash.
        """
        self.folder, self.path = folder, folder / META[1]
        if not (folder / META[0]).is_file():
            raise DataError(f"{folder} holds no packed tokens; prepare the data first")
        self.meta = read_meta(folder / META[0])
        self.dtype = np.dtype(self.meta["dtype"])
        size = self.path.stat().st_size if self.path.is_file() else -1
        if size != self.meta["tokens"] * self.dtype.itemsize:
            raise Damaged(
                f"{self.path} is damaged (its size is not the one it was written with): delete it, it is made again"
            )
        self.ids: npt.NDArray[Any] = np.empty(0, self.dtype)
        if size:
            self.ids = np.asarray(np.memmap(self.path, dtype=self.dtype, mode="r"))

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    def verify(self) -> None:
        """Read the whole stream against the hashes of its chunks, on all cores.

        Raises:
            Damaged: a chunk differs from what was written.
        """
        sizes = [chunk["tokens"] * self.dtype.itemsize for chunk in self.meta["chunks"]]
        with self.path.open("rb") as file, ThreadPoolExecutor(cores()) as pool:

            def found(size: int, end: int) -> str:
                digest, at = hashlib.sha256(), end - size
                while piece := os.pread(file.fileno(), min(files.PIECE, end - at), at):  # it gives 2 GiB at most
                    digest.update(piece)
                    at += len(piece)
                return digest.hexdigest()

            for number, digest in enumerate(pool.map(found, sizes, accumulate(sizes))):
                if digest != self.meta["chunks"][number]["sha256"]:
                    pool.shutdown(cancel_futures=True)
                    raise Damaged(f"{self.path}: chunk {number} is damaged: delete it, it is made again")


def read_meta(path: Path) -> dict[str, Any]:
    """What meta.json says, by its own hash (which streams packed by older versions do not have).

    Raises:
        Damaged: it is no such file, or differs from what was written.
    """
    try:
        meta: dict[str, Any] = files.read_json(path)
        content = {name: value for name, value in meta.items() if name != "digest"}
        if meta.get("digest") not in (None, fingerprint(content)):
            raise ValueError("it does not match its own hash")
        if sum(chunk["tokens"] for chunk in meta["chunks"]) != meta["tokens"] or np.dtype(meta["dtype"]).kind != "u":
            raise ValueError("its chunks are not its tokens")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{path} is damaged ({error}): delete it, it is made again") from error
    return meta


def address(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """The name in the cache of a corpus' streams by a tokenizer, from their contents (and a plug-in's own code)."""
    content = {"corpus": corpus.digest(), "tokenizer": tokenizer.digest(), "protocol": PROTOCOL}
    return fingerprint(content | versions(corpus=corpus, tokenizer=tokenizer))


def versions(**parts: Corpus | Tokenizer) -> dict[str, str]:
    """Versions of those parts that come from plug-in files: a file that is edited must not find old tokens."""
    found = {f"{name} version": plugin_version(type(part)) for name, part in parts.items()}
    return {name: version for name, version in found.items() if version}


def pack(
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: Split,
    cache: Path,
    progress: Progress | None = None,
    workers: int | None = None,
    chunk: int = CHUNK,
) -> Tokens:
    """The packed stream of a split: opened where the cache has it, made (or made to its end) where not.

    What the cache has is read against its hashes; where it differs it is set aside as ``*.damaged``, which is told on
    stderr, and made again.

    ``workers``: encoding processes; 0 encodes here (the library's threads still work), None decides by the
    machine's cores and starts processes only when a corpus proves long. The stream is the same. Another
    process that packs the same is waited for. An exception from ``progress`` stops the packing; the next call
    goes on.

    Raises:
        DataError: the split holds no text, a document cannot be encoded, the disk is full, a tokenizer gives
            ids outside its vocabulary.
    """
    tell = progress or silent
    folder = cache / "tokens" / address(corpus, tokenizer) / split
    if (found := _whole(folder)) is None:
        with locked(folder, lambda owner: tell(f"waiting for {owner}", 0, None)):
            if (found := _whole(folder, mend=True)) is None:  # another may have finished while we waited
                try:
                    _write(folder, corpus, tokenizer, split, tell, workers, chunk)
                except OSError as error:
                    raise DataError(f"packing into {folder} failed: {error}") from error
                found = Tokens(folder)
    return found


def _whole(folder: Path, mend: bool = False) -> Tokens | None:
    """The stream, where it is whole and undamaged; ``mend``: set a damaged one aside."""
    if not (folder / META[0]).is_file():
        return None
    try:
        found = Tokens(folder)
        found.verify()
        return found
    except Damaged as error:
        if not mend:
            return None
        for name in META:  # meta.json first: without it the folder holds no stream
            if (folder / name).is_file():
                os.replace(folder / name, folder / f"{name}.damaged")
        print(f"{error} (now, in fact: what was there is set aside as *.damaged)", file=sys.stderr)
        return None


def silent(stage: str, done: int, total: int | None) -> None:
    """A progress callback that shows nothing."""


def _write(
    folder: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: Split,
    tell: Progress,
    workers: int | None,
    chunk: int,
) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocab <= 1 << 16 else "<u4")
    tokens, journal = folder / "tokens.bin", folder / "chunks.jsonl"
    made_of = corpus.digest()
    chunks = recover(tokens, journal, dtype)
    read = sum(done.read for done in chunks)
    total = corpus.count(split)
    stage = f"packing {split}"
    tell(stage, read, total)
    batches = _batches(corpus.documents(split, read), chunk)
    with tokens.open("ab") as stream, journal.open("ab") as lines:
        for batch, ids in encode_chunks(tokenizer, batches, threads() if workers is None else workers):
            done = append(stream, lines, batch, ids, tokenizer, dtype)
            chunks.append(done)
            read += done.read
            tell(stage, read, total)
    documents = sum(done.documents for done in chunks)
    if not documents:
        raise DataError(
            f"the {split} split of corpus `{corpus.type_name}` holds no text: check its files, and how they are "
            "split into documents (every tenth can be held out only where there are as many)"
        )
    if corpus.digest() != made_of:
        tokens.unlink()
        journal.unlink()
        raise DataError(f"the text of corpus `{corpus.type_name}` changed while it was packed; start again")
    meta = {
        "protocol": PROTOCOL,
        "split": split,
        "corpus": {"type": corpus.type_name, "digest": made_of},
        "tokenizer": {"type": tokenizer.type_name, "digest": tokenizer.digest(), "vocab": tokenizer.vocab},
        "dtype": dtype.str,
        "documents": documents,
        "tokens": sum(done.tokens for done in chunks),
        "bytes": sum(done.bytes for done in chunks),
        "chunks": [asdict(done) for done in chunks],
    }
    write_json(folder / META[0], meta | {"digest": fingerprint(meta)})
    journal.unlink()


def _batches(documents: Iterator[str], chunk: int) -> Iterator[list[str]]:
    """Consecutive documents, in lists of at least ``chunk`` characters (the last may be shorter)."""
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= chunk:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
