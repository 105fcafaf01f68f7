"""The sets of the published tables, each in its usual forms: LAMBADA, WikiText-2, WikiText-103, PTB, 1BW."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from workbench.data.storage import DataError
from workbench.metrics.sets import EvalSet, Ids, Rows
from workbench.sets import detokenise
from workbench.sets.reading import OnHub, Whole, files_of, hub_rows, require_whole, rows_of

HEADING = re.compile(r" = [^=](?:.*[^=])? = ")
"""The line that an article of WikiText begins with; sections have more signs."""
USUAL = "usual"


class Published(EvalSet):
    """A set of the published tables.

    ``title`` and ``unit``: its name, and what a row of it is called. ``wholes``: what a whole split has, by split.
    ``reported``: the split that a protocol reports, by the protocol's name, under "" that of any other. ``hub``: where
    it lies there.
    """

    title: ClassVar[str]
    unit: ClassVar[str] = "lines"
    wholes: ClassVar[Mapping[str, Sequence[Whole]]]
    reported: ClassVar[Mapping[str, str]] = {"": "test", "mdlm": "valid"}
    hub: ClassVar[OnHub | None] = None

    def __init__(
        self, path: str | None = None, split: Literal["usual", "train", "valid", "test"] = "usual", whole: bool = True
    ) -> None:
        """Keep the settings."""
        self.path, self.split, self.whole = path, split, whole

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A file that is nowhere: each set is read from made-up files in tests."""
        return {"path": "sets/none"}

    def rows(self, protocol: str) -> Rows:
        """Read, checked, detokenised."""
        usual = self.reported.get(protocol, self.reported[""])
        split = usual if self.split == USUAL else self.split
        where, raw = self._read(split)
        if self.whole:
            require_whole(raw, split, self.wholes, where, self.title, self.unit)
        elif not any(raw):
            raise DataError(f"{where} holds no text")
        remarks = [] if split == usual else [f"{split} split; figures published by protocol {protocol} are of {usual}"]
        remarks += [] if self.whole else ["an excerpt, not held against the whole set"]
        remarks += self.remarks(raw)
        return Rows(
            [self.written(self.row(row)) for row in raw],
            self.groups(raw),
            f"{self.title}, {split} split, {len(raw):,} {self.unit}",
            "; ".join(remarks),
        )

    def row(self, text: str) -> str:
        """A row as the published code gets it."""
        return text.strip()

    @abstractmethod
    def written(self, row: str) -> str:
        """A row as text is written: detokenised."""

    def groups(self, rows: Sequence[str]) -> Ids:
        """Which rows are of one article or book: each its own."""
        return np.arange(len(rows))

    def remarks(self, rows: Sequence[str]) -> list[str]:
        """What is to be said of this form of the set."""
        return []

    def _read(self, split: str) -> tuple[str, list[str]]:
        if self.path is None:
            return f"{self.title} on the hub", hub_rows(self.hub, split, self.title)
        files = files_of(self.path, split)
        where = str(files[0]) if len(files) == 1 else f"{len(files)} files of {self.path}"
        return where, [row for file in files for row in rows_of(file)]


@EvalSet.register("lambada")
class Lambada(Published):
    """LAMBADA (Paperno et al. 2016) in OpenAI's form, ``lambada_test.jsonl``: 5,153 whole passages, not last words.

    Settings:
        path: the file, or a folder that holds it; left out, it is read from the hub (``EleutherAI/lambada_openai``).
        split: it has a test split alone, under any protocol.
        whole: false takes an excerpt, and says so in the note.
    """

    title, unit = "LAMBADA (OpenAI's form)", "passages"
    wholes: ClassVar[Mapping[str, Sequence[Whole]]] = {"test": [Whole(5_153, 305_998)]}
    reported: ClassVar[Mapping[str, str]] = {"": "test"}
    hub = OnHub("EleutherAI/lambada_openai", "default")

    def written(self, row: str) -> str:
        """Detokenised."""
        return detokenise.lambada(row)


