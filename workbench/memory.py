"""The memory that training a recipe takes of each process, before it runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backbones.base import Backbone
from backbones.cost import count_parameters
from workbench.activations import Kept, Setting, kept
from workbench.core.errors import Problem, RecipeError
from workbench.core.spec import build
from workbench.kernels.rows import chunk_rows, padded_rows
from workbench.sketch import Sketch
from workbench.train.footprint import Footprint, footprint
from workbench.train.machine import choose_precision
from workbench.train.optim import Optimizer
from workbench.train.sharing import Sharing


@dataclass(frozen=True)
class Share:
    """What each of several processes holds, in bytes, and computes.

    ``setting``: device, precision and compilation that it is told for. ``held``: by `Footprint`; ``teachers``: whole
    networks that it learns from; ``activations``: what autograd keeps of one micro-batch of ``sequences``, casts of
    weights included; ``work``: what the backward pass holds beyond, a block at a time; ``logits``: what head and
    objective hold, chunks of outputs above all; ``carried``: gradients that are there while a loss is computed, the
    head's, or all where micro-batches add up or processes exchange them. ``flops``: of an update, forward and backward.

    Left out: copies in 8 bits (``train.float8``), which live for a product at a time, and what a device's libraries and
    the allocator's rounding take.
    """

    parallel: str
    processes: int
    sequences: int
    setting: Setting
    held: Footprint
    teachers: int
    activations: int
    work: int
    logits: int
    carried: int
    flops: float

    @property
    def total(self) -> int:
        """The most that it holds at once: while the loss is computed, in the backward pass, or when the whole
        gradient is there."""
        held = self.held
        stays = held.parameters + held.optimizer + held.average + held.gathered + self.teachers
        return stays + max(self.carried + self.activations + max(self.logits, self.work), held.gradients)


def setting_of(train: Mapping[str, Any], here: bool = False) -> Setting:
    """Device, precision and compilation that the settings of a training ask for; ``here``: auto is this machine's
    device, and nothing is compiled.

    Raises:
        RecipeError: there is no such kind of device.
    """
    kind = str(train["device"]).partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() or not here else "cpu"
    try:
        torch.device(kind)
    except RuntimeError as error:
        raise RecipeError([Problem("train.device", f"{kind!r} is no device; try auto, cpu or cuda")]) from error
    low = choose_precision(train["precision"], torch.device(kind))[0] == "bf16"
    return Setting(kind, low, train["compile"] and not here)


class Shares:
    """What a recipe takes of each process, by ways to share it; what ways have in common is counted once."""

    def __init__(self, train: Mapping[str, Any], made: Sketch, whole: bool = True) -> None:
        """``train``: the settings of the section; ``whole``: `Share.work` is told too, which takes as long again."""
        self.train, self.made, self.whole = train, made, whole
        self._kept = functools.cache(self._count)

    def of(self, sharing: Sharing, processes: int, setting: Setting) -> Share:
        """Of each of ``processes`` that share it so.

        Raises:
            Exception: whatever a plug-in's network raises when it is built or reads a batch.
        """
        train, made = self.train, self.made
        optimizer: Optimizer = build(train["optimizer"])
        head = made.backbone.head
        sequences = -(-train["batch"] // (train["accumulate"] * processes))
        copies = made.process.copies * sequences
        rows = copies * made.length
        chunk = min(chunk_rows(head.out_features, setting.device), padded_rows(rows, setting.device))
        low = 2 * setting.low  # bytes of what there is in bfloat16 too: a chunk's gradient, the head
        features = 2 * 4 * rows * head.in_features  # of all rows, and their gradient
        keeps = self._kept(copies, setting, sharing.lowered(made.backbone, processes))
        held = footprint(made.backbone, made.backbone, optimizer, train["ema"] > 0, sharing, processes)
        adding = train["accumulate"] > 1 or processes > 1
        return Share(
            parallel=sharing.type_name,
            processes=processes,
            sequences=sequences,
            setting=setting,
            held=held,
            teachers=4 * made.process.teachers * count_parameters(made.backbone).total,
            activations=keeps.between,
            work=keeps.beyond,
            logits=(4 + low) * chunk * head.out_features + features + low * head.weight.numel(),
            carried=held.gradients if adding else 4 * head.weight.numel(),
            flops=made.training_flops * sequences * train["accumulate"] * made.length,
        )

    def _count(self, batch: int, setting: Setting, lowered: frozenset[str]) -> Kept:
        def make() -> Backbone:
            net = self.made.make()
            for name, parameter in net.named_parameters():
                if name in lowered:
                    parameter.data = parameter.data.to(torch.bfloat16)
            return net

        return kept(make, batch, self.made.length, setting, self.train["recompute"], self.whole)
