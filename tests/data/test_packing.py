"""The packed stream: what it holds, how it survives kills, two writers, damage; where the cache finds it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from workbench.core.files import read_json
from workbench.data import journal
from workbench.data.base import Corpus, Ids, Split
from workbench.data.bpe import Bpe
from workbench.data.corpora import PythonDocs
from workbench.data.packing import Tokens, address, pack
from workbench.data.storage import DataError, cache_folder, fingerprint, locked
from workbench.data.tokenizers import Bytes, Chars
from workbench.data.workers import HERE, encode_chunks

ROOT = Path(__file__).resolve().parents[2]


class Listed(Corpus):
    """Documents from two lists."""

    def __init__(self, texts: Sequence[str], held_out: Sequence[str] = ("valid",)) -> None:
        self.texts = {"train": texts, "valid": held_out}
        self.reads = 0

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        for text in self.texts[split][start:]:
            self.reads += 1
            yield text

    def digest(self) -> str:
        return fingerprint({"texts": {split: list(texts) for split, texts in self.texts.items()}})

    def count(self, split: Split) -> int:
        return len(self.texts[split])


TEXTS = [f"document {i} " + "é" * (i % 7) if i % 5 else "" for i in range(60)]
STREAM = [id for text in TEXTS if text for id in (*text.encode(), 256)]


class Stop(Exception):
    """Raised by a progress callback at a fail-point."""


def stop_after(documents: int):
    def progress(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("packing") and done >= documents:
            raise Stop

    return progress


# --- content -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_the_stream_is_the_documents_each_with_eos(tmp_path: Path, chunk: int) -> None:
    tokens = pack(Listed(TEXTS), Bytes(), "train", tmp_path, chunk=chunk)
    assert tokens.ids.tolist() == STREAM
    assert tokens.dtype == np.dtype("<u2")
    full = [text for text in TEXTS if text]
    assert tokens.meta["documents"] == len(full)
    assert tokens.meta["tokens"] == len(tokens) == len(STREAM)
    assert tokens.meta["bytes"] == sum(len(text.encode()) for text in full)
    tokens.verify()
    assert sorted(path.name for path in tokens.folder.iterdir()) == ["lock", "meta.json", "tokens.bin"]
    assert pack(Listed(TEXTS), Bytes(), "valid", tmp_path).ids.tolist() == [*b"valid", 256]


@pytest.mark.parametrize("piece", [1, 7, 256])
def test_the_stream_is_the_same_in_whatever_pieces_it_is_stored(tmp_path: Path, monkeypatch, piece: int) -> None:
    whole = pack(Listed(TEXTS), Bytes(), "train", tmp_path / "whole", workers=0)
    monkeypatch.setattr(journal, "PIECE", piece)
    found = pack(Listed(TEXTS), Bytes(), "train", tmp_path / "pieces", workers=0)
    assert found.ids.tolist() == STREAM and found.meta == whole.meta


def test_a_document_as_large_as_a_file_is_not_copied_over_and_over(tmp_path: Path) -> None:
    """Its text and its ids, eight bytes each, and what is stored at once; it was 20 bytes a character, now 10."""
    text = "a b " * (2 << 20)
    tracemalloc.start()
    try:
        pack(Listed([text]), Bytes(), "train", tmp_path, workers=0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 13 * len(text)


def test_a_document_cannot_inject_eos(tmp_path: Path) -> None:
    bpe = Bpe(300)
    bpe.train(PythonDocs().documents("train"))
    tokens = pack(Listed(["a<|endoftext|>b", "<|endoftext|>"]), bpe, "train", tmp_path)
    assert (tokens.ids == bpe.eos).sum() == tokens.meta["documents"] == 2
    assert bpe.decode(tokens.ids) == "a<|endoftext|>b<|endoftext|>"


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    wide = Chars(
        unknown="unk", alphabet="".join(map(chr, range(0x20, 0xD800))) + "".join(map(chr, range(0x10000, 0x14000)))
    )
    tokens = pack(Listed(["a\U00013000"]), wide, "train", tmp_path)
    assert tokens.dtype == np.dtype("<u4")
    assert wide.decode(tokens.ids) == "a\U00013000"
    assert tokens.ids.max() > 0xFFFF


# --- the cache ---------------------------------------------------------------------------------------------------


def test_a_second_call_reads_no_text(tmp_path: Path) -> None:
    corpus = Listed(TEXTS)
    first = pack(corpus, Bytes(), "train", tmp_path)
    reads = corpus.reads
    again = pack(corpus, Bytes(), "train", tmp_path)
    assert corpus.reads == reads > 0
    assert again.folder == first.folder


def test_addresses_follow_text_and_tokenizer() -> None:
    chars, other = Chars(alphabet="abc"), Chars(alphabet="abcé")
    found = {
        address(Listed(TEXTS), Bytes()),
        address(Listed(TEXTS[1:]), Bytes()),
        address(Listed(TEXTS), chars),
        address(Listed(TEXTS), other),
    }
    assert len(found) == 4
    assert address(Listed(TEXTS), Bytes()) == address(Listed(list(TEXTS)), Bytes())


def test_cache_folder_by_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WORKBENCH_CACHE", raising=False)
    assert cache_folder() == Path("cache")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder("there") == Path("there")


# --- kills -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail", [0, 1, 7, 30, 59, 60])
def test_packing_goes_on_behind_the_last_chunk(tmp_path: Path, fail: int) -> None:
    corpus = Listed(TEXTS)
    with pytest.raises(Stop):
        pack(corpus, Bytes(), "train", tmp_path, stop_after(fail), chunk=40)
    folder = tmp_path / "tokens" / address(corpus, Bytes()) / "train"
    with pytest.raises(DataError, match="no packed tokens"):
        Tokens(folder)
    corpus.reads = 0
    seen: list[int] = []
    tokens = pack(corpus, Bytes(), "train", tmp_path, lambda stage, done, total: seen.append(done), chunk=40)
    assert tokens.ids.tolist() == STREAM
    assert seen[0] >= fail and corpus.reads == len(TEXTS) - seen[0]
    tokens.verify()


@pytest.mark.parametrize(
    "damage", ["torn line", "torn tokens", "other tokens", "no journal", "no tokens", "junk behind"]
)
def test_packing_goes_on_from_what_is_whole(tmp_path: Path, damage: str) -> None:
    corpus = Listed(TEXTS)
    with pytest.raises(Stop):
        pack(corpus, Bytes(), "train", tmp_path, stop_after(40), chunk=40)
    folder = tmp_path / "tokens" / address(corpus, Bytes()) / "train"
    tokens, journal = folder / "tokens.bin", folder / "chunks.jsonl"
    content, lines = tokens.read_bytes(), journal.read_bytes()
    assert lines.count(b"\n") > 5
    if damage == "torn line":
        journal.write_bytes(lines[:-1])
    elif damage == "torn tokens":
        tokens.write_bytes(content[:-1])
    elif damage == "other tokens":
        tokens.write_bytes(content[:100] + b"\x07" + content[101:])
    elif damage == "no journal":
        journal.unlink()
    elif damage == "no tokens":
        tokens.unlink()
    else:
        tokens.write_bytes(content + b"half a chunk")
        journal.write_bytes(lines + b'{"read": 3')
    made = pack(corpus, Bytes(), "train", tmp_path, chunk=40)
    assert made.ids.tolist() == STREAM
    made.verify()


SLOW_PACKING = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from tests.data.test_packing import Listed, TEXTS
    from workbench.data.packing import pack
    from workbench.data.tokenizers import Bytes
    pause = float(sys.argv[2])
    def progress(stage, done, total):
        print(stage, done, flush=True)
        time.sleep(pause)
    print("packed", len(pack(Listed(TEXTS), Bytes(), "train", Path(sys.argv[1]), progress, chunk=40)), flush=True)
""")


