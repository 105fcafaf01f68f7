"""FLOPs of an update, by which a way's share of the rate of the machine's matrix products is told."""

from __future__ import annotations

from backbones.base import Backbone
from backbones.cost import flops_per_token


def update_flops(net: Backbone, tokens: int, length: int, rows: float) -> float:
    """FLOPs (2 × multiply-adds) that an update of a network needs: forward and twice as much backward.

    The blocks count for all ``tokens``, in sequences of ``length``; the head for the ``rows`` alone that the loss
    reads. What a way computes besides (the head at other rows, a pass once more) does not count: it is the same work,
    whoever does it.
    """
    head = 2 * net.head.weight.numel()
    return 3 * ((flops_per_token(net, length) - head) * tokens + head * rows)
