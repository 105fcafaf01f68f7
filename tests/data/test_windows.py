"""Blocks, and batches as a pure function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.data.storage import DataError
from workbench.data.tokenizers import Bytes
from workbench.data.windows import Blocks, Windows, permuted

DOCUMENTS = ["one", "the second", "é", "and a last, longer one"]
STREAM = np.array([i for text in DOCUMENTS for i in (*text.encode(), 256)], dtype=np.uint16)


def numbered(blocks: int, length: int = 4, rest: int = 0) -> Blocks:
    """Blocks whose tokens tell which block they are of (modulo 250)."""
    return Blocks(np.arange(blocks * length + rest, dtype=np.uint16) // length % 250, length, Bytes(), "train")


# --- blocks ------------------------------------------------------------------------------------------------------


def test_blocks_are_the_stream_cut_end_to_end() -> None:
    blocks = Blocks(STREAM, 7, Bytes(), "train")
    assert len(blocks) == len(STREAM) // 7 and blocks.dropped == len(STREAM) % 7 > 0
    assert np.concatenate([blocks[i] for i in range(len(blocks))]).tolist() == STREAM[: len(blocks) * 7].tolist()
    assert blocks[0].dtype == np.int64 and blocks[0].shape == (7,)
    assert blocks[np.array([2, 0])].tolist() == [blocks[2].tolist(), blocks[0].tolist()]
    assert blocks[-1].tolist() == blocks[len(blocks) - 1].tolist()
    for wrong in (len(blocks), -len(blocks) - 1, np.array([0, 99])):
        with pytest.raises(IndexError):
            blocks[wrong]


def test_bytes_and_text_of_blocks() -> None:
    blocks = Blocks(STREAM, 5, Bytes(), "train")
    every = np.arange(len(blocks))
    sizes = blocks.bytes_of(every)
    assert [int(blocks.bytes_of(i)) for i in every] == sizes.tolist()
    assert sizes.sum() == (STREAM[: len(blocks) * 5] != 256).sum()
    assert blocks.text(0) == "onet" and blocks.text(0, eos="|") == "one|t"
    whole = Blocks(STREAM, len(STREAM), Bytes(), "train")
    assert whole.text(0) == "".join(DOCUMENTS)
    assert whole.bytes_of(0) == len("".join(DOCUMENTS).encode())


def test_documents_of_blocks() -> None:
    blocks = Blocks(STREAM, 1, Bytes(), "train")
    told = blocks.document_of(np.arange(len(blocks)))
    assert told.tolist() == [n for n, text in enumerate(DOCUMENTS) for _ in range(len(text.encode()) + 1)]
    assert Blocks(STREAM, 9, Bytes(), "train").document_of(2) == told[18]


def test_counts_are_those_of_the_whole_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.data.windows.SCAN", 5)
    blocks = Blocks(STREAM, 7, Bytes(), "train")
    assert blocks.counts().tolist() == np.bincount(STREAM, minlength=257).tolist()
    assert blocks.document_of(1) == 1


def test_a_stream_shorter_than_a_block_is_refused() -> None:
    with pytest.raises(DataError, match="valid split has 41 tokens, less than one block of 42"):
        Blocks(STREAM, 42, Bytes(), "valid")
    assert len(Blocks(STREAM, 41, Bytes(), "valid")) == 1


# --- the permutation ---------------------------------------------------------------------------------------------


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_it_is_a_permutation_whatever_the_size(size: int, seed: int, epoch: int) -> None:
    assert sorted(permuted(np.arange(size), size, seed, epoch).tolist()) == list(range(size))


def test_huge_sizes_cost_nothing() -> None:
    size = 3_000_000_019
    places = np.array([0, 1, 2, size // 2, size - 1])
    found = permuted(places, size, 0, 0)
    assert len(set(found.tolist())) == 5 and found.min() >= 0 and found.max() < size


@pytest.mark.parametrize("size", [2, 3, 5, 10, 65, 1000])
def test_every_place_goes_everywhere_equally_often(size: int) -> None:
    draws = 2000
    for place in (0, size - 1):
        seen = np.array([permuted(np.array([place]), size, seed, 1)[0] for seed in range(draws)])
        bins = np.bincount(seen * min(size, 50) // size, minlength=min(size, 50))
        assert stats.chisquare(bins, draws * np.bincount(np.arange(size) * min(size, 50) // size) / size).pvalue > 1e-4


def test_neighbours_do_not_stay_neighbours() -> None:
    order = permuted(np.arange(4096), 4096, 5, 0)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert (np.abs(np.diff(order)) == 1).mean() < 0.005
    assert (order == np.arange(4096)).sum() < 10


def test_orders_are_pinned() -> None:
    """A changed order would silently change every published run."""
    orders = [permuted(np.arange(8), 8, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders == [[5, 0, 3, 2, 1, 4, 6, 7], [4, 5, 3, 0, 2, 7, 1, 6], [4, 6, 3, 1, 7, 5, 0, 2]]


# --- windows -----------------------------------------------------------------------------------------------------


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    one, two = (Windows(numbered(23), 4, seed=3) for _ in range(2))
    steps = [7, 0, 30, 7, 2]
    for step in steps:
        x0_BL, seq_B = one.batch(step)
        assert x0_BL.shape == (4, 4) and x0_BL.dtype == np.int64
        assert seq_B.tolist() == list(range(step * 4, step * 4 + 4)) and seq_B.dtype == np.int64
        assert two.batch(step)[0].tolist() == x0_BL.tolist()
    assert any(Windows(numbered(23), 4, 4).batch(s)[0].tolist() != one.batch(s)[0].tolist() for s in range(3))


@pytest.mark.parametrize("batch", [1, 4, 7, 50])
def test_each_block_comes_once_an_epoch(batch: int) -> None:
    blocks = numbered(23, rest=3)
    windows = Windows(blocks, batch, seed=11)
    steps = -(-23 * 3 // batch)
    drawn = np.concatenate([windows.batch(step)[0][:, 0] for step in range(steps)])
    epochs = [drawn[n * 23 : (n + 1) * 23].tolist() for n in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_sequences_do_not_depend_on_the_batch_size() -> None:
    small, large = (Windows(numbered(40), size, seed=2) for size in (2, 8))
    drawn = [np.concatenate([w.batch(step)[0] for step in range(n)]) for w, n in ((small, 16), (large, 4))]
    assert drawn[0].tolist() == drawn[1].tolist()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_together_have_the_batch_of_one(world: int) -> None:
    windows = Windows(numbered(40), 8, seed=2)
    x0_BL, seq_B = windows.batch(5)
    parts = [windows.batch(5, slice(r * 8 // world, (r + 1) * 8 // world)) for r in range(world)]
    assert np.concatenate([part[0] for part in parts]).tolist() == x0_BL.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == seq_B.tolist()


def test_epochs_are_told() -> None:
    assert Windows(numbered(40), 8, 0).epoch(10) == 2.0
