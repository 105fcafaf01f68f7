"""What no model wrote, measured like samples: held-out texts with their words shuffled, tokens drawn independently.

Beside real text they say what a figure, or a judge, can tell apart: one that shuffled words pass as text sees no order.
Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.core.rng import Rng
from workbench.metrics.value import INDEPENDENT, SHUFFLED

if TYPE_CHECKING:
    from workbench.metrics.evidence import Evidence, Texts

Ints = npt.NDArray[np.int64]


def word_starts(pieces: Iterable[bytes], eos: int) -> npt.NDArray[np.bool_]:
    """Which ids begin a word, [V]: those whose bytes begin with white space, and the end of a document."""
    return np.array([piece[:1].isspace() or id == eos for id, piece in enumerate(pieces)], dtype=bool)


def shuffled_words(tokens_NL: Ints, starts_V: npt.NDArray[np.bool_], rng: Rng) -> Ints:
    """The tokens of each sequence with its words in another order, the tokens of a word side by side.

    What stands before the first word of a sequence stays there; where none begins, every token is a word.
    """
    tokens = np.asarray(tokens_NL, dtype=np.int64)
    starts_NL = starts_V[tokens]
    starts_NL[~starts_NL.any(axis=1)] = True
    lots_NL = rng.uniform("words", 0, np.arange(len(tokens)), tokens.shape[1])
    first_NL = np.maximum.accumulate(np.where(starts_NL, np.arange(tokens.shape[1]), -1), axis=1)
    place_NL = np.where(first_NL < 0, -1.0, np.take_along_axis(lots_NL, np.maximum(first_NL, 0), axis=1))
    return np.take_along_axis(tokens, np.argsort(place_NL, axis=1, kind="stable"), axis=1)


def independent_tokens(tokens_NL: Ints, rng: Rng) -> Ints:
    """As many tokens, each drawn by itself from the frequencies of all of them together."""
    tokens = np.asarray(tokens_NL, dtype=np.int64)
    lots_NL = rng.uniform("tokens", 0, np.arange(len(tokens)), tokens.shape[1])
    return tokens.ravel()[(lots_NL * tokens.size).astype(np.int64)]


def shuffled_texts(texts: Texts) -> Texts:
    """Texts with the words of each in another order, the same for every call: as text, without ids."""
    rng = np.random.default_rng(0)
    words = [" ".join(rng.permutation(text.split()).tolist()) for text in texts.texts]
    return replace(texts, texts=words, tokenizer="")


def calibrated(
    evidence: Evidence, figure: Callable[[Texts], float], names: Iterable[str] = (SHUFFLED, INDEPENDENT)
) -> dict[str, float]:
    """``figure`` of each of the calibration texts that this evidence holds; one that is nan of a text is left out."""
    found = {name: figure(evidence.calibration[name]) for name in names if name in evidence.calibration}
    return {name: value for name, value in found.items() if not math.isnan(value)}
