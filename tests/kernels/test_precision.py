"""Weights cast once: the same numbers, without a cast at every product; and everything as it was afterwards."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.gpt2 import GPT2
from samplers.base import Canvas
from samplers.left_to_right import LeftToRight
from workbench.core.rng import Rng
from workbench.kernels.precision import cast_once
from workbench.processes.autoregressive import Autoregressive
from workbench.processes.base import Shell

VOCAB, LENGTH = 40, 6


class Casts(TorchDispatchMode):
    """Counts casts of given tensors."""

    def __init__(self, weights):
        super().__init__()
        self.storages, self.seen = {weight.data_ptr() for weight in weights}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.storages:
            self.seen += (kwargs or {}).get("dtype") is torch.bfloat16
        return func(*args, **(kwargs or {}))


def frozen():
    torch.manual_seed(0)
    return GPT2(VOCAB, VOCAB, LENGTH, dim=16, depth=2, heads=2, dropout=0.0).eval().requires_grad_(False)


def drawn(net, once):
    view = Autoregressive(VOCAB, VOCAB - 1, LENGTH).view(Shell(net))
    with Casts(list(net.parameters())) as casts, torch.no_grad():
        context = cast_once(net) if once else torch.no_grad()
        with context, torch.autocast("cpu", torch.bfloat16):
            return LeftToRight().draw(view, Canvas.blank(3, LENGTH), Rng(0)).tokens_BL, casts


def test_weights_are_cast_once_and_texts_are_the_same():
    net = frozen()
    (plain, often), (quick, once) = drawn(net, False), drawn(net, True)
    assert torch.equal(plain, quick)
    assert 0 < once.seen <= len(list(net.parameters()))
    assert often.seen == LENGTH * once.seen  # one a network call
    assert not any(weight.requires_grad for weight in net.parameters())


def test_what_was_trainable_stays_so_whatever_happens():
    net = frozen()
    net.head._table[0].weight.requires_grad_(True)
    before = [weight.requires_grad for weight in net.parameters()]
    with pytest.raises(RuntimeError), cast_once(net):
        assert all(weight.requires_grad for weight in net.parameters()) and not torch.is_grad_enabled()
        raise RuntimeError
    assert [weight.requires_grad for weight in net.parameters()] == before
