"""Compiled blocks on CUDA are the blocks as they are, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.smoke import RECIPES
from workbench.recipe import load
from workbench.sketch import Sketch, sketch
from workbench.train.learner import compile_blocks

pytestmark = pytest.mark.cuda
SAME = 1e-4
"""Share by which float32 may differ: sums are taken in another order."""
ROUNDED = 4.0
"""How much further from float32 they may be in bfloat16 than blocks as they are: Triton's interpreter cuts numbers off
where a GPU rounds them."""


def passes(made: Sketch, low: bool, compiled: bool) -> list[Tensor]:
    """Features and all gradients of a batch."""
    torch.manual_seed(0)
    net = made.make()
    with torch.no_grad():
        for parameter in net.parameters():  # gates that begin at 0 would hide what is behind them
            if not parameter.any():
                parameter.normal_(std=0.05)
    net.cuda().train()
    if compiled:
        compile_blocks(net)
    x_BL = torch.arange(2 * made.length, device="cuda").view(2, -1) % 50
    with torch.autocast("cuda", torch.bfloat16, enabled=low):
        h_BLD = net(x_BL, torch.tensor([0.3, 2.0], device="cuda"))
    (h_BLD.float() * torch.linspace(-1, 1, h_BLD.numel(), device="cuda").view_as(h_BLD).sin()).sum().backward()
    return [h_BLD.detach().float(), *(p.grad for p in net.parameters() if p.grad is not None)]


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """How far features or, in the mean, gradients are from others, as a share of their norm."""
    assert len(found) == len(wanted)
    pairs = zip(found, wanted, strict=True)
    features, *gradients = (float((one - other).norm() / other.norm().clamp(min=1e-6)) for one, other in pairs)
    return max(features, sum(gradients) / len(gradients))


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["sedd", "mamba2", "hybrid", "hollow", "gpt2"])
def test_compiled_blocks_are_the_blocks(name: str, low: bool) -> None:
    made = sketch(load(RECIPES / "smoke" / f"{name}.yaml", ["backbone.dropout=0.0"]))
    torch._dynamo.reset()
    exact = passes(made, low=False, compiled=False)
    found = apart(passes(made, low, compiled=True), exact)
    assert found < (ROUNDED * apart(passes(made, low, compiled=False), exact) if low else SAME)
