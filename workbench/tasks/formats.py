"""Raw files of downstream sets as documents, checked: what is wrong is refused with what was expected."""

from __future__ import annotations

import bz2
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.data.files import TWICE

Doc = dict[str, Any]


class Format:
    """A set: ``count`` documents of it are expected (0: any number), and how a file of it is read."""

    name: str
    count: int = 0
    expects: str

    def read(self, path: Path) -> list[Doc]:
        """The documents of a file.

        Raises:
            WorkbenchError: it cannot be read, is not of this format, or is not whole.
        """
        docs = list(self.documents(path))
        if not docs or (self.count and len(docs) != self.count):
            due = f"{self.count:,}" if self.count else "at least one"
            raise WorkbenchError(
                f"{path}: {len(docs):,} documents, and {self.name} has {due}: another split, or cut off. Expected "
                f"{self.expects}"
            )
        return docs

    def documents(self, path: Path) -> Iterator[Doc]:
        """One after the other."""
        raise NotImplementedError

    def wrong(self, path: Path, line: int, what: str) -> WorkbenchError:
        """An error at a line."""
        return WorkbenchError(f"{path}:{line}: {what}. Expected {self.expects}")

    def text(self, path: Path) -> list[str]:
        """The lines of a file (plain or ``.bz2``), which must be UTF-8, encoded once."""
        try:
            raw = path.read_bytes()
            text = (bz2.decompress(raw) if path.suffix == ".bz2" else raw).decode("utf-8-sig")
        except (OSError, ValueError) as error:  # a cut-off .bz2 and bytes that are no UTF-8 are ValueErrors
            raise WorkbenchError(f"{path} cannot be read ({error}). Expected {self.expects}") from error
        lines = text.replace("\r\n", "\n").split("\n")
        for number, line in enumerate(lines, start=1):
            if any(sign in line for sign in TWICE):
                raise self.wrong(path, number, "its characters were encoded twice")
        return lines[:-1] if lines[-1] == "" else lines

    def records(self, path: Path, fields: dict[str, type]) -> Iterator[tuple[int, Doc]]:
        """(line, the fields) of JSON lines."""
        for number, line in enumerate(self.text(path), start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise self.wrong(path, number, f"no JSON ({error})") from error
            for name, kind in fields.items():
                value = record.get(name) if isinstance(record, dict) else None
                if not isinstance(value, kind) or value == "":
                    raise self.wrong(path, number, f"no {kind.__name__} {name!r}")
            yield number, {name: record[name] for name in fields}


class Lambada(Format):
    """LAMBADA, OpenAI's variant (Paperno et al. 2016; Radford et al. 2019): the last word of a passage."""

    name, count = "lambada", 5153
    expects = 'lambada_test.jsonl of OpenAI\'s variant: 5,153 lines {"text": passage}, UTF-8'

    def documents(self, path: Path) -> Iterator[Doc]:
        """Fields: text."""
        for number, record in self.records(path, {"text": str}):
            words = record["text"].split(" ")
            if len(words) < 2 or not words[-1].strip():
                raise self.wrong(path, number, "a passage without a last word after a space")
            yield record


class HellaSwag(Format):
    """HellaSwag (Zellers et al. 2019), validation split: which of four endings, in the form of six lines a question.

    That form is lower-cased where the harness joins two fields and capitalises: figures differ a little.
    """

    name, count = "hellaswag", 10042
    expects = (
        "hellaswag_val_full.txt or .txt.bz2: 10,042 questions of six lines (context, number of the right ending 0 … 3, "
        "four endings), UTF-8"
    )

    def documents(self, path: Path) -> Iterator[Doc]:
        """Fields: query, choices, gold."""
        lines = self.text(path)
        for start in range(0, len(lines), 6):
            six = lines[start : start + 6]
            if len(six) < 6 or not all(six):
                raise self.wrong(path, start + 1, "fewer than six lines with text")
            if six[1] not in ("0", "1", "2", "3"):
                raise self.wrong(path, start + 2, f"{six[1]!r:.40} is no number of an ending")
            yield {"query": six[0], "choices": six[2:], "gold": int(six[1])}


class Piqa(Format):
    """PIQA (Bisk et al. 2020), validation split: which of two solutions; labels lie beside it in dev-labels.lst."""

    name, count = "piqa", 1838
    expects = "dev.jsonl, 1,838 lines {goal, sol1, sol2}, UTF-8, and dev-labels.lst beside it, as many lines of 0 or 1"

    def documents(self, path: Path) -> Iterator[Doc]:
        """Fields: goal, sol1, sol2, label."""
        beside = path.with_name(path.stem + "-labels.lst")
        labels = self.text(beside)
        records = list(self.records(path, {"goal": str, "sol1": str, "sol2": str}))
        if len(labels) != len(records):
            raise WorkbenchError(
                f"{beside}: {len(labels):,} labels of {len(records):,} questions. Expected {self.expects}"
            )
        for label, (number, record) in zip(labels, records, strict=True):
            if label.strip() not in ("0", "1"):
                raise self.wrong(beside, number, f"{label!r:.40} is no label")
            yield record | {"label": int(label)}


class Choices(Format):
    """Multiple choice of one's own."""

    name = "choices"
    expects = 'JSON lines {"query": text, "choices": [texts], "gold": number of the right one}, UTF-8'

    def documents(self, path: Path) -> Iterator[Doc]:
        """Fields: query, choices, gold."""
        for number, record in self.records(path, {"query": str, "choices": list, "gold": int}):
            choices = record["choices"]
            if len(choices) < 2 or not all(isinstance(choice, str) and choice for choice in choices):
                raise self.wrong(path, number, "fewer than two choices that are text")
            if not 0 <= record["gold"] < len(choices):
                raise self.wrong(path, number, f"gold {record['gold']} is none of {len(choices)} choices")
            yield record


FORMATS: dict[str, Format] = {one.name: one for one in (Lambada(), HellaSwag(), Piqa(), Choices())}
