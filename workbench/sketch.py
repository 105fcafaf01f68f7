"""A recipe's network and process before anything runs: on the meta device, where tensors have shapes and no storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from backbones.base import Backbone
from backbones.cost import flops_per_token
from workbench.core.loading import Resolved
from workbench.core.spec import build
from workbench.data.base import Tokenizer
from workbench.processes.base import Process

ASSUMED_VOCAB = 256
"""Vocabulary taken where the text decides it."""


@dataclass(frozen=True)
class Sketch:
    """A recipe's backbone on the meta device, its process. ``vocab`` tokens, ``assumed`` where the text decides;
    ``length``; ``make`` builds another such backbone, on the default device."""

    backbone: Backbone
    make: Callable[[], Backbone]
    vocab: int
    assumed: bool
    length: int
    process: Process

    @property
    def training_flops(self) -> float:
        """FLOPs of a token that is trained on: forward and backward of what is read of it, and looks without
        gradient."""
        return flops_per_token(self.backbone, self.length) * (3 * self.process.copies + self.process.looks)


def sketch(resolved: Resolved, length: int | None = None) -> Sketch:
    """Build the process and, on the meta device, the backbone. ``length``: another than the recipe's."""
    settings = resolved.node.settings
    tokenizer: Tokenizer = build(settings["data"]).tokenizer
    length = int(settings["data"].settings["length"]) if length is None else length
    planned = tokenizer.planned_vocab
    vocab = ASSUMED_VOCAB if planned is None else planned
    process: Process = build(settings["process"], {"vocab": vocab, "eos": vocab - 1, "length": length})
    shape = {"states": process.states, "outputs": process.outputs, "length": length}

    def make() -> Backbone:
        made: Backbone = build(settings["backbone"], shape)
        return made

    with torch.device("meta"):
        backbone = make()
    return Sketch(backbone, make, vocab, planned is None, length, process)
