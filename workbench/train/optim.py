"""Optimizers as parts, and their state as named tensors.

Which parameters decay, and which Muon turns, is decided here for every network alike: by shape, by role (embedding,
head) and by the names a backbone sets apart, never by the backbone's kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from workbench.core.bounds import Count, NonNegative, Positive, Probability
from workbench.core.errors import WorkbenchError
from workbench.core.part import Part
from workbench.train.muon import CutMuon
from workbench.train.pieces import cut_like, is_cut

STATE = "|"
"""Between a parameter's name and the name of a piece of its state."""


class Trainable(Protocol):
    """What an optimizer asks of a network."""

    head: nn.Linear

    def no_decay(self) -> set[str]:
        """Names of parameters that must be left alone besides those without matrix shape and the embeddings."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Each parameter once, by name."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All submodules."""
        ...


class Kept(NamedTuple):
    """What an optimizer keeps: ``each`` numbers for every one of a parameter's, ``once`` (4 bytes) for all of it.

    ``codes``: of one byte, for every one; each of them with a scale (4 bytes) a ``block``, which lies within a row.
    """

    each: int
    once: int
    codes: int = 0
    block: int = 1

    def numbers(self, size: int) -> int:
        """How many, for a parameter of ``size``."""
        return self.each * size + self.once + self.codes * (size + size // self.block)

    def bytes(self, size: int, one: int) -> int:
        """What they take; ``one``: bytes of one of the parameter's."""
        return self.each * one * size + 4 * self.once + self.codes * (size + 4 * (size // self.block))


class Optimizer(Part, ABC, kind="optimizer"):
    """A way to step weights. Groups carry their own ``rate``; the trainer sets ``lr`` = rate × schedule."""

    whole_matrices: ClassVar[bool] = False
    """Whether a step needs whole matrices and brings none together: not number by number, each from its own gradient
    and state."""

    @abstractmethod
    def build(self, net: Trainable) -> list[torch.optim.Optimizer]:
        """The torch optimizers of ``net``'s trainable parameters; together they hold each parameter once."""

    def state(self, net: Trainable) -> dict[str, Kept]:
        """What stays between steps, by name of trainable parameter. Here as AdamW's: two moments and a count."""
        return {name: Kept(2, 1) for name, p in net.named_parameters() if p.requires_grad}

    def gathered(self, net: Trainable) -> int:
        """Bytes that a step of cut parameters holds for a while in one process; none where it goes number by number."""
        return 0


def plain(net: Trainable) -> set[str]:
    """Names of parameters that take neither weight decay nor Muon.

    Norms and biases (fewer than two axes), embeddings (a head tied to one included), and what the network names
    in ``no_decay`` (state matrices of recurrences, learned positions).

    Raises:
        WorkbenchError: ``no_decay`` names something that is no parameter.
    """
    names = {name for name, _ in net.named_parameters()}
    stated = net.no_decay()
    if stated - names:
        raise WorkbenchError(f"{type(net).__name__}.no_decay() names no parameter: {sorted(stated - names)}")
    tables = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding)}
    return stated | {name for name, p in net.named_parameters() if p.ndim < 2 or id(p) in tables}


def split(net: Trainable, matrices: bool = False) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(hidden matrices, other decayed, not decayed) trainable parameters, in the network's order.

    Without ``matrices`` the first list is empty and its members are in the second.
    """
    apart = plain(net)
    out: tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]] = ([], [], [])
    for name, p in net.named_parameters():
        if p.requires_grad:
            hidden = matrices and p.ndim == 2 and p is not net.head.weight
            out[2 if name in apart else 0 if hidden else 1].append(p)
    return out


def decaying(
    decayed: list[nn.Parameter], rest: list[nn.Parameter], rate: float, decay: float
) -> list[dict[str, Any]]:
    """The groups of an optimizer that steps all at one rate: what decays and what does not, as far as there is any."""
    return [
        {"params": params, "weight_decay": weight, "rate": rate}
        for params, weight in ((decayed, decay), (rest, 0.0))
        if params
    ]


def _adamw(
    decayed: list[nn.Parameter],
    rest: list[nn.Parameter],
    rate: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> list[torch.optim.Optimizer]:
    groups = decaying(decayed, rest, rate, decay)
    # The fused step exists for all-CPU and all-CUDA parameters in floating point: one pass over memory, not eight.
    kinds = {p.device.type for p in (*decayed, *rest)}
    fused = kinds <= {"cpu"} or kinds <= {"cuda"}
    return [torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps, fused=fused)] if groups else []


@Optimizer.register("adamw")
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), fused. The defaults are SEDD's.

    Settings:
        lr: learning rate, before the schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        eps: added to the root of the second moment.
        weight_decay: of matrices only; not of norms, biases, embeddings and what the backbone sets apart.
    """

    def __init__(
        self,
        lr: Positive = 3e-4,
        beta1: Probability = 0.9,
        beta2: Probability = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        """Keep the settings; ``build`` binds them to a network."""
        self.lr, self.betas, self.eps, self.weight_decay = lr, (beta1, beta2), eps, weight_decay

    def build(self, net: Trainable) -> list[torch.optim.Optimizer]:
        """One fused AdamW with a group that decays and one that does not."""
        _, decayed, rest = split(net)
        return _adamw(decayed, rest, self.lr, self.betas, self.eps, self.weight_decay)


@Optimizer.register("muon")
class Muon(Optimizer):
    """Momentum made orthogonal for hidden matrices (Jordan 2024), AdamW for everything else.

    Embeddings, the head, norms, biases, convolutions and what the backbone sets apart stay with AdamW. Where processes
    hold rows of matrices (`workbench.train.muon`), each matrix is turned by one of them.

    Settings:
        lr: learning rate of the hidden matrices, before the schedule.
        rest_lr: learning rate of everything else (AdamW); null for ``lr``, which fits with ``scale: match_rms_adamw``.
        momentum: of the hidden matrices.
        nesterov: look ahead along the momentum.
        newton_schulz: iterations of the orthogonalisation.
        scale: of a matrix's update; ``original`` √max(1, rows/columns), ``match_rms_adamw`` 0.2 √max(rows, columns).
        beta1: AdamW's decay of the mean of gradients.
        beta2: AdamW's decay of the mean of squared gradients.
        eps: AdamW's addition to the root of the second moment.
        weight_decay: of matrices only; not of norms, biases, embeddings and what the backbone sets apart.
    """

    def __init__(
        self,
        lr: Positive = 1e-3,
        rest_lr: Positive | None = None,
        momentum: Probability = 0.95,
        nesterov: bool = True,
        newton_schulz: Count = 5,
        scale: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        beta1: Probability = 0.9,
        beta2: Probability = 0.95,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        """Keep the settings; ``build`` binds them to a network."""
        self.lr, self.rest_lr = lr, lr if rest_lr is None else rest_lr
        self.momentum, self.nesterov, self.newton_schulz, self.scale = (
            momentum,
            nesterov,
            newton_schulz,
            scale,
        )
        self.betas, self.eps, self.weight_decay = (beta1, beta2), eps, weight_decay

    def build(self, net: Trainable) -> list[torch.optim.Optimizer]:
        """Muon on the hidden matrices and AdamW on the others."""
        matrices, decayed, rest = split(net, matrices=True)
        out = _adamw(decayed, rest, self.rest_lr, self.betas, self.eps, self.weight_decay)
        if matrices:
            kind = CutMuon if any(is_cut(p) for p in matrices) else torch.optim.Muon
            muon = kind(
                [{"params": matrices, "rate": self.lr}],
                lr=self.lr,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.newton_schulz,
                adjust_lr_fn=self.scale,
            )
            out.insert(0, muon)
        return out

    def state(self, net: Trainable) -> dict[str, Kept]:
        """One momentum for a hidden matrix, AdamW's for the rest."""
        hidden = {id(p) for p in split(net, matrices=True)[0]}
        apart = {name: Kept(1, 0) for name, p in net.named_parameters() if id(p) in hidden}
        return super().state(net) | apart

    def gathered(self, net: Trainable) -> int:
        """The largest hidden matrix in bfloat16, as it came, as it is turned and as rows on their way, and two squares
        of its shorter side."""
        return max((2 * (3 * p.numel() + 2 * min(p.shape) ** 2) for p in split(net, matrices=True)[0]), default=0)


def set_factor(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> float:
    """Set every group's learning rate to its own rate × ``factor``; the first group's is returned for the log."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
    return float(optimizers[0].param_groups[0]["lr"])


def _names(net: Trainable) -> dict[int, str]:
    return {id(p): name for name, p in net.named_parameters()}


def state_tensors(
    optimizers: Sequence[torch.optim.Optimizer], net: Trainable
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, plain numbers) of the optimizers' state, by ``<parameter>|<piece>``: exact, and free of order.

    Learning rates are not in it: they follow from the recipe and the step.
    """
    names = _names(net)
    tensors: dict[str, Tensor] = {}
    plain_values: dict[str, Any] = {}
    for optimizer in optimizers:
        for p, state in optimizer.state.items():
            for piece, value in state.items():
                key = f"{names[id(p)]}{STATE}{piece}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    plain_values[key] = value
    return tensors, plain_values


def load_state(
    optimizers: Sequence[torch.optim.Optimizer],
    net: Trainable,
    tensors: Mapping[str, Tensor],
    plain_values: Mapping[str, Any],
) -> None:
    """Put back what ``state_tensors`` gave; of what is cut, the rows held here.

    Raises:
        WorkbenchError: the state is of other parameters than this network's.
    """
    names, parameters = _names(net), dict(net.named_parameters())
    by_name: dict[str, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *plain_values.items()]:
        name, _, piece = key.rpartition(STATE)
        if isinstance(value, Tensor) and value.ndim and name in parameters:
            value = cut_like(parameters[name], value)
        by_name.setdefault(name, {})[piece] = value
    for optimizer in optimizers:
        empty = optimizer.state_dict()
        held = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        indices = [index for group in empty["param_groups"] for index in group["params"]]
        state = {index: by_name.pop(name) for index, name in zip(indices, held, strict=True) if name in by_name}
        optimizer.load_state_dict({"state": state, "param_groups": empty["param_groups"]})
    if by_name:
        raise WorkbenchError(f"the checkpoint's optimizer state is of another network: {sorted(by_name)[:3]}")