def start(cache: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_PACKING, str(cache), str(pause)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_packing_leaves_no_lock_and_nothing_is_lost(tmp_path: Path) -> None:
    writer = start(tmp_path, 0.05)
    assert writer.stdout is not None
    for _ in range(8):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    seen: list[tuple[str, int]] = []
    began = time.monotonic()
    tokens = pack(
        Listed(TEXTS), Bytes(), "train", tmp_path, lambda stage, done, total: seen.append((stage, done)), chunk=40
    )
    assert time.monotonic() - began < 5
    assert seen[0][0] == "packing train" and seen[0][1] > 0  # no wait for the dead owner, and not from the start
    assert tokens.ids.tolist() == STREAM


def test_two_writers_at_once_make_one_whole_stream(tmp_path: Path) -> None:
    writers = [start(tmp_path, 0.02), start(tmp_path, 0.02)]
    outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    assert all(f"packed {len(STREAM)}" in output for output in outputs)
    packing = [sum(line.startswith("packing") for line in output.splitlines()) for output in outputs]
    assert min(packing) == 0  # one wrote, the other waited
    tokens = pack(Listed(TEXTS), Bytes(), "train", tmp_path)
    tokens.verify()
    assert tokens.ids.tolist() == STREAM


def test_a_waiting_writer_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []

    def waiting(owner: str) -> None:
        said.append(owner)
        raise Stop

    with locked(tmp_path), pytest.raises(Stop), locked(tmp_path, waiting):
        pass
    assert f"process {os.getpid()} on " in said[0]
    with locked(tmp_path, waiting):  # released
        pass
    assert len(said) == 1


# --- damage and misuse -------------------------------------------------------------------------------------------


def test_damage_is_seen_on_open_by_size_and_on_demand_by_hash(tmp_path: Path) -> None:
    tokens = pack(Listed(TEXTS), Bytes(), "train", tmp_path, chunk=40)
    content = tokens.path.read_bytes()
    tokens.path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(DataError, match=r"chunk .* is damaged"):
        Tokens(tokens.folder).verify()
    tokens.path.write_bytes(content[:-2])
    with pytest.raises(DataError, match="damaged"):
        Tokens(tokens.folder)
    (tokens.folder / "meta.json").write_text('{"tok')
    with pytest.raises(DataError, match=r"meta\.json is damaged"):
        Tokens(tokens.folder)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    for held_out in ((), ("", "")):
        with pytest.raises(DataError, match=r"valid split .* holds no text"):
            pack(Listed(TEXTS, held_out), Bytes(), "valid", tmp_path)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="WORKBENCH_CACHE"):
        pack(Listed(TEXTS), Bytes(), "train", tmp_path / "file")


