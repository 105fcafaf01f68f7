"""Attention of noised blocks beside clean text against the formula, position by position."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import block_attention as kernels
from workbench.kernels.block_attention import BLOCK_ATTENTION, block_attention, visible


def heads(length: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, length, 3, 8)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3))


@pytest.mark.parametrize("kernel", ["spans", "sdpa"])
@pytest.mark.parametrize("span", [1, 3, 4, 64])
@pytest.mark.parametrize("count,size", [(1, 5), (2, 4), (6, 1), (5, 2)])
def test_values_and_gradients_are_those_of_the_formula(kernel, span, count, size, monkeypatch):
    monkeypatch.setattr(kernels, "SPAN", span)
    noised, clean = heads(count * size, 0), heads((count - 1) * size, 1)
    found, due = (block_attention(noised, clean, size, kernel=name) for name in (kernel, "reference"))
    for one, other in zip(found, due, strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-12)
    upward = torch.randn(found[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inputs = (*noised, *clean[1:])  # clean queries speak to the next layer only
    grads = [torch.autograd.grad((mixed[0] * upward).sum(), inputs, allow_unused=True) for mixed in (found, due)]
    for one, other in zip(*grads, strict=True):
        assert (one is None or not one.numel() or not one.any()) if other is None else torch.allclose(one, other)


def test_the_mask_is_that_of_two_blocks_of_two():
    seen_LT, seen_TT = visible(4, 2, torch.device("cpu"))
    assert seen_LT.int().tolist() == [[0, 0, 1, 1, 0, 0]] * 2 + [[1, 1, 0, 0, 1, 1]] * 2
    assert bool(seen_TT.all())
    assert visible(6, 2, torch.device("cpu"))[1].int().tolist() == [[1, 1, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2


def test_short_texts_take_one_masked_product_and_names_of_attention_are_auto():
    assert BLOCK_ATTENTION.choose("auto", device="cpu", dtype=torch.float32, short=False)[0] == "spans"
    assert BLOCK_ATTENTION.choose("auto", device="cpu", dtype=torch.float32, short=True)[0] == "sdpa"
    noised, clean = heads(4, 0), heads(2, 1)
    found, due = (block_attention(noised, clean, 2, kernel=name) for name in ("xformers", "auto"))
    assert torch.equal(found[0], due[0])
