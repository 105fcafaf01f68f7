"""Networks that write by blocks: one whose every law is known, and small transformers; processes around them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from backbones.base import CachedBackbone
from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from workbench.core.part import Maker
from workbench.processes.blocks import Blocks
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Normalised
from workbench.processes.time_draws import StratifiedTimes


class ExactBlocks(CachedBackbone):
    """Says log p(x_l = v | the clean blocks before, the written tokens of its own block) of a joint law; float64.

    Its features are its outputs, its cache the clean tokens; it hears no σ.
    """

    def __init__(self, joint) -> None:
        super().__init__()
        self.joint, self.vocab = joint, joint.shape[0]
        self.head = nn.Linear(self.vocab + 1, self.vocab + 1, bias=False).double()
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(self.vocab + 1))

    @classmethod
    def sight(cls, settings):
        return "block"

    def new_cache(self, batch: int) -> Tensor:
        return torch.empty(batch, 0, dtype=torch.long)

    def commit(self, x_BL, cache):
        return self(x_BL, None, cache), torch.cat((cache, x_BL), 1)

    def forward(self, x_BL, sigma=None, cache=None):
        cache = self.new_cache(1) if cache is None else cache
        known = cache.expand(len(x_BL), -1).tolist()
        rows = [self.block(tuple(before), tuple(x)) for before, x in zip(known, x_BL.tolist(), strict=True)]
        return torch.from_numpy(np.stack(rows))

    def block(self, before, x):
        law = self.joint[before]
        law = law.reshape(*law.shape[: len(x)], -1).sum(-1)
        out = np.zeros((len(x), self.vocab + 1))
        for at in range(len(x)):
            written = tuple(slice(None) if i == at or v == self.vocab else v for i, v in enumerate(x))
            left = law[written]
            axis = sum(isinstance(one, slice) for one in written[:at])
            p = left.sum(tuple(i for i in range(left.ndim) if i != axis))
            out[at, : self.vocab] = np.log(p / p.sum())
        return out


def transformer(vocab: int, length: int, seed: int = 0, **settings) -> Transformer:
    """Two small blocks in float64, in eval mode, their zeros moved."""
    torch.manual_seed(seed)
    small = {"dim": 16, "depth": 2, "heads": 2, "cond_dim": 8, "neighbours": 1, "dropout": 0.0, "blockwise": True}
    net = Transformer(vocab + 1, vocab + 1, length, **{**small, **settings}).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return net


def blocks(vocab: int, length: int, size: int, noise=None, graph=None, **inner) -> Blocks:
    """Masked diffusion, or what ``inner`` makes of it, in blocks."""

    def make(known) -> Diffusion:
        return diffusion(vocab, known["length"], noise, graph, **inner)

    return Blocks(vocab, length, Maker(Diffusion, make), size)


def diffusion(vocab: int, length: int, noise=None, graph=None, readout=None, **settings) -> Diffusion:
    return Diffusion(
        vocab, length, graph or Absorbing(vocab), noise or LogLinear(), readout or Normalised(), ScoreEntropy(),
        StratifiedTimes(), **settings,
    )  # fmt: skip