def test_text_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    corpus = Listed(list(TEXTS))

    def meddle(stage: str, done: int, total: int | None) -> None:
        if done == total:
            corpus.texts["train"] = [*TEXTS, "more"]

    with pytest.raises(DataError, match="changed"):
        pack(corpus, Bytes(), "train", tmp_path, meddle)
    assert pack(corpus, Bytes(), "train", tmp_path).ids.tolist() == [*STREAM, *b"more", 256]


class Liar(Bytes):
    """Says it has 100 ids."""

    @property
    def vocab(self) -> int:
        return 100


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vocabulary of 100"):
        pack(Listed(["ÿ"]), Liar(), "train", tmp_path)


# --- processes ---------------------------------------------------------------------------------------------------


def test_processes_make_the_same_stream(tmp_path: Path) -> None:
    bpe = Bpe(400)
    bpe.train(PythonDocs().documents("train"))
    here = pack(PythonDocs(), bpe, "train", tmp_path / "here", workers=0, chunk=30_000)
    there = pack(PythonDocs(), bpe, "train", tmp_path / "there", workers=2, chunk=30_000)
    assert len(here.meta["chunks"]) > HERE + 2
    assert here.path.read_bytes() == there.path.read_bytes()
    assert here.meta == there.meta


class Unpicklable(Bytes):
    """A tokenizer that cannot go to another process."""

    def __init__(self) -> None:
        self.secret = lambda: None


class Deadly(Bytes):
    """A tokenizer that dies where it is unpickled."""

    def __init__(self) -> None:
        self.note = "state to restore"

    def __setstate__(self, state: object) -> None:
        raise SystemExit


@pytest.mark.parametrize("tokenizer", [Unpicklable, Deadly])
def test_without_processes_encoding_goes_on_here(tokenizer: type[Bytes]) -> None:
    batches = [[f"text {i}"] for i in range(HERE + 5)]
    made = tokenizer()
    with pytest.warns(UserWarning, match="in this one"):
        found = [(batch, ids[0].tolist()) for batch, ids in encode_chunks(_Kept(made), iter(batches), 1)]
    assert found == [(batch, list(batch[0].encode())) for batch in batches]


class _Kept(Bytes):
    """Carries another tokenizer, so that pickling meets it."""

    def __init__(self, inner: Bytes) -> None:
        self.inner = inner

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        return self.inner.encode_many(texts)


class Failing(Listed):
    """A corpus whose third document cannot be read."""

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        yield from self.texts[split][start:40]
        raise TypeError("a bug of this corpus")


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_corpus_are_not_swallowed(tmp_path: Path, workers: int) -> None:
    with pytest.raises(TypeError, match="a bug of this corpus"):
        pack(Failing(TEXTS), Bytes(), "train", tmp_path, workers=workers, chunk=40)
    folder = tmp_path / "tokens" / address(Failing(TEXTS), Bytes()) / "train"
    assert not (folder / "meta.json").exists()


def test_meta_is_plain_data(tmp_path: Path) -> None:
    tokens = pack(Listed(TEXTS), Bytes(), "train", tmp_path)
    kept: dict[str, Iterable] = read_json(tokens.folder / "meta.json")
    assert json.loads(json.dumps(kept)) == tokens.meta
    assert kept["tokenizer"] == {"type": "bytes", "digest": Bytes().digest(), "vocab": 257}


def test_a_chunk_is_read_in_pieces_however_large_it_is(tmp_path, monkeypatch):
    """What one `pread` gives is bounded (2 GiB on Linux): a chunk beyond it is not damaged."""
    tokens = pack(Listed(TEXTS), Bytes(), "train", tmp_path, chunk=40)
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: whole(file, min(size, 7), at))
    tokens.verify()