class WikiText(Published):
    """WikiText, lines with their ends as rows, articles as groups."""

    def written(self, row: str) -> str:
        """Detokenised."""
        return detokenise.wikitext(row)

    def row(self, text: str) -> str:
        """A line with its break, nothing for an empty one: the form of the hub's copy."""
        return text.removesuffix("\n") + "\n" if text.strip() else ""

    def groups(self, rows: Sequence[str]) -> Ids:
        """Articles: each begins at a heading of the first order between two empty lines."""
        lines = [row.removesuffix("\n") for row in rows]
        around = [True, *(not line.strip() for line in lines), True]
        opens = [bool(HEADING.fullmatch(line)) and around[i] and around[i + 2] for i, line in enumerate(lines)]
        return np.cumsum(opens)

    def remarks(self, rows: Sequence[str]) -> list[str]:
        """Whether words were replaced."""
        replaced = sum(row.count("<unk>") for row in rows)
        return [f"{replaced:,} words stand as <unk>; published figures are of the raw form"] if replaced else []


@EvalSet.register("wikitext2")
class WikiText2(WikiText):
    """WikiText-2 (Merity et al. 2017), raw: ``wiki.test.raw`` or the hub's parquet; ``.tokens`` with a remark.

    SEDD's protocol reports its train split, because its test split is that of WikiText-103.

    Settings:
        path: the file, or a folder that holds it; left out, it is read from the hub (``Salesforce/wikitext``).
        split: ``usual`` takes the one that the protocol reports: of ``sedd`` train, of ``mdlm`` valid, else test.
        whole: false takes an excerpt, and says so in the note.
    """

    title = "WikiText-2"
    wholes: ClassVar[Mapping[str, Sequence[Whole]]] = {
        "train": [Whole(36_718, 2_051_910)], "valid": [Whole(3_760, 213_886)], "test": [Whole(4_358, 241_211)],
    }  # fmt: skip
    reported: ClassVar[Mapping[str, str]] = {"": "test", "sedd": "train", "mdlm": "valid"}
    hub = OnHub("Salesforce/wikitext", "wikitext-2-raw-v1")


@EvalSet.register("wikitext103")
class WikiText103(WikiText):
    """WikiText-103 (Merity et al. 2017), raw: as `WikiText2`, whose valid and test articles it shares.

    Settings:
        path: the file, or a folder that holds it; left out, it is read from the hub (``Salesforce/wikitext``).
        split: ``usual`` takes the one that the protocol reports: of ``mdlm`` valid, else test.
        whole: false takes an excerpt, and says so in the note.
    """

    title = "WikiText-103"
    wholes: ClassVar[Mapping[str, Sequence[Whole]]] = {
        "train": [Whole(1_801_350, 101_425_671)], "valid": [Whole(3_760, 213_886)], "test": [Whole(4_358, 241_211)],
    }  # fmt: skip
    hub = OnHub("Salesforce/wikitext", "wikitext-103-raw-v1")


@EvalSet.register("ptb")
class Ptb(Published):
    """The Penn Treebank in Mikolov's form (``ptb.test.txt``): a sentence a line, lower case, ``<unk>`` and ``N``.

    Settings:
        path: the file, or a folder that holds it.
        split: ``usual`` takes the one that the protocol reports: of ``mdlm`` valid, else test.
        whole: false takes an excerpt, and says so in the note.
    """

    title, unit = "PTB (Mikolov's form)", "sentences"
    wholes: ClassVar[Mapping[str, Sequence[Whole]]] = {
        "train": [Whole(42_068, 887_521)], "valid": [Whole(3_370, 70_390)], "test": [Whole(3_761, 78_669)],
    }  # fmt: skip

    def written(self, row: str) -> str:
        """Detokenised."""
        return detokenise.ptb(row)


@EvalSet.register("lm1b")
class Lm1b(Published):
    """The One Billion Word Benchmark (Chelba et al. 2014), sentences in no order: its standard test shard
    (``news.en.heldout-00000-of-00050``), or all 50 held-out shards, which are the hub's test split.

    Settings:
        path: the file, or a folder that holds it or all shards.
        split: it has a test split alone, under any protocol.
        whole: false takes an excerpt, and says so in the note.
    """

    title, unit = "1BW", "sentences"
    wholes: ClassVar[Mapping[str, Sequence[Whole]]] = {"test": [Whole(6_075, 153_583), Whole(306_688)]}
    reported: ClassVar[Mapping[str, str]] = {"": "test"}

    def written(self, row: str) -> str:
        """Detokenised."""
        return detokenise.lm1b(row)
