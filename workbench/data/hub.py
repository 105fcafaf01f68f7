"""Corpora from the Hugging Face hub: ``hub`` for any data set with a column of text, ``openwebtext`` ready to
use."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.core.bounds import Natural
from workbench.data.base import Corpus, Split
from workbench.data.files import hash_files
from workbench.data.storage import DataError, fingerprint

TIMEOUT = 20.0


@Corpus.register("hub")
class Hub(Corpus):
    """A data set of the Hugging Face hub, or of a local folder in its formats, one row a document.

    Needs ``pip install datasets``. Streamed to the packer: nothing but the packed tokens is kept. Without a
    network it works where the data set lies in the local cache and ``streaming: false`` is set, or from a
    local folder.

    Settings:
        name: the data set's name on the hub, or a local folder of parquet or JSON files.
        config: the name of its configuration, where it has several.
        split: the rows that are read.
        valid_split: the rows held out; without it the last ``hold_out`` rows of ``split`` are.
        hold_out: so many rows at the end are held out, where there is no ``valid_split``.
        rows: number of rows of ``split``, where the hub does not tell it (streaming cannot count from the
            end).
        column: the column with the text.
        revision: a commit or tag of the data set; without it the newest, whose commit is asked from the hub.
        streaming: false downloads the data set first (into the cache of Hugging Face).
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        split: str = "train",
        valid_split: str | None = None,
        hold_out: Natural = 10_000,
        rows: Natural = 0,
        column: str = "text",
        revision: str | None = None,
        streaming: bool = True,
    ) -> None:
        """See Settings."""
        self.name, self.config, self.split, self.valid_split = name, config, split, valid_split
        self.hold_out, self.known_rows, self.column = hold_out, rows, column
        self.revision, self.streaming = revision, streaming
        self._commit: str | None = None

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The rows of a split, in their order."""
        if self.valid_split is not None:
            rows = self._load(self.split if split == "train" else self.valid_split)
            yield from self._texts(rows.skip(start))
            return
        rows = self._load(self.split)
        first, stop = self._range(rows, split)
        number = first + start
        for text in self._texts(rows.skip(number).take(max(0, stop - number))):
            number += 1
            yield text
        if number < stop:
            raise DataError(f"{self._label} has fewer rows than {stop}: is `rows: {self.known_rows}` right?")

    def digest(self) -> str:
        """Hash of the name, the commit and the settings; of the files, for a local folder."""
        return fingerprint(
            {
                "corpus": "hub",
                "source": self._source(),
                "config": self.config,
                "split": self.split,
                "valid_split": self.valid_split,
                "hold_out": None if self.valid_split is not None else [self.hold_out, self.known_rows],
                "column": self.column,
            }
        )

    def count(self, split: Split) -> int | None:
        """Known where the number of rows is given."""
        if self.valid_split is not None or not self.known_rows:
            return None
        return self.hold_out if split == "valid" else self.known_rows - self.hold_out

    @property
    def _label(self) -> str:
        return f"data set {self.name!r}, split {self.split!r}"

    def _source(self) -> Any:
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
            named = zip(files, hash_files(files), strict=True)
            return [[path.relative_to(folder).as_posix(), found] for path, found in named]
        if self._commit is None:
            self._commit = newest_commit(self.name, self.revision)
        return [self.name, self._commit]

    def _load(self, split: str) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise DataError(f"corpus `{self.type_name}` needs `pip install datasets`") from error
        local = Path(self.name).expanduser().is_dir()
        commit = None if local else self._source()[1]
        try:
            return datasets.load_dataset(
                str(Path(self.name).expanduser()) if local else self.name,
                self.config,
                split=split,
                revision=commit,
                streaming=self.streaming,
            )
        except Exception as error:  # the library raises what its back ends raise
            raise DataError(
                f"data set {self.name!r} (config {self.config}, split {split!r}) cannot be loaded: {error}. "
                "Check the name and the network; offline, use a local folder, or a "
                "downloaded copy with `streaming: false`"
            ) from error

    def _range(self, rows: Any, split: Split) -> tuple[int, int]:
        """First row and the one behind the last of a split that shares its rows with the other."""
        total = self.known_rows
        if not total:
            known = rows.info.splits or {}
            total = (known[self.split].num_examples or 0) if self.split in known else 0
        if not total:
            raise DataError(
                f"{self._label}: without the number of rows the last {self.hold_out} cannot be held "
                "out; set `rows:`, or `valid_split:`, or `streaming: false`"
            )
        if total <= self.hold_out:
            raise DataError(f"{self._label} has {total} rows: `hold_out: {self.hold_out}` leaves none to train on")
        cut = total - self.hold_out
        return (0, cut) if split == "train" else (cut, total)

    def _texts(self, rows: Any) -> Iterator[str]:
        for number, row in enumerate(self._rows(rows)):
            text = row.get(self.column)
            if not isinstance(text, str):
                raise DataError(
                    f"{self._label}: no text in column {self.column!r} of row {number}; its columns: {', '.join(row)}"
                )
            yield text

    def _rows(self, rows: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from rows
        except Exception as error:  # the library raises what its back ends raise
            raise DataError(f"{self._label} broke off ({error}); run the same again, packing goes on") from error


@Corpus.register("openwebtext")
class OpenWebText(Corpus):
    """OpenWebText (Gokaslan & Cohen 2019), 8,013,769 documents, 40 GB; the last 100,000 are held out, as
    SEDD's successors do (MDLM's protocol). Needs a network, hours and about 18 GB of cache with the ``gpt2``
    tokenizer.

    Streaming reads past the train rows once more to come to those held out.

    Settings:
        revision: a commit of Skylion007/openwebtext on the hub; without it the newest.
        streaming: false downloads the data set first.
    """

    def __init__(self, revision: str | None = None, streaming: bool = True) -> None:
        """See Settings."""
        self.rows = Hub(
            "Skylion007/openwebtext",
            hold_out=100_000,
            rows=8_013_769,
            revision=revision,
            streaming=streaming,
        )

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """The pages, in the data set's order."""
        return self.rows.documents(split, start)

    def digest(self) -> str:
        """Hash of the data set's commit."""
        return self.rows.digest()

    def count(self, split: Split) -> int | None:
        """7,913,769 and 100,000."""
        return self.rows.count(split)


def newest_commit(name: str, revision: str | None) -> str:
    """The commit that a revision of a data set stands for: asked from the hub, else read from its local
    cache.

    A full commit is taken as it is, without asking.

    Raises:
        DataError: the hub cannot be reached and its cache has no such data set.
    """
    if revision is not None and len(revision) == 40 and set(revision) <= set("0123456789abcdef"):
        return revision
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DataError("corpora of the hub need `pip install datasets`")
    import huggingface_hub
    from huggingface_hub import constants

    try:
        return str(huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT).sha)
    except Exception as error:  # HTTP back ends differ in what they raise
        folder = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
        ref = folder / "refs" / (revision or "main")
        if ref.is_file():
            return ref.read_text().strip()
        raise DataError(
            f"data set {name!r}: the hub does not answer ({error}). Check the name and the network; "
            "offline, set `revision:` to a full commit of a copy in the local cache, or name a local folder"
        ) from error
