"""The dense way of computing, written plainly from the formulas: the yardstick of the benchmarks.

This is how published SEDD code computes a training step and an analytic sampling step: head outputs, scores and
probabilities of all positions × the whole vocabulary, one Gumbel-like race in float32. Benchmarks alone import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.base import Backbone


def log_scores(net: Backbone, x_BL: Tensor, sigma_B: Tensor) -> Tensor:
    """[B, L, S]: outputs scaled by the noise, own entry 0."""
    out = net.head(net(x_BL, sigma_B))
    scale = torch.where(sigma_B < 0.5, torch.expm1(sigma_B), sigma_B.exp() - 1).log()[:, None, None]
    out = out - scale - math.log(out.shape[-1] - 1)
    return torch.scatter(out, -1, x_BL[..., None], torch.zeros_like(out[..., :1]))


def score_entropy(log_score: Tensor, x_BL: Tensor, x0_BL: Tensor, sigma_B: Tensor) -> Tensor:
    """[B, L]: denoising score entropy of the absorbing graph per unit of σ, 0 off the masks."""
    mask = log_score.shape[-1] - 1
    masked = x_BL == mask
    ratio = 1 / torch.where(sigma_B < 0.5, torch.expm1(sigma_B), sigma_B.exp() - 1)[:, None].expand_as(x_BL)[masked]
    rows = log_score[masked]
    negative = ratio * rows.gather(-1, x0_BL[masked][:, None])[:, 0]
    positive = rows[:, :-1].exp().sum(-1)
    out = torch.zeros(x_BL.shape, dtype=log_score.dtype, device=x_BL.device)
    out[masked] = positive - negative + ratio * (ratio.log() - 1)
    return out


def train_step(
    net: Backbone,
    optimizer: torch.optim.Optimizer,
    average: Sequence[Tensor],
    x0_BL: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """One training step: corrupt, score, loss, backward, clip, AdamW, average tensor by tensor; how many tokens were
    masked (on the device)."""
    device = x0_BL.device
    t = (1 - 1e-3) * torch.rand(len(x0_BL), generator=generator, device=device) + 1e-3
    sigma, rate = -torch.log1p(-(1 - 1e-3) * t), (1 - 1e-3) / (1 - (1 - 1e-3) * t)
    moved = torch.rand(x0_BL.shape, generator=generator, device=device) < (1 - torch.exp(-sigma))[:, None]
    x = torch.where(moved, net.head.out_features - 1, x0_BL)
    nats = score_entropy(log_scores(net, x, sigma), x, x0_BL, sigma)
    loss = (rate[:, None] * nats).sum(-1).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        for mean, parameter in zip(average, net.parameters(), strict=True):
            mean.sub_((1 - 0.9999) * (mean - parameter))
    return moved.sum()


@torch.no_grad()
def sample(net: Backbone, batch: int, length: int, steps: int) -> Tensor:
    """The analytic sampler: staggered score × transition over the whole vocabulary, drawn by one float32 race."""
    states = net.head.out_features
    mask = states - 1
    device = net.head.weight.device
    x = torch.full((batch, length), mask, device=device)
    times = torch.linspace(1, 1e-5, steps + 1, device=device)
    sigmas = -torch.log1p(-(1 - 1e-3) * times)
    for step in range(steps + 1):
        last = step == steps
        sigma = sigmas[step].expand(batch)
        delta = (sigma if last else sigma - sigmas[step + 1])[:, None, None]
        score = log_scores(net, x, sigma).exp()
        extra = (1 - delta.exp()) * score.sum(-1, keepdim=True)
        score = score * delta.exp()
        score[..., -1:] += extra
        edge = (-delta).exp() * torch.nn.functional.one_hot(x, states)
        edge = edge + torch.where((x == mask)[..., None], 1 - (-delta).exp(), 0.0)
        probs = edge * score
        if last:
            probs = probs[..., :-1]
        race = 1e-10 - (torch.rand_like(probs) + 1e-10).log()
        x = (probs / race).argmax(-1)
    torch.cuda.synchronize() if device.type == "cuda" else None
    return x
