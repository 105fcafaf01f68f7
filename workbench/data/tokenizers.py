"""Tokenizers without merges: ``bytes``, ``chars`` and ``ids``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from workbench.core.bounds import Count
from workbench.data.base import Ids, Tokenizer, utf8
from workbench.data.storage import DataError

BYTES = [bytes([value]) for value in range(256)]
UNKNOWN = "\x1a"
"""ASCII's own "substitute" character: what an unknown character decodes to. One byte, so that it is never
counted as more text than it stood for."""
LAST_CODE_POINT = 0x10FFFF


@Tokenizer.register("bytes")
class Bytes(Tokenizer):
    """UTF-8 bytes as ids 0 … 255, and 256 for the end of a document. Needs no training."""

    file = "bytes.json"

    def as_data(self) -> dict[str, Any]:
        """No settings."""
        return {}

    @property
    def ready(self) -> bool:
        """Always."""
        return True

    @property
    def planned_vocab(self) -> int:
        """257."""
        return self.vocab

    @property
    def vocab(self) -> int:
        """257."""
        return len(BYTES) + 1

    def train(self, documents: Iterable[str]) -> None:
        """Nothing to learn."""

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Bytes of each text."""
        return [np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int64) for text in texts]

    def pieces(self) -> list[bytes]:
        """Each byte, and nothing for ``eos``."""
        return [*BYTES, b""]

    def state(self) -> bytes:
        """A note: there is nothing to keep."""
        return b'{"tokenizer": "bytes"}\n'

    def restore(self, state: bytes) -> None:
        """Nothing to take back; refuses the file of another tokenizer."""
        if state.strip() != self.state().strip():
            raise DataError("this is no file of the `bytes` tokenizer")


