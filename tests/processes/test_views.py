"""What samplers see of a real network: the same text whatever the batch."""

from __future__ import annotations

import pytest
import torch

from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas
from samplers.predictors.analytic import Analytic
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse
from samplers.times import Uniform
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Scaled
from workbench.processes.time_draws import StratifiedTimes

VOCAB, LENGTH = 60, 16


@pytest.mark.parametrize("predictor", [Analytic, Normalised])
@pytest.mark.parametrize("low", [True, False])
def test_a_text_does_not_depend_on_its_batch(predictor, low):
    process = Diffusion(VOCAB, LENGTH, Absorbing(VOCAB), LogLinear(), Scaled(VOCAB), ScoreEntropy(), StratifiedTimes())
    torch.manual_seed(0)
    net = Transformer(process.states, process.outputs, LENGTH, dim=64, depth=2, heads=1, cond_dim=32, dropout=0.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    net.eval()
    sampler = Reverse(predictor(), Uniform(), steps=12)

    def tokens(first: int, batch: int):
        canvas = Canvas.blank(batch, LENGTH, first=first)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return sampler.draw(process.view(Shell(net)), canvas, Rng(3)).tokens_BL

    whole = tokens(0, 8)
    assert torch.equal(whole, torch.cat([tokens(i, 1) for i in range(8)]))
    assert torch.equal(whole, torch.cat([tokens(i, 2) for i in range(0, 8, 2)]))
