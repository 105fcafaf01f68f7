"""The contracts of data: a corpus yields documents, a tokenizer turns them into ids and back, byte for
byte."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from workbench.core.files import write_text
from workbench.core.part import Part
from workbench.data.storage import DataError

Split = Literal["train", "valid"]
SPLITS: tuple[Split, Split] = ("train", "valid")
END_OF_TEXT = "<|endoftext|>"
"""How tokenizer files call the end-of-document token. In a document the same letters are text like any
other."""

Ids = npt.NDArray[np.int64]
Progress = Callable[[str, int, "int | None"], None]
"""``progress(stage, done, total)``: documents done, of ``total`` where it is known. May raise to stop."""


class Corpus(Part, ABC, kind="corpus"):
    """Text in documents, in an order that never changes, in two splits that share nothing.

    ``answers``: its documents are puzzles, and it has the checker of their answers.
    """

    answers: ClassVar[bool] = False

    @abstractmethod
    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The documents of a split, from number ``start`` on.

        Raises:
            DataError: files are missing or hold no valid text, the network is needed and absent.
        """

    @abstractmethod
    def digest(self) -> str:
        """A hash of everything that decides the documents: packed tokens are found again by it."""

    @abstractmethod
    def count(self, split: Split) -> int | None:
        """Number of documents of a split where it is known without reading the text (for progress bars)."""


class Tokenizer(Part, ABC, kind="tokenizer"):
    """Text to ids and back. One id, ``eos``, ends a document and stands for no bytes.

    A document's text never makes ``eos``: the letters ``<|endoftext|>`` are encoded as letters.
    ``file``: name of the one file that holds all a trained tokenizer knows.
    """

    file: ClassVar[str]
    texts: ClassVar[tuple[str, ...]] = ()
    """Texts for its contract checks, where it does not take every text."""

    @abstractmethod
    def as_data(self) -> dict[str, Any]:
        """The settings that decide what training learns, plain data: a trained tokenizer is found again by
        them."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether it can encode: it needs no training, or was trained or loaded."""

    @property
    @abstractmethod
    def planned_vocab(self) -> int | None:
        """The vocabulary's size as far as the settings fix it, before any training; None where the text
        decides."""

    @property
    @abstractmethod
    def vocab(self) -> int:
        """Number of ids, ``eos`` among them.

        Raises:
            DataError: not known before training.
        """

    @property
    def eos(self) -> int:
        """Id of the end-of-document token: the last one, as in GPT-2."""
        return self.vocab - 1

    @property
    def space_before(self) -> bool:
        """Whether a word's token carries the space before it."""
        return len(self.encode(" the")) == len(self.encode("the"))

    @abstractmethod
    def train(self, documents: Iterable[str]) -> None:
        """Learn from the train split; the same documents give the same tokenizer. Nothing to do where
        ``ready``.

        Raises:
            DataError: the text is too small for the settings.
        """

    @abstractmethod
    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without ``eos``.

        Raises:
            DataError: not trained, or a text that has no UTF-8 form (lone surrogates).
        """

    @abstractmethod
    def pieces(self) -> list[bytes]:
        """The bytes each id stands for; ``eos`` b""."""

    @abstractmethod
    def state(self) -> bytes:
        """All that a trained tokenizer knows, the content of ``file``: UTF-8 text."""

    @abstractmethod
    def restore(self, state: bytes) -> None:
        """Take back what ``state`` gave.

        Raises:
            DataError: it is not such a state, or does not fit the settings.
        """

    # What follows is the same for all tokenizers.

    def encode(self, text: str) -> Ids:
        """Ids of a text, int64, without ``eos``."""
        return self.encode_many([text])[0]

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[Any]) -> bytes:
        """The bytes that ids stand for.

        Raises:
            DataError: an id outside the vocabulary.
        """
        pieces = self.pieces()
        numbers = np.asarray(ids).reshape(-1)
        if len(numbers) and (int(numbers.min()) < 0 or int(numbers.max()) >= len(pieces)):
            raise DataError(f"ids {numbers.min()} … {numbers.max()}: the vocabulary ends at {len(pieces) - 1}")
        return b"".join(pieces[i] for i in numbers.tolist())

    def decode(self, ids: Sequence[int] | npt.NDArray[Any], eos: str = "") -> str:
        """Text of ids. Bytes that are no UTF-8 become U+FFFD; ``eos`` is what the end-of-document id is shown
        as."""
        if not eos:
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        numbers = np.asarray(ids).reshape(-1)
        parts = np.split(numbers, np.flatnonzero(numbers == self.eos))
        return eos.join(self.decode(part) for part in parts)  # eos itself is the empty first id of later parts

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """How many bytes of text each id stands for, [vocab]; ``eos`` 0."""
        return np.array([len(piece) for piece in self.pieces()], dtype=np.int64)

    def digest(self) -> str:
        """Content hash: equal digests encode every text alike. Known once ``ready``."""
        return hashlib.sha256(self.type_name.encode() + b"\0" + self.state()).hexdigest()[:32]

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder (a run's); returns the file written."""
        path = Path(folder) / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.state().decode())
        return path

    def load(self, folder: str | Path) -> None:
        """Take over what ``save`` kept.

        Raises:
            DataError: the file is missing or is no such tokenizer.
        """
        path = Path(folder) / self.file
        if not path.is_file():
            raise DataError(f"no {self.type_name or type(self).__name__} tokenizer in {folder}: {self.file} is missing")
        try:
            self.restore(path.read_bytes())
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def require_states(self, states: int) -> None:
        """Check that a network with ``states`` token ids can read this tokenizer's.

        Raises:
            DataError: the vocabulary is larger.
        """
        if self.vocab > states:
            raise DataError(
                f"the tokenizer has {self.vocab} ids and the network {states} states: "
                f"give the network at least {self.vocab}, or the tokenizer a smaller vocabulary"
            )


def utf8(text: str) -> bytes:
    """UTF-8 bytes of a text.

    Raises:
        DataError: it holds a lone surrogate (half of a UTF-16 pair), which is no character.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"a document holds {text[error.start]!r} at character {error.start}, half of a "
            "surrogate pair and no text; mend the source, or read it with `errors: replace`"
        ) from error
