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


def model():
    """A small diffusion model whose outputs depend on everything."""
    process = Diffusion(VOCAB, LENGTH, Absorbing(VOCAB), LogLinear(), Scaled(VOCAB), ScoreEntropy(), StratifiedTimes())
    torch.manual_seed(0)
    net = Transformer(process.states, process.outputs, LENGTH, dim=64, depth=2, heads=1, cond_dim=32, dropout=0.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    net.eval()
    return process, net


@pytest.mark.parametrize("predictor", [Analytic, Normalised])
@pytest.mark.parametrize("low", [True, False])
def test_a_text_does_not_depend_on_its_batch(predictor, low):
    process, net = model()
    sampler = Reverse(predictor(), Uniform(), steps=12)

    def tokens(first: int, batch: int):
        canvas = Canvas.blank(batch, LENGTH, first=first)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return sampler.draw(process.view(Shell(net)), canvas, Rng(3)).tokens_BL

    whole = tokens(0, 8)
    assert torch.equal(whole, torch.cat([tokens(i, 1) for i in range(8)]))
    assert torch.equal(whole, torch.cat([tokens(i, 2) for i in range(0, 8, 2)]))


def test_a_look_reads_the_texts_it_is_told_of():
    """Rows asked are those of a look at everything; texts that have none are not read."""
    process, net = model()
    read = []
    net.register_forward_pre_hook(lambda net, inputs: read.append(len(inputs[0])))
    x_BL = torch.randint(VOCAB + 1, (5, LENGTH), generator=torch.Generator().manual_seed(1))
    sigma_B = torch.linspace(0.1, 2.0, 5, dtype=torch.float64)
    view = process.view(Shell(net))
    every_R = torch.arange(5 * LENGTH)
    with torch.no_grad():
        whole = view.look(x_BL, sigma_B).log_score(every_R)
        look = view.look(x_BL, sigma_B)
        some_R = torch.tensor([3 * LENGTH + 2, LENGTH, 3 * LENGTH + 5])
        look.expect(some_R)
        assert torch.allclose(look.log_score(some_R), whole[some_R], atol=1e-5)
        assert torch.allclose(look.clean(some_R[:1]), view.look(x_BL, sigma_B).clean(some_R[:1]), atol=1e-5)
        assert read == [5, 2, 5]
        more_R = torch.tensor([0, 3 * LENGTH])  # one text that is read already, one that is not
        look.expect(more_R)
        assert torch.allclose(look.log_score(more_R), whole[more_R], atol=1e-5)
        assert torch.allclose(look.log_score(every_R), whole, atol=1e-5)  # untold, on the host
        assert read == [5, 2, 5, 1, 2]
        chosen = look.select(torch.tensor([4, 0]))
        assert torch.allclose(chosen.log_score(torch.tensor([1, LENGTH + 1])), whole[[4 * LENGTH + 1, 1]], atol=1e-5)
        assert read == [5, 2, 5, 1, 2] and view.calls == 5
