"""The ``data:`` section of a recipe: which text, which tokens, how long a block."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.core.bounds import Count
from workbench.core.part import Section
from workbench.data.base import Corpus, Progress, Split, Tokenizer
from workbench.data.packing import PROTOCOL, Tokens, pack, silent, versions
from workbench.data.storage import DataError, cache_folder, fingerprint, locked
from workbench.data.windows import Blocks

ORDER: tuple[Split, Split] = ("valid", "train")
"""The held-out split is packed first: it is the small one, so data without any fails before the long work."""


@dataclass(frozen=True)
class Prepared:
    """Data ready to train on. ``meta``: what was packed and how, plain data for a run's record.

    ``meta`` holds ``corpus`` and ``tokenizer`` (type, digest, vocab), ``protocol``, ``length``, ``seconds``
    and for ``train`` and ``valid``: documents, tokens, bytes, blocks, dropped_tokens. ``streams``: their folders.
    """

    tokenizer: Tokenizer
    train: Blocks
    valid: Blocks
    meta: dict[str, Any]
    streams: Mapping[str, str] = field(default_factory=dict)


class Data(Section):
    """Text, how it is cut into tokens, and the length of a block.

    Settings:
        corpus: the text.
        tokenizer: text to ids.
        length: tokens in a block: what the network sees at once.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, length: Count) -> None:
        """See Settings."""
        self.corpus, self.tokenizer, self.length = corpus, tokenizer, length

    def prepare(
        self,
        cache: str | Path | None = None,
        progress: Progress | None = None,
        workers: int | None = None,
        streams: Mapping[str, str] | None = None,
    ) -> Prepared:
        """Train the tokenizer and pack both splits, or find both in the cache.

        ``cache``: a folder; by default $WORKBENCH_CACHE, else ``cache/`` here. ``workers``: see ``pack``. ``streams``:
        those that another process has just prepared and checked; neither they nor the text are read again.

        Raises:
            DataError: text is missing, empty, too short for a block or no UTF-8; the cache cannot be written.
        """
        started = time.monotonic()
        place, tell = cache_folder(cache), progress or silent
        self._ready(place, tell)
        if streams is None:
            found = {split: pack(self.corpus, self.tokenizer, split, place, tell, workers) for split in ORDER}
        else:
            found = {split: Tokens(Path(streams[split])) for split in ORDER}
        valid, train = (Blocks(found[split].ids, self.length, self.tokenizer, split) for split in ORDER)
        meta = {
            "corpus": found["train"].meta["corpus"],
            "tokenizer": found["train"].meta["tokenizer"],
            "protocol": {**PROTOCOL, "blocks": "end to end, remainder dropped"},
            "length": self.length,
            "train": _summary(found["train"], train),
            "valid": _summary(found["valid"], valid),
            "seconds": round(time.monotonic() - started, 3),
        }
        folders = {split: str(tokens.folder.resolve()) for split, tokens in found.items()}
        return Prepared(self.tokenizer, train, valid, meta, folders)

    def _ready(self, place: Path, tell: Progress) -> None:
        """Train the tokenizer once for a corpus and its settings; the cache keeps it."""
        if self.tokenizer.ready:
            return
        folder = (
            place
            / "tokenizers"
            / fingerprint(
                {
                    "corpus": self.corpus.digest(),
                    "type": self.tokenizer.type_name,
                    "settings": self.tokenizer.as_data(),
                }
                | versions(corpus=self.corpus, tokenizer=self.tokenizer)
            )
        )
        path = folder / self.tokenizer.file
        if not path.is_file():
            with locked(folder, lambda owner: tell(f"waiting for {owner}", 0, None)):
                if not path.is_file():
                    self._train(tell)
                    self.tokenizer.save(folder)
        self.tokenizer.load(folder)

    def _train(self, tell: Progress) -> None:
        stage, total = "training the tokenizer", self.corpus.count("train")

        def watched() -> Any:
            for number, text in enumerate(self.corpus.documents("train")):
                tell(stage, number, total)
                yield text

        self.tokenizer.train(watched())
        if not self.tokenizer.ready:
            raise DataError(f"tokenizer `{self.tokenizer.type_name}` is not ready after training")


def _summary(tokens: Tokens, blocks: Blocks) -> dict[str, int]:
    meta = tokens.meta
    return {
        "documents": meta["documents"],
        "tokens": meta["tokens"],
        "bytes": meta["bytes"],
        "blocks": len(blocks),
        "dropped_tokens": blocks.dropped,
    }
