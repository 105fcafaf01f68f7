"""What no model wrote: words shuffled whole, tokens drawn by frequency, and the rows in which it stands."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest

from workbench.core.rng import Rng
from workbench.data.tokenizers import Bytes
from workbench.evaluate import texts_of
from workbench.metrics.base import Drawn, Evidence
from workbench.metrics.calibration import calibrated, independent_tokens, shuffled_words, word_starts
from workbench.metrics.contract import ByLetter
from workbench.metrics.diversity import KnownWords, Repetition, UnigramEntropy
from workbench.metrics.judged import JudgePerplexity
from workbench.metrics.value import INDEPENDENT, SHUFFLED, Value

TOKENIZER = Bytes()
STARTS = word_starts(TOKENIZER.pieces(), TOKENIZER.eos)
TEXTS = ("ple of the state and the union", " one two three four five six s")


def tokens() -> np.ndarray:
    return np.stack([TOKENIZER.encode(text) for text in TEXTS])


def evidence() -> Evidence:
    real, rng = texts_of(tokens(), TOKENIZER), Rng(3)
    made = {SHUFFLED: shuffled_words(tokens(), STARTS, rng), INDEPENDENT: independent_tokens(tokens(), rng)}
    return Evidence(
        samples=Drawn(real.tokens_NL, real.texts),
        real=real,
        calibration=lambda: {name: texts_of(rows, TOKENIZER) for name, rows in made.items()},
        judge=ByLetter(),
        known_words=frozenset({"state"}),
    )


def test_words_stay_whole_and_the_cut_one_stays_first() -> None:
    rows = shuffled_words(tokens(), STARTS, Rng(3))
    for row, text in zip(rows, TEXTS, strict=True):
        new = TOKENIZER.decode(row)
        assert new != text and Counter(new.split(" ")) == Counter(text.split(" "))
    assert TOKENIZER.decode(rows[0]).startswith("ple ")
    assert np.array_equal(rows, shuffled_words(tokens(), STARTS, Rng(3)))
    assert not np.array_equal(rows, shuffled_words(tokens(), STARTS, Rng(4)))
    alone = shuffled_words(tokens()[:1], STARTS, Rng(3))
    assert np.array_equal(alone[0], rows[0])  # a text's lots do not depend on the others


def test_every_order_of_words_is_as_likely() -> None:
    text = np.repeat(TOKENIZER.encode(" a bb ccc")[None], 3000, 0)
    found = Counter(TOKENIZER.decode(row) for row in shuffled_words(text, STARTS, Rng(0)))
    assert len(found) == 6
    assert sum((count - 500) ** 2 / 500 for count in found.values()) < 20.5  # chi-squared, 5 degrees, p = 0.001


def test_without_white_space_every_token_is_a_word() -> None:
    digits = TOKENIZER.encode("1234567890")[None]
    (row,) = shuffled_words(digits, STARTS, Rng(0))
    assert sorted(row) == sorted(digits[0]) and not np.array_equal(row, digits[0])


def test_a_document_begins_behind_its_end() -> None:
    ids = np.concatenate([TOKENIZER.encode(" of it"), [TOKENIZER.eos], TOKENIZER.encode("The end")])[None]
    found = {TOKENIZER.decode(shuffled_words(ids, STARTS, Rng(seed))[0], eos="|") for seed in range(20)}
    assert len(found) > 5
    assert all("|The" in text for text in found)


def test_independent_tokens_have_the_frequencies_of_all_texts() -> None:
    rows = np.array([[0, 0, 0, 1], [1, 2, 2, 2]]).repeat(2000, 1)
    counts = np.bincount(independent_tokens(rows, Rng(1)).ravel())
    due = np.array([6000, 4000, 6000])
    assert np.square(counts - due).sum() / 5000 < 14  # chi-squared, 2 degrees
    by_row = [np.bincount(row, minlength=3) for row in independent_tokens(rows, Rng(1))]
    assert all(abs(count[0] / 8000 - 0.375) < 0.03 for count in by_row)  # no longer of one text


def test_figures_of_calibration_texts() -> None:
    found = evidence()
    (entropy,) = UnigramEntropy()(found)
    assert entropy.calibration[SHUFFLED] == pytest.approx(entropy.real)  # no order in it
    assert entropy.calibration[INDEPENDENT] != pytest.approx(entropy.real)
    (repeats,) = Repetition((3,))(found)
    assert set(repeats.calibration) == {SHUFFLED, INDEPENDENT}
    (words,) = KnownWords()(found)
    whole = found.calibration[SHUFFLED].texts
    assert whole[0].count("state") == 1
    assert 0 <= words.calibration[SHUFFLED] <= 1


def test_a_judge_reads_shuffled_words_only() -> None:
    found = evidence()
    whole, mean = JudgePerplexity()(found)
    nats = [np.log(2.0 + np.frombuffer(text.encode(), np.uint8) % 8) for text in found.calibration[SHUFFLED].texts]
    assert whole.calibration == {SHUFFLED: pytest.approx(math.exp(np.concatenate(nats).mean()))}
    assert mean.calibration == {SHUFFLED: pytest.approx(math.exp(np.mean([one.mean() for one in nats])))}
    assert whole.extra["bits_per_byte_shuffled"] == pytest.approx(np.concatenate(nats).mean() / math.log(2))


def test_without_calibration_texts_nothing_stands_there() -> None:
    real = texts_of(tokens(), TOKENIZER)
    bare = Evidence(samples=Drawn(real.tokens_NL, real.texts), real=real, judge=ByLetter())
    for metric in (UnigramEntropy(), JudgePerplexity()):
        assert all(value.calibration == {} and value.value is not None for value in metric(bare))
    assert calibrated(evidence(), lambda texts: math.nan) == {}


def test_results_of_before_are_read() -> None:
    old = Value.from_data({"name": "rep_2", "value": 0.1, "real": 0.2})
    assert old.calibration == {}
    new = Value("rep_2", 0.1, calibration={SHUFFLED: 0.3})
    assert Value.from_data(json.loads(json.dumps(new.as_data()))) == new
