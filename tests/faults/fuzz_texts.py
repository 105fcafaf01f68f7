"""Text that means harm: bytes that are no text, lines without end, files that unpack without end, next to nothing."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.junk import WORDS, torn
from workbench.core.part import KINDS
from workbench.data.bpe import Bpe
from workbench.data.corpora import Text
from workbench.data.section import Data
from workbench.data.tokenizers import Bytes

Case = tuple[str, Callable[[], object]]
MB = 1 << 20


def hostile_texts(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Files of a corpus ``text``, read, packed and cut into blocks."""
    makers: list[tuple[str, Callable[[], bytes]]] = [
        ("t.txt", lambda: b""),
        ("t.txt", lambda: b"\x00" * rng.randrange(1, 5000)),
        ("t.txt", lambda: b"\xff\xfe" * 400),
        ("t.txt", lambda: rng.randbytes(3000)),
        ("t.txt", lambda: b"a"),
        ("t.txt", lambda: b"\n" * 5000),
        ("t.txt", lambda: b"x" * (4 * MB)),
        ("t.txt", lambda: "\ufeff".encode() * 500),
        ("t.txt", lambda: b"\xed\xa0\x80" * 200),
        ("t.txt", lambda: "é\u202e\U0001f600\x1b[2J".encode() * 900),
        ("t.txt", lambda: b"<|endoftext|>" * 500),
        ("t.txt", lambda: b"\r\n".join(rng.randbytes(3).hex().encode() for _ in range(900))),
        ("t.jsonl", lambda: b'{"text": "' + b"x" * (4 * MB) + b'"}'),
        ("t.jsonl", lambda: b"[" * 200_000),
        ("t.jsonl", lambda: b'{"text": 1e999}\n{"text": null}'),
        ("t.jsonl", lambda: b'{"text": "\\ud800"}\n' * 40),
        ("t.jsonl", lambda: json.dumps({"text": "a b c " * 40, "x": [[1]] * 9}).encode() * 3),
        ("t.jsonl", lambda: (json.dumps({"text": rng.choice(WORDS) + " word" * 9}) + "\n").encode() * 300),
        ("t.txt.gz", lambda: gzip.compress(b"a b" * (16 * MB) + b"\n" * MB, 1)),
        ("t.txt.gz", lambda: gzip.compress(b"ok text\n" * 999)[:-9]),
        ("t.txt.gz", lambda: torn(gzip.compress(b"ok text here\n" * 999), rng)),
        ("t.txt.gz", lambda: b"\x1f\x8b" + rng.randbytes(90)),
        ("t.jsonl.gz", lambda: gzip.compress(b'{"text": "' + b"x" * (4 * MB) + b'"}')),
        ("t.txt.zst", lambda: rng.randbytes(90)),
        ("t.txt", lambda: torn(b"peace and war and peace\n" * 300, rng)),
    ]
    assert "corpus" in KINDS
    whole = folder / "whole.txt"
    whole.write_text("war and peace\n" * 300, encoding="utf-8")
    for number in range(count):
        name, make = makers[number % len(makers)] if number < 2 * len(makers) else rng.choice(makers[:18] + makers[-1:])
        separator = rng.choice([None, "\n", "\n\n", "\x00", " ", "e"])
        if number < len(makers):
            separator = "\n"
        errors, length = rng.choice(["strict", "replace"]), rng.choice([1, 8, 64, 4096])
        tokenizer = Bpe(vocab=rng.choice([260, 300])) if rng.random() < 0.2 and number > 60 else Bytes()

        valid = rng.choice([None, [str(whole)]])  # without a file held out most have no document to hold out

        def act(
            name=name, make=make, separator=separator, errors=errors, length=length, tokenizer=tokenizer, number=number,
            valid=valid,
        ):  # fmt: skip
            for old in folder.glob("t.*"):
                old.unlink()
            file = folder / name
            file.write_bytes(make())
            corpus = Text(paths=[str(file)], valid=valid, separator=separator, errors=errors)
            made = Data(corpus, tokenizer, length).prepare(folder / f"cache{number}", workers=0)
            block = made.train[0]
            assert len(block) == length and block.min() >= 0 and block.max() < made.tokenizer.vocab
            made.train.text(0)

        yield f"text {number} ({name}, separator {separator!r}, {errors}, length {length})", act
