"""What a backbone costs: parameters and FLOPs, of any plug-in, without running it (build it on the meta device)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from backbones.base import Backbone


class Parameters(NamedTuple):
    """``total``: all parameters, each once. ``non_embedding``: without embedding tables and the head."""

    total: int
    non_embedding: int


def count_parameters(backbone: Backbone) -> Parameters:
    """Count parameters: the two figures by which backbones are matched."""
    tables = {
        id(parameter)
        for module in (*backbone.modules(), backbone.head)
        if isinstance(module, nn.Embedding) or module is backbone.head
        for parameter in module.parameters(recurse=False)
    }
    sizes = {id(parameter): parameter.numel() for parameter in backbone.parameters()}
    rest = sum(size for key, size in sizes.items() if key not in tables)
    return Parameters(sum(sizes.values()), rest)


def flops_per_token(backbone: Backbone, length: int) -> float:
    """Forward FLOPs (2 × multiply-adds) per token at ``length``, head included; training takes three times as much.

    By the backbone's own formula, else by counting.
    """
    by_formula = backbone.flops_per_token(length)
    return counted_flops_per_token(backbone, length) if by_formula is None else by_formula


def counted_flops_per_token(backbone: Backbone, length: int) -> float:
    """The same as PyTorch's flop counter has it on one sequence, on the parameters' device: meta costs nothing.

    It counts matrix products and attention, causal attention whole, and no sums of products formed otherwise
    (a selective scan, a convolution by shifted taps).
    """
    from torch.utils.flop_counter import FlopCounterMode  # it imports Triton, which most commands do without

    device = next(backbone.parameters()).device
    x_BL = torch.zeros(1, length, dtype=torch.long, device=device)
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone.head(backbone(x_BL, torch.ones(1, device=device)))
    finally:
        backbone.train(was_training)
    return counter.get_total_flops() / length
