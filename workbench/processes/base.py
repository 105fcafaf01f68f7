"""The contract of a process: how clean text becomes training rows, a loss, a likelihood and a view."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samplers.base import View
from workbench.core.errors import Problem, WorkbenchError
from workbench.core.part import Part
from workbench.core.rng import Rng
from workbench.kernels.rows import CompiledRows, RowFunction, chunk_rows

if TYPE_CHECKING:
    from workbench.core.spec import Node

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


def named_weights(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and kept buffers by name; a tensor with two names (a tied head) once, under its first."""
    seen: set[int] = set()
    out = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = tensor.detach()
    return out


@dataclass(frozen=True)
class Noised:
    """A prepared training batch, made on the host.

    ``x_BL`` int64 (what the network reads); ``sigma_B`` float32 or None; ``rows_R`` flat positions b·L + l whose
    head outputs the loss needs, padded; ``x_R`` the input ids there, ``target_R`` the clean tokens,
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


@dataclass(frozen=True)
class Continuation:
    """What a process says of continuations: ``bound`` of their negative log-likelihood given what stands before, and
    ``right_Bn``: at which of their n tokens the likeliest token of one look is the true one (bool).
    """

    bound: Bound
    right_Bn: npt.NDArray[np.bool_]


class Process(Part, ABC, kind="process", supplied=("vocab", "eos", "length")):
    """A way to train and to use a backbone on text.

    ``sees``: sights of backbones that fit. ``offers``: the view it gives samplers. ``states`` and ``outputs`` size
    the backbone; ``copies``: sequences that it reads in training for one of the batch. Supplied: ``vocab`` (tokens),
    ``eos`` (id of the end-of-document token), ``length``.
    """

    sees: ClassVar[frozenset[str]]
    offers: ClassVar[type[View]]
    length: int
    states: int
    outputs: int
    device: torch.device = torch.device("cpu")
    hints: ClassVar[bool] = False
    """Whether it tells the network hints (`Backbone.hears`): a network that hears them gets some, and the other way."""
    loss_is_text: bool = True
    """Whether the training loss is nats of text, so that it can be shown as bits per byte."""
    copies: int = 1
    looks: float = 0.0
    """Passes without gradient over one sequence of the batch, on average: of this network or of one that teaches it."""
    teachers: int = 0
    """Networks of the backbone's size that it keeps in training."""
    encloses: ClassVar[bool] = True
    """Whether it may be the process of a part of the text: not one that keeps a network of its own between updates."""

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A backbone that sees or hears too much or too little; where another process stands around, it is asked."""
        yield from super().misfits(node, root)
        backbone = root.find("backbone")
        if backbone is not None and root.find("process") in (None, node):
            part: Any = backbone.part
            sight = part.sight(backbone.settings)
            if part.hears(backbone.settings) != cls.hints:
                hears, tells = ("no", "some") if cls.hints else ("some", "none")
                remedies = _remedies(backbone, lambda other, settings: other.hears(settings) == cls.hints)
                yield Problem(
                    backbone.path,
                    f"backbone {part.type_name!r} hears {hears} hints, and process {cls.type_name!r} tells {tells}. "
                    f"What would fit: {', '.join(remedies) or 'no backbone at hand'}.",
                )
            if sight not in cls.sees:
                needs = " or ".join(repr(wanted) for wanted in sorted(cls.sees))
                remedies = _remedies(backbone, lambda other, settings: other.sight(settings) in cls.sees)
                yield Problem(
                    backbone.path,
                    f"a position of backbone {part.type_name!r} sees {sight!r}, and process {cls.type_name!r} "
                    f"needs {needs}. What would fit: {', '.join(remedies) or 'no backbone at hand'}.",
                )

    @classmethod
    def says_unigram(cls, node: Node) -> bool:
        """Whether ``unigram_bias`` of a process with these (resolved) settings is a bias, and not None."""
        return False

    @property
    def chunk(self) -> int:
        """Rows of one head chunk on the device trained on; prepared rows are padded a little (`padded_rows`)."""
        return chunk_rows(self.outputs, self.device)

    def place(self, device: torch.device) -> None:
        """Say where the network will run; batches stay on the host until they are moved."""
        self.device = device

    def unigram_bias(self, share_V: Tensor) -> Tensor | None:
        """The head bias [outputs] at which a network that says nothing else gives tokens the law ``share_V``.

        None where no bias can say so (``says_unigram`` tells it before).
        """
        return None

    def begin(self, net: nn.Module) -> None:
        """Look at the network before its first update, the weights that it starts from in place; on the CPU."""

    def advance(self, done: int, weights: Callable[[bool], Mapping[str, Tensor]]) -> None:
        """After ``done`` updates. ``weights(averaged)``: the network's by name, the averages where there are any."""

    def kept(self) -> Mapping[str, Tensor]:
        """What the process remembers, for checkpoints: tensors by name, none by default."""
        return {}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``kept`` gave, after ``begin``."""

    rows: RowFunction
    """What the fused kernel does with a chunk of head outputs."""

    def compile_chunks(self) -> None:
        """Compile what is done with a chunk (never the gather of its rows, whose number varies)."""
        self.rows = CompiledRows(self.rows, self.device)

    @abstractmethod
    def prepare(
        self, x0_BL: npt.NDArray[np.int64], seq_B: npt.NDArray[np.int64], step: int, rng: Rng
    ) -> Noised:
        """Noise a batch on the host; randomness keyed by (step, sequence)."""

    @abstractmethod
    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """The training loss. ``shell``: a Shell, or a wrapper of one, called as ``shell(f, *args)``."""

    @abstractmethod
    def nll(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Bound:
        """−log p of whole blocks, exact or an upper bound, without gradient."""

    def continuation(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        given: int,
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Continuation:
        """−log p(x_0[given:] | x_0[:given]) of texts of one length, exact or an upper bound, without gradient.

        Texts are at most `reach` long. Sequences of one number see the same noise; 0 draws: the guesses alone.

        Raises:
            WorkbenchError: this process has no way to say it.
        """
        raise WorkbenchError(f"process {self.type_name!r} cannot say how likely a continuation is; take another run")

    @property
    def reach(self) -> int:
        """How many tokens `continuation` takes at once, what is given included."""
        return self.length

    @abstractmethod
    def view(self, shell: nn.Module) -> View:
        """What samplers see. Call under ``torch.no_grad`` and in eval mode."""


def _remedies(backbone: Node, fits: Callable[[Any, Mapping[str, Any]], bool]) -> list[str]:
    """Settings of this backbone, then other backbones (with their defaults), that fit."""
    part: Any = backbone.part
    found = [
        f"{name}: {str(not value).lower()}"
        for name, value in backbone.settings.items()
        if isinstance(value, bool) and fits(part, {**backbone.settings, name: not value})
    ]
    others: dict[str, Any] = {name: other for name, other in part.registered.items() if other is not part}
    return found + [f"type: {name}" for name, other in sorted(others.items()) if fits(other, {})]
