"""Shapers against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from samplers.base import ShapeContext
from samplers.shapers import Nucleus, Temperature, TopK, chain

CONTEXT = ShapeContext(torch.zeros(1, 8, dtype=torch.long), torch.arange(8))


def laws(rows: int, vocab: int, dtype: torch.dtype = torch.float64, spread: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab)
    return torch.log_softmax(spread * torch.randn(rows, vocab, generator=generator, dtype=torch.float64), -1).to(dtype)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("vocab", [2, 11, 700])
def test_nucleus_is_the_smallest_set_that_holds_p(p: float, vocab: int) -> None:
    log_p_RV = laws(8, vocab)
    out_RV = Nucleus(p)(log_p_RV, CONTEXT)
    for log_p, out in zip(log_p_RV.exp().numpy(), out_RV.exp().numpy(), strict=True):
        order = np.argsort(-log_p)
        size = min(int(np.searchsorted(np.cumsum(log_p[order]), p * (1 - 1e-12))) + 1, vocab)
        expected = np.zeros(vocab)
        expected[order[:size]] = log_p[order[:size]] / log_p[order[:size]].sum()
        np.testing.assert_allclose(out, expected, atol=1e-12)


def test_nucleus_keeps_tied_tokens_together() -> None:
    """Which of equals is cut must not depend on their numbers."""
    log_p_RV = torch.log(torch.tensor([[0.4, 0.2, 0.2, 0.1, 0.1]]))
    assert torch.isfinite(Nucleus(0.5)(log_p_RV, CONTEXT)).tolist() == [[True, True, True, False, False]]
    flat = torch.full((1, 1000), -math.log(1000))
    assert bool(torch.isfinite(Nucleus(0.3)(flat, CONTEXT)).all())


def test_nucleus_at_a_real_vocabulary_in_float32() -> None:
    log_p_RV = laws(4, 50_257, torch.float32, 3.0)
    out_RV = Nucleus(0.9)(log_p_RV, CONTEXT)
    kept = torch.isfinite(out_RV)
    mass_R = torch.where(kept, log_p_RV, -math.inf).double().exp().sum(-1)
    least_R = torch.where(kept, log_p_RV, math.inf).amin(-1).double().exp()
    assert bool((mass_R >= 0.9 - 1e-5).all()) and bool((mass_R - least_R <= 0.9 + 1e-5).all())


def test_temperature() -> None:
    log_p_RV = laws(8, 11)
    assert torch.allclose(Temperature(1.0)(log_p_RV, CONTEXT), log_p_RV)
    p_RV = log_p_RV.exp() ** 2
    assert torch.allclose(Temperature(0.5)(log_p_RV, CONTEXT).exp(), p_RV / p_RV.sum(-1, keepdim=True))
    frozen = Temperature(1e-30)(log_p_RV.float(), CONTEXT)
    assert torch.equal(frozen.exp().argmax(-1), log_p_RV.argmax(-1)) and not bool(torch.isnan(frozen).any())
    hot = Temperature(1e30)(log_p_RV.float(), CONTEXT)
    assert torch.allclose(hot.exp(), torch.full((8, 11), 1 / 11))


def test_top_k() -> None:
    log_p_RV = laws(8, 11)
    out_RV = TopK(3)(log_p_RV, CONTEXT)
    assert torch.isfinite(out_RV).sum(-1).tolist() == [3] * 8
    assert torch.equal(out_RV.topk(3).indices, log_p_RV.topk(3).indices)
    assert torch.allclose(TopK(1000)(log_p_RV, CONTEXT), log_p_RV)


def test_a_chain_applies_in_order() -> None:
    log_p_RV = laws(8, 11)
    shape = chain([Temperature(0.3), Nucleus(0.9)])
    assert shape is not None and chain([]) is None
    assert torch.equal(shape(log_p_RV, CONTEXT), Nucleus(0.9)(Temperature(0.3)(log_p_RV, CONTEXT), CONTEXT))
    other = chain([Nucleus(0.9), Temperature(0.3)])
    assert other is not None and not torch.equal(shape(log_p_RV, CONTEXT), other(log_p_RV, CONTEXT))
