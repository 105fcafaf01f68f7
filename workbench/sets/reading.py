"""Files of evaluation sets: which file of a folder it is, its rows, and whether it is the whole set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.data.files import LINES_OF_JSON, PACKED, TWICE, TextFormat, read_documents
from workbench.data.hub import Hub
from workbench.data.storage import DataError

Split = Literal["train", "valid", "test"]
WORDS: Mapping[str, Sequence[str]] = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test", "heldout")}
"""What the names of a split's files hold."""
ENDINGS = (".raw", ".parquet", *LINES_OF_JSON, ".txt", "", ".tokens")
"""Endings of files, the ones to take first before others; of compressed files the ending below the last."""
COLUMNS = ("text", "sentence")
"""What the column of text is called in usual copies."""


@dataclass(frozen=True)
class Whole:
    """How many rows and words (pieces between ASCII white space) a whole file has; ``words`` 0: not known."""

    rows: int
    words: int = 0

    def fits(self, other: Whole) -> bool:
        """Whether that is what was found."""
        return self.rows == other.rows and self.words in (0, other.words)

    def told(self, unit: str) -> str:
        """In words."""
        return f"{self.rows:,} {unit}" + (f" of {self.words:,} words" if self.words else "")


@dataclass(frozen=True)
class OnHub:
    """Where a set lies on the hub."""

    name: str
    config: str | None = None
    column: str = "text"


def files_of(path: str, split: str) -> list[Path]:
    """The file named, or a folder's files of a split: those with the first of `ENDINGS` that there is.

    Raises:
        DataError: nothing is there, or nothing of this split.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"no file or folder {path!r} (looked for it at {place.absolute()}); `path` names the set's own")
    there = sorted(file for file in place.iterdir() if file.is_file() and not file.name.startswith("."))
    for ending in ENDINGS:
        found = [file for file in there if _ending(file) == ending and any(w in file.name for w in WORDS[split])]
        if found:
            return found
    names = ", ".join(file.name for file in there[:8]) or "no files"
    raise DataError(
        f"folder {path} holds no file of the {split} split (its name would hold {' or '.join(WORDS[split])}): {names}. "
        "Set `split`, or name the file"
    )


def rows_of(file: Path) -> list[str]:
    """The rows of a file in their order, empty lines among them: lines, or the texts of JSON lines or parquet.

    Raises:
        DataError: it cannot be read, is no UTF-8, or was encoded twice.
    """
    if _ending(file) == ".parquet":
        rows = _parquet(file)
    elif _ending(file) in LINES_OF_JSON:
        rows = list(read_documents(file, TextFormat()))
    else:
        text = "".join(read_documents(file, TextFormat())).replace("\r\n", "\n")
        rows = text.removesuffix("\n").split("\n") if text else []
    for number, row in enumerate(rows, start=1):
        if any(sign in row for sign in TWICE):
            raise DataError(f"{file}, row {number}: its characters were encoded twice; fetch the set again")
    return rows


def hub_rows(place: OnHub | None, split: str, what: str) -> list[str]:
    """The rows of a split on the hub, or in its local cache.

    Raises:
        DataError: it does not lie there in a form that can be read, the network or the package `datasets` is absent.
    """
    if place is None:
        raise DataError(f"{what} is not read from the hub (its copy there is a program); set `path` to its files")
    name = {"valid": "validation"}.get(split, split)
    copy = Hub(place.name, place.config, split=name, valid_split=name, column=place.column)
    return list(copy.documents("valid"))


def require_whole(
    rows: Sequence[str], split: str, wholes: Mapping[str, Sequence[Whole]], where: str, what: str, unit: str
) -> None:
    """Check that ``rows`` are a whole split.

    Raises:
        DataError: they are another split, cut off or another version; what was expected and what was found.
    """
    found = Whole(len(rows), sum(len(row.encode().split()) for row in rows))
    due = wholes.get(split, ())
    if any(whole.fits(found) for whole in due):
        return
    if not due:
        raise DataError(f"{what} has no {split} split (it has: {', '.join(wholes)}); set `split`")
    other = next((name for name, known in wholes.items() if any(whole.fits(found) for whole in known)), "")
    why = (
        f"this is its {other} split: set `split: {other}`, or name the other file"
        if other
        else "cut off, or another version; fetch it again, or set `whole: false` to take it as an excerpt"
    )
    raise DataError(
        f"{where}: {found.told(unit)}, and the {split} split of {what} has "
        f"{' or '.join(whole.told(unit) for whole in due)}: {why}"
    )


def _ending(file: Path) -> str:
    name = file.name
    for packed in PACKED:
        name = name.removesuffix(packed)
    ending = Path(name).suffix.lower()
    return ending if ending in ENDINGS else ""


def _parquet(file: Path) -> list[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{file}: reading parquet needs `pip install pyarrow`") from error
    try:
        table = parquet.read_table(file)
    except (OSError, ArrowException) as error:
        raise DataError(f"{file} is damaged or cut off ({error})") from error
    column = next((name for name in COLUMNS if name in table.column_names), None)
    if column is None:
        raise DataError(f"{file}: no column {' or '.join(COLUMNS)}; it holds: {', '.join(table.column_names)}")
    rows = table.column(column).to_pylist()
    if not all(isinstance(row, str) for row in rows):
        raise DataError(f"{file}: column {column!r} holds what is no text")
    return list(rows)
