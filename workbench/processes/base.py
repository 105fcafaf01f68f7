"""The contract of a process: how clean text becomes training rows, a loss, a likelihood and a view."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samplers.base import View
from workbench.core.part import Part
from workbench.core.rng import Rng
from workbench.kernels.rows import chunk_rows

BUCKETS = 10
"""Noise-level buckets of the per-bucket curves: equal parts of t ∈ [0, 1]."""


class Shell(nn.Module):
    """What trainers, DDP/FSDP2 and views hold: *every* use of the network goes through this forward.

    ``shell(f, *args)`` is ``f(shell.net, *args)``: wrappers that hook ``forward`` see features and head alike.
    """

    def __init__(self, net: nn.Module) -> None:
        """``net``: a backbone."""
        super().__init__()
        self.net = net

    def forward(self, f: Callable[..., Any], *args: Any) -> Any:
        """Apply ``f`` to the network."""
        return f(self.net, *args)


@dataclass(frozen=True)
class Noised:
    """A prepared training batch, made on the host.

    ``x_BL`` int64 (what the network reads); ``sigma_B`` float32 or None; ``rows_R`` flat positions b·L + l whose
    head outputs the loss needs, padded to whole chunks; ``x_R`` the input ids there, ``target_R`` the clean tokens,
    ``sigma_R`` the σ; ``weight_R`` float32, 0 on padding; ``bucket_R`` int64 noise-level bucket in [0, BUCKETS);
    ``tokens``: how many tokens the loss is per; ``bucket_tokens`` [BUCKETS] of them by noise level.
    """

    x_BL: Tensor
    sigma_B: Tensor | None
    rows_R: Tensor
    x_R: Tensor
    target_R: Tensor
    sigma_R: Tensor | None
    weight_R: Tensor
    bucket_R: Tensor
    tokens: int
    bucket_tokens: Tensor

    def to(self, device: torch.device) -> Noised:
        """This batch on ``device`` (non-blocking from pinned memory)."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def pin(self) -> Noised:
        """This batch in pinned memory."""
        return replace(self, **{n: v.pin_memory() for n, v in vars(self).items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class Loss:
    """``nats``: scalar with gradient, nats per token. ``logs``: detached tensors by name, read late.

    Logs named ``<name>/bucket`` are [BUCKETS, 2]: (weighted sum, weight) per noise bucket.
    """

    nats: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """Negative log-likelihood of B blocks, in nats: ``nats_BK`` [B, K] float64 with K noise draws (K = 1: exact).

    ``kind``: "exact", or "upper" for a bound. ``parts`` names the terms that were added (nats per block, [B]).
    """

    nats_BK: npt.NDArray[np.float64]
    kind: Literal["exact", "upper"]
    parts: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


class Process(Part, ABC, kind="process", supplied=("vocab", "eos", "length")):
    """A way to train and to use a backbone on text.

    ``sees``: sights of backbones that fit. ``offers``: the view it gives samplers. ``states`` and ``outputs`` size
    the backbone. Supplied: ``vocab`` (tokens), ``eos`` (id of the end-of-document token), ``length``.
    """

    sees: ClassVar[frozenset[str]]
    offers: ClassVar[type[View]]
    states: int
    outputs: int
    device: torch.device = torch.device("cpu")

    @property
    def chunk(self) -> int:
        """Rows of one head chunk on the device trained on; prepared batches are padded to whole ones."""
        return chunk_rows(self.outputs, self.device)

    def place(self, device: torch.device) -> None:
        """Say where the network will run; batches stay on the host until they are moved."""
        self.device = device

    @abstractmethod
    def prepare(self, x0_BL: npt.NDArray[np.int64], seq_B: npt.NDArray[np.int64], step: int, rng: Rng) -> Noised:
        """Noise a batch on the host; randomness keyed by (step, sequence)."""

    @abstractmethod
    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """The training loss. ``shell``: a Shell, or a wrapper of one, called as ``shell(f, *args)``."""

    @abstractmethod
    def nll(
        self, shell: nn.Module, x0_BL: npt.NDArray[np.int64], seq_B: npt.NDArray[np.int64], rng: Rng, draws: int
    ) -> Bound:
        """−log p of whole blocks, exact or an upper bound, without gradient."""

    @abstractmethod
    def view(self, shell: nn.Module) -> View:
        """What samplers see. Call under ``torch.no_grad`` and in eval mode."""
