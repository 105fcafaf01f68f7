"""The fused rows and a whole training step on CUDA against the CPU in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from workbench.core.rng import Rng
from workbench.kernels.rows import fused_rows, head_rows
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import DenoisingRows, ScoreEntropy
from workbench.processes.readouts import Scaled
from workbench.processes.time_draws import StratifiedTimes

pytestmark = pytest.mark.cuda
VOCAB, DIM, ROWS = 5000, 64, 1024


def _case(device: str):
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(DIM, VOCAB + 1)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.1)
        head.bias.zero_()
    h = torch.randn(ROWS, DIM, generator=generator)
    context = {
        "x": torch.full((ROWS,), VOCAB),
        "target": torch.randint(VOCAB, (ROWS,), generator=generator),
        "sigma": torch.rand(ROWS, generator=generator) + 0.1,
    }
    return head.to(device), h.to(device), {name: value.to(device) for name, value in context.items()}


@pytest.mark.parametrize(("low", "tolerance"), [(False, 1e-4), (True, 3e-2)])
def test_fused_rows_agree_with_the_cpu(low, tolerance):
    results = []
    for device in ("cpu", "cuda"):
        head, h, context = _case(device)
        h.requires_grad_()
        function = DenoisingRows(Absorbing(VOCAB), Scaled(VOCAB), ScoreEntropy())
        weight = torch.ones(ROWS, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=low and device == "cuda"):
            total, nats, _ = fused_rows(head, h, weight, function, context, 512)
        total.backward()
        results.append([value.detach().cpu() for value in (nats, h.grad, head.weight.grad)])
    for on_cpu, on_cuda in zip(*results, strict=True):
        assert (on_cpu - on_cuda).abs().max() <= tolerance * on_cpu.abs().max()


def test_outputs_keep_float32_under_autocast():
    head, h, _ = _case("cuda")
    with torch.no_grad():
        plain = head_rows(head, h)
        head.bias.add_(100.0)
        with torch.autocast("cuda", torch.bfloat16):
            raised = head_rows(head, h)
    assert raised.dtype == torch.float32
    assert (raised - 100.0 - plain).abs().max() < 0.05  # a bfloat16 output would be off by up to 0.25


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_step_agrees_with_the_cpu(compiled):
    losses, norms = [], []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        process = Diffusion(VOCAB, 64, Absorbing(VOCAB), LogLinear(), Scaled(VOCAB), ScoreEntropy(), StratifiedTimes())
        net = Transformer(process.states, process.outputs, 64, dim=DIM, depth=2, heads=1, cond_dim=16, dropout=0.0)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        net.to(device)
        process.place(torch.device(device))
        if compiled and device == "cuda":
            for block in net.blocks:
                block.compile()
            process.compile_chunks()
        x0 = np.random.default_rng(0).integers(VOCAB, size=(8, 64))
        noised = process.prepare(x0, np.arange(8), 0, Rng(0)).to(torch.device(device))
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = process.loss(Shell(net), noised)
        loss.nats.backward()
        losses.append(float(loss.nats.detach()))
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])))
    assert abs(losses[0] - losses[1]) < 0.02 * abs(losses[0])
    assert abs(norms[0] - norms[1]) < 0.1 * norms[0]