@Tokenizer.register("chars")
class Chars(Tokenizer):
    """Characters of the train split, one id each, in order of code points.

    Settings:
        unknown: what a character outside the alphabet becomes. ``bytes``: its UTF-8 bytes, which are ids too,
            so that every text round-trips (vocabulary: all bytes, the alphabet's characters above ASCII,
            eos). ``unk``: one id for all unknown characters; it decodes to U+001A and counts one byte
            (vocabulary: the alphabet, unk, eos).
        alphabet: the characters, where they are not to be learned (text8: a space and a … z).
    """

    file = "chars.json"

    def __init__(self, unknown: Literal["bytes", "unk"] = "bytes", alphabet: str | None = None) -> None:
        """See Settings."""
        self.unknown = unknown
        self._pieces: list[bytes] = []
        self._ids: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        if alphabet is not None:
            self._take(alphabet)

    def as_data(self) -> dict[str, Any]:
        """What becomes of unknown characters."""
        return {"unknown": self.unknown}

    @property
    def ready(self) -> bool:
        """Whether the alphabet is known."""
        return bool(self._pieces)

    @property
    def planned_vocab(self) -> int | None:
        """Known with a given alphabet."""
        return len(self._pieces) or None

    @property
    def vocab(self) -> int:
        """Number of ids."""
        self._require()
        return len(self._pieces)

    def train(self, documents: Iterable[str]) -> None:
        """Collect the characters of the documents; a given alphabet stays as it is."""
        if self.ready:
            return
        seen: set[str] = set()
        for text in documents:
            seen.update(text)
        self._take("".join(seen))

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text's characters."""
        self._require()
        return [self._encode(text) for text in texts]

    def pieces(self) -> list[bytes]:
        """UTF-8 of each character."""
        self._require()
        return self._pieces

    def state(self) -> bytes:
        """The alphabet and what becomes of unknown characters, as JSON."""
        self._require()
        known = [chr(code) for code in np.flatnonzero(self._ids >= 0).tolist()]
        return json.dumps({"tokenizer": "chars", "unknown": self.unknown, "alphabet": "".join(known)}).encode() + b"\n"

    def restore(self, state: bytes) -> None:
        """Take an alphabet back; the setting ``unknown`` must be the one it was saved with."""
        try:
            kept = json.loads(state)
            unknown, alphabet = kept["unknown"], kept["alphabet"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("this is no file of the `chars` tokenizer") from error
        if unknown != self.unknown:
            raise DataError(f"it was made with `unknown: {unknown}`, the recipe says `{self.unknown}`")
        self._take(alphabet)

    def _require(self) -> None:
        if not self._pieces:
            raise DataError("the `chars` tokenizer has no alphabet yet: train or load it, or set `alphabet:`")

    def _take(self, alphabet: str) -> None:
        """Lay the ids out: (all bytes | nothing), then the other characters, then (unk), then eos."""
        characters = sorted(set(alphabet))
        utf8("".join(characters))
        ids = np.full(LAST_CODE_POINT + 1, -1, dtype=np.int32)
        pieces: list[bytes] = []
        if self.unknown == "bytes":  # an ASCII character is its byte
            pieces, ids[:128] = list(BYTES), np.arange(128)
        for character in characters:
            if ids[ord(character)] < 0:
                ids[ord(character)] = len(pieces)
                pieces.append(character.encode())
        if self.unknown == "unk":
            pieces.append(UNKNOWN.encode())
        self._pieces, self._ids = [*pieces, b""], ids

    def _encode(self, text: str) -> Ids:
        try:
            codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        except UnicodeEncodeError:
            utf8(text)  # raises with the reason
            raise
        ids = self._ids[codes].astype(np.int64)
        strangers = np.flatnonzero(ids < 0)
        if not len(strangers):
            return ids
        if self.unknown == "unk":
            ids[strangers] = self.vocab - 2
            return ids
        parts: list[Ids] = []
        done = 0
        for place in strangers.tolist():
            spelled = np.frombuffer(text[place].encode(), dtype=np.uint8).astype(np.int64)
            parts += [ids[done:place], spelled]
            done = place + 1
        return np.concatenate([*parts, ids[done:]])


@Tokenizer.register("ids")
class Numbers(Tokenizer):
    """Text that is ids already: decimal numbers with white space between them, for data that is no prose and for
    published weights of any vocabulary.

    Numbers one space apart, and a space behind the last, come back as they were.

    Settings:
        vocab: number of ids; the last ends a document and may not stand in one.
    """

    file = "ids.json"
    texts = ("0 1 2 ", "3 ", "5 5 0 4 ")

    def __init__(self, vocab: Count) -> None:
        """See Settings."""
        self.size = vocab

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A few ids."""
        return {"vocab": 8}

    def as_data(self) -> dict[str, Any]:
        """The vocabulary."""
        return {"vocab": self.size}

    @property
    def ready(self) -> bool:
        """Always."""
        return True

    @property
    def planned_vocab(self) -> int:
        """The setting ``vocab``."""
        return self.size

    @property
    def vocab(self) -> int:
        """The setting ``vocab``."""
        return self.size

    @property
    def space_before(self) -> bool:
        """The space stands behind a number."""
        return False

    def train(self, documents: Iterable[str]) -> None:
        """Nothing to learn."""

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """The numbers of each text.

        Raises:
            DataError: something that is no id, or the last one.
        """
        return [np.array([self._id(word) for word in text.split()], dtype=np.int64) for text in texts]

    def pieces(self) -> list[bytes]:
        """Each number and a space, nothing for ``eos``."""
        return [*(f"{number} ".encode() for number in range(self.size - 1)), b""]

    def state(self) -> bytes:
        """The vocabulary, as JSON."""
        return json.dumps({"tokenizer": "ids", "vocab": self.size}).encode() + b"\n"

    def restore(self, state: bytes) -> None:
        """Nothing to take back; refuses another vocabulary."""
        if state.strip() != self.state().strip():
            raise DataError(f"this is no file of the `ids` tokenizer with `vocab: {self.size}`")

    def _id(self, word: str) -> int:
        if not (word.isascii() and word.isdigit() and int(word) < self.size - 1):
            raise DataError(
                f"{word!r:.40} is no id of a document: those are 0 … {self.size - 2} ({self.size - 1} ends one; "
                "tokenizer `ids`, setting `vocab`)"
            )
        return int(word)
