"""What every corpus and tokenizer must satisfy: run on any registered part, a plug-in's included.

``CHECKS`` maps a kind to a function from a part's class to a list of problems; none: the contract is met.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workbench.core.checks import run_checks
from workbench.data.base import END_OF_TEXT, SPLITS, Corpus, Tokenizer

TEXTS = [
    *(f"The {thing} of the state, no. {i}: {thing}s and states; we the people." for i, thing in enumerate("abcdefgh")),
    f"Letters like {END_OF_TEXT} are text. Ünïcode — “quotes”, σ ≥ 0, 漢字, 🙂; tabs\tand\nlines.",
    " ",
]
FIRST = 5
"""Documents of a corpus that are looked at."""


def check_tokenizer(part: type[Tokenizer]) -> list[str]:
    """Problems of a tokenizer, in words."""
    return run_checks(Tokenizer, part, (_round_trips, _is_kept))


def check_corpus(part: type[Corpus]) -> list[str]:
    """Problems of a corpus, in words. Its example must lie on this machine."""
    return run_checks(Corpus, part, (_documents,))


def _texts(tokenizer: Tokenizer) -> list[str]:
    return list(tokenizer.texts or TEXTS)


def _trained(tokenizer: Tokenizer) -> Tokenizer:
    if not tokenizer.ready:
        tokenizer.train(iter(_texts(tokenizer)))
    return tokenizer


def _round_trips(tokenizer: Tokenizer) -> Iterator[str]:
    """Ids below eos, which stand for the bytes of the text they were trained on."""
    planned = tokenizer.planned_vocab
    _trained(tokenizer)
    pieces, vocab, eos = tokenizer.pieces(), tokenizer.vocab, tokenizer.eos
    if not tokenizer.ready or planned not in (None, vocab):
        yield f"planned {planned} ids, trained to {vocab}, ready: {tokenizer.ready}"
    if len(pieces) != vocab or not 0 <= eos < vocab or pieces[eos] != b"":
        yield f"{len(pieces)} pieces for {vocab} ids; eos is {eos} and must stand for no bytes"
        return
    texts = _texts(tokenizer)
    for text, ids in zip(texts, tokenizer.encode_many(texts), strict=True):
        if ids.dtype != np.int64 or ids.ndim != 1 or ids.min() < 0 or ids.max() >= vocab or bool((ids == eos).any()):
            yield f"{text!r:.40} becomes {ids.dtype} {ids.tolist()[:8]}…, not int64 ids of the vocabulary without eos"
        elif tokenizer.decode_bytes(ids) != text.encode():
            yield f"{text!r:.40} comes back as {tokenizer.decode(ids)!r:.40}"


def _is_kept(tokenizer: Tokenizer) -> Iterator[str]:
    """``restore`` takes what ``state`` gave; equal tokenizers have equal digests."""
    state, digest, ids = _trained(tokenizer).state(), tokenizer.digest(), tokenizer.encode_many(_texts(tokenizer))
    tokenizer.restore(state)
    again = tokenizer.encode_many(_texts(tokenizer))
    if tokenizer.state() != state or tokenizer.digest() != digest:
        yield "restored from its state it has another state"
    if not all(np.array_equal(left, right) for left, right in zip(ids, again, strict=True)):
        yield "restored from its state it encodes otherwise"
    state.decode()


def _documents(corpus: Corpus) -> Iterator[str]:
    """Text in both splits, the same each time, from any start; as many as it says."""
    for split in SPLITS:
        texts = list(itertools.islice(corpus.documents(split), FIRST))
        if not texts or not all(isinstance(text, str) for text in texts):
            yield f"the split {split!r} holds no text"
        if list(itertools.islice(corpus.documents(split, 2), FIRST - 2)) != texts[2:]:
            yield f"documents({split!r}, 2) does not go on at number 2 of the documents from the start"
        if (count := corpus.count(split)) is not None and (min(count, FIRST) != len(texts)):
            yield f"count says {count} documents of {split!r}, of which {len(texts)} were found"
    if corpus.digest() != corpus.digest():
        yield "two digests of the same corpus differ"


CHECKS: dict[str, Callable[[Any], list[str]]] = {"tokenizer": check_tokenizer, "corpus": check_corpus}
"""Kind → contract check."""
