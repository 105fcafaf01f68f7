"""Bits per byte, perplexity and the unigram, against hand counts and against what they estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.metrics.base import Evidence, HeldOut
from workbench.metrics.comparison import paired
from workbench.metrics.likelihood import BitsPerByte, Perplexity, UnigramBitsPerByte, unigram_nats

LN2 = math.log(2)


def held(nats: np.ndarray, size: float = 10, length: int = 4, **rest: object) -> HeldOut:
    blocks = len(nats)
    return HeldOut(nats, np.full(blocks, size, dtype=np.int64), np.zeros((blocks, length), np.int64), **rest)


def test_bits_per_byte_by_hand() -> None:
    nats = np.array([[10 * LN2], [30 * LN2]])
    found = BitsPerByte()(Evidence(bound=held(nats)))[0]
    assert (found.name, found.value, found.relation, found.n) == ("bits_per_byte", pytest.approx(2.0), "=", 2)
    assert found.extra["bytes"] == 20
    assert found.extra["tokens"] == 8


def test_uneven_blocks_weigh_by_their_bytes() -> None:
    given = HeldOut(np.array([[8.0], [2.0]]), np.array([1, 9]), np.zeros((2, 4), np.int64))
    assert BitsPerByte()(Evidence(bound=given))[0].value == pytest.approx(1 / LN2)


def test_a_bound_says_so_and_splits_its_error() -> None:
    """Blocks spread by 3, draws by 4: each part is found, the total is what the figure really spreads by."""
    rng = np.random.default_rng(0)
    totals, blocks, draws, values = [], [], [], []
    for _ in range(300):
        nats = 100 + rng.normal(0, 3, (64, 1)) + rng.normal(0, 4, (64, 4))
        found = BitsPerByte()(Evidence(bound=held(nats, kind="upper")))[0]
        assert found.relation == "≤"
        values.append(found.value)
        totals.append(found.se)
        blocks.append(found.extra["se_blocks"])
        draws.append(found.extra["se_draws"])
    scale = 1 / (10 * LN2)
    assert np.mean(draws) == pytest.approx(4 / math.sqrt(64 * 4) * scale, rel=0.03)
    assert np.mean(blocks) == pytest.approx(3 / math.sqrt(64) * scale, rel=0.06)
    assert np.mean(totals) == pytest.approx(np.std(values), rel=0.1)


def test_one_draw_is_covered_by_the_total() -> None:
    found = BitsPerByte()(Evidence(bound=held(np.random.default_rng(1).normal(20, 1, (30, 1)), kind="upper")))[0]
    assert found.se is not None
    assert "se_draws" not in found.extra


def test_documents_are_clusters() -> None:
    """Blocks of a document go together: the error is that of the documents, √8 larger here."""
    rng = np.random.default_rng(2)
    nats = np.repeat(rng.normal(20, 2, (25, 1)), 8, axis=0)
    alone = BitsPerByte()(Evidence(bound=held(nats)))[0]
    together = BitsPerByte()(Evidence(bound=held(nats, document_B=np.arange(200) // 8)))[0]
    assert together.value == alone.value
    assert together.n == 25
    assert together.se / alone.se == pytest.approx(math.sqrt(8), rel=0.05)


@pytest.mark.parametrize("document_B", [None, np.arange(40) // 4])
def test_two_runs_are_compared_block_by_block(document_B: np.ndarray | None) -> None:
    """Blocks spread far more than the two runs differ: in pairs the difference is seen, apart it is not."""
    rng = np.random.default_rng(4)
    level, tokens, sizes = rng.normal(100, 30, (40, 1)), rng.integers(0, 9, (40, 4)), rng.integers(8, 12, 40)
    nats = [level + gap + rng.normal(0, 0.5, (40, 2)) for gap in (0, 2)]
    a, b = (BitsPerByte()(Evidence(bound=HeldOut(one, sizes, tokens, document_B=document_B)))[0] for one in nats)
    found = paired(a, b)
    assert found.n == (40 if document_B is None else 10)
    assert found.value == pytest.approx(a.value - b.value, abs=1e-4)
    assert found.se == pytest.approx(np.sqrt(0.5**2 / 40) / sizes.mean() / LN2, rel=0.6)
    assert found.se < 0.1 * math.hypot(a.se, b.se)
    with pytest.raises(WorkbenchError, match="other units"):
        paired(a, BitsPerByte()(Evidence(bound=HeldOut(nats[1], sizes, tokens + 1, document_B=document_B)))[0])


def test_parts_stand_beside_in_bits_per_byte() -> None:
    nats = np.full((3, 1), 10 * LN2)
    given = held(nats, parts={"prior": np.full(3, 2 * LN2)}, kind="upper")
    assert BitsPerByte()(Evidence(bound=given))[0].extra["part_prior"] == pytest.approx(0.2)


def test_perplexity() -> None:
    nats = np.array([[4 * math.log(7)], [4 * math.log(7)]])
    found = Perplexity()(Evidence(bound=held(nats, kind="upper")))[0]
    assert found.value == pytest.approx(7)
    assert found.relation == "≤"
    assert found.extra["nats_per_token"] == pytest.approx(math.log(7))


def test_unigram_is_add_one_smoothed() -> None:
    tokens = np.array([[0, 1, 2, 2]])
    counts = np.array([3, 1, 0])
    expected = -(math.log(4 / 7) + math.log(2 / 7) + 2 * math.log(1 / 7))
    assert unigram_nats(tokens, counts) == pytest.approx([expected])
    given = HeldOut(np.zeros((1, 1)), np.array([5]), tokens, "upper")
    found = UnigramBitsPerByte()(Evidence(bound=given, unigram=counts))[0]
    assert found.value == pytest.approx(expected / 5 / LN2)
    assert found.relation == "="


def test_unigram_reaches_the_entropy_of_its_source() -> None:
    rng = np.random.default_rng(3)
    p = np.arange(1, 21) / 210
    draw = rng.choice(20, p=p, size=(400, 64))
    counts = np.bincount(rng.choice(20, p=p, size=200_000), minlength=20)
    given = HeldOut(np.zeros((400, 1)), np.full(400, 64), draw)
    found = UnigramBitsPerByte()(Evidence(bound=given, unigram=counts))[0]
    entropy = -(p * np.log2(p)).sum()
    assert found.low < entropy < found.high
