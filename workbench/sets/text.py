"""Any text as an evaluation set."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.data.files import TextFormat, find_files, read_documents
from workbench.data.storage import DataError
from workbench.metrics.sets import EvalSet, Rows


@EvalSet.register("text")
class TextSet(EvalSet):
    """Your own text: a file, or a folder with all its text files, read as the corpus ``text`` reads them.

    Settings:
        path: the file or folder.
        separator: the text between two documents of one file ("\\n": a document a line); without it a file is one.
        field: the text's name in the objects of ``.jsonl`` files.
        documents: how many there are, where that is known: any other number is refused.
    """

    def __init__(
        self, path: str, separator: str | None = None, field: str = "text", documents: int | None = None
    ) -> None:
        """Keep the settings."""
        self.path, self.documents = path, documents
        self.format = TextFormat(separator=separator or None, field=field)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """This very file."""
        return {"path": __file__, "separator": "\n\n"}

    def rows(self, protocol: str) -> Rows:
        """The documents, empty ones left out."""
        texts = [text for file in find_files([self.path]) for text in read_documents(file, self.format)]
        if not texts or self.documents not in (None, len(texts)):
            due = "at least one" if self.documents is None else f"{self.documents:,}"
            raise DataError(f"{self.path}: {len(texts):,} documents, where {due} are due: another text, or cut off")
        return Rows(texts, np.arange(len(texts)), f"{len(texts):,} documents of {self.path}")
