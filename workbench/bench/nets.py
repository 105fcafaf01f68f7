"""Networks and processes of benchmarks, with weights that are random and not zero."""

from __future__ import annotations

import torch
from torch import nn

from backbones.base import Backbone
from backbones.gpt2 import GPT2
from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Scaled
from workbench.processes.time_draws import UniformTimes

HEAD_WIDTH = 64
"""Width of an attention head."""


def sedd(vocab: int, length: int, dim: int, depth: int, device: str, neighbours: int = 0) -> Backbone:
    """SEDD's transformer for ``vocab`` tokens and a mask, without dropout; the head, which begins at 0, random."""
    torch.manual_seed(0)
    states = vocab + 1
    sizes = {"dim": dim, "depth": depth, "heads": max(1, dim // HEAD_WIDTH), "cond_dim": min(128, dim)}
    net = Transformer(states, states, length, dropout=0.0, neighbours=neighbours, **sizes)
    nn.init.normal_(net.head.weight, std=0.02)
    return net.to(device)


def gpt2(vocab: int, length: int, dim: int, depth: int, device: str) -> Backbone:
    """GPT-2 without dropout."""
    torch.manual_seed(0)
    return GPT2(vocab, vocab, length, dim=dim, depth=depth, heads=max(1, dim // HEAD_WIDTH), dropout=0.0).to(device)


def diffusion(vocab: int, length: int, device: str) -> Diffusion:
    """SEDD's process on an absorbing graph."""
    parts = (Absorbing(vocab), LogLinear(), Scaled(vocab), ScoreEntropy(), UniformTimes())
    process = Diffusion(vocab, length, *parts)
    process.place(torch.device(device))
    return process
