"""A mixer of one's own, a mean that forgets. In a recipe: `plugins: [./my_decay.py]`, then a hybrid's `mixers`."""

import torch
from torch import nn

from backbones.base import Mixer


@Mixer.register("my_decay")
class Decay(Mixer):
    """Each channel is the mean of what was seen, forgotten at a learned rate, on one side or both."""

    def __init__(self, dim: int, length: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.rate, self.out = nn.Parameter(torch.zeros(dim)), nn.Linear(dim, dim)

    def forward(self, h_BLD, cache=None):
        away_LL = (torch.arange(h_BLD.shape[1])[:, None] - torch.arange(h_BLD.shape[1])).to(h_BLD)
        kept_DLL = torch.exp(-torch.exp(self.rate)[:, None, None] * away_LL.abs()).to(h_BLD)
        if self.causal:
            kept_DLL = kept_DLL.tril()
        return self.out(torch.einsum("dlm,bmd->bld", kept_DLL / kept_DLL.sum(-1, keepdim=True), h_BLD))

    def flops_per_token(self, length):
        return 2 * self.out.weight.numel() + 2 * length * self.rate.numel()

    def state_bytes(self, length):
        return 0
