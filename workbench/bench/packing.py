"""Text to packed tokens: `workbench.data.packing` beside a loop over the tokenizer's library."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.core.bounds import Count
from workbench.data.base import Corpus, Split
from workbench.data.bpe import Bpe
from workbench.data.packing import pack
from workbench.data.storage import DataError
from workbench.data.workers import threads


@Benchmark.register("packing")
class Packing(Benchmark):
    """Documents to one stream of tokens on disk, by a byte-level BPE trained on them before the clock starts.

    *a loop* encodes one document after the other with the `tokenizers` library, appends the end token, and writes an
    array at the end, as data scripts do. *workbench* packs by chunks, in the library's threads or in processes, and
    leaves a journal that a killed packing goes on from.

    Settings:
        corpus: the text; its train split is packed
        copies: how often the corpus is read, so that start-up does not decide
        vocab: tokens of the BPE
        repeats: packings timed in a process
    """

    yardstick = "a loop"
    ways = (yardstick, "workbench")
    goals = (Goal("workbench", ratio=1.5),)
    usual = {"corpus": {"type": "sotu"}}

    def __init__(self, corpus: Corpus, copies: Count = 4, vocab: Count = 4096, repeats: Count = 3) -> None:
        """Keep the settings."""
        self.corpus, self.copies, self.vocab, self.repeats = corpus, copies, vocab, repeats

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A source file."""
        text = {"type": "text", "paths": [__file__], "separator": "\n\n"}
        return {"corpus": text, "copies": 2, "vocab": 300, "repeats": 1}

    def cases(self, way: str) -> Sequence[str]:
        """One."""
        return [f"{self.corpus.type_name} × {self.copies}"]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of a packing, MB of text a second, and processes that the workbench's way may start."""
        meter.settle()
        corpus, tokenizer = Repeated(self.corpus, self.copies), Bpe(vocab=self.vocab)
        try:
            tokenizer.train(self.corpus.documents("train"))
        except DataError as error:
            raise Absent(str(error)) from error
        size = self.copies * sum(len(text.encode()) for text in self.corpus.documents("train"))
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(Path(folder))
            engine, numbers = tokenizers.Tokenizer.from_file(str(Path(folder) / tokenizer.file)), itertools.count()

            def call() -> None:
                place = Path(folder) / str(next(numbers))
                if way == self.yardstick:
                    a_loop(corpus, engine, tokenizer.eos, place)
                else:
                    pack(corpus, tokenizer, "train", place)

            meter.begin()
            seconds = meter.seconds(call, self.repeats)
            peak = meter.peak_mb()
        own = {} if way == self.yardstick else {"processes": float(threads())}
        return {"seconds": seconds, "peak_mb": peak, "text_mb_per_second": size / 1e6 / seconds, **own}


class Repeated(Corpus):
    """A corpus several times over."""

    def __init__(self, corpus: Corpus, copies: int) -> None:
        """``copies`` of ``corpus``, one after the other."""
        self.corpus, self.copies, self.type_name = corpus, copies, corpus.type_name  # type: ignore[misc]

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        """All copies' documents."""
        every = itertools.chain.from_iterable(self.corpus.documents(split) for _ in range(self.copies))
        return itertools.islice(every, start, None)

    def digest(self) -> str:
        """The corpus's, and how often."""
        return f"{self.copies} × {self.corpus.digest()}"

    def count(self, split: Split) -> int | None:
        """As often as many."""
        count = self.corpus.count(split)
        return None if count is None else self.copies * count


def a_loop(corpus: Corpus, engine: tokenizers.Tokenizer, eos: int, file: Path) -> None:
    """Encode document after document, then write."""
    ids: list[int] = []
    for text in corpus.documents("train"):
        ids += engine.encode(text).ids
        ids.append(eos)
    np.array(ids, dtype=np.uint16).tofile(file)
