"""How the noise level σ reaches a stack: adaptive layer norms, an added vector, recurrent steps, or not at all.

A conditioning is a recipe for modules, since it is named before the stack's width is known; ``embedding`` and
``modulation`` make them. The modules run in float32 outside autocast: they are [B]-sized, and errors in a
gate or a scale touch every position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Mixer
from workbench.core.errors import Problem
from workbench.core.part import Part
from workbench.kernels.precision import full_precision

if TYPE_CHECKING:
    from workbench.core.spec import Node

FREQUENCIES = 256
MAX_PERIOD = 10_000


class Conditioning(Part, ABC, kind="conditioning"):
    """A way for σ to reach the blocks of a stack."""

    @abstractmethod
    def embedding(self, dim: int, cond_dim: int) -> Embedding:
        """The module that hears σ, once per network call; ``dim`` is the stack's width."""

    @abstractmethod
    def modulation(self, dim: int, cond_dim: int, parts: int) -> Modulation:
        """A module that makes ``parts`` modulating tensors of width ``dim``, one such module a block."""

    def pace(self, cond_dim: int) -> nn.Module | None:
        """A module from the embedding's vector to a positive factor [B, 1 or L, 1] on the steps of a block's mixer.

        Asked for once a block whose mixer is paced; None where σ does not reach steps.
        """
        return None


class Embedding(nn.Module):
    """σ heard by nobody: no vector for the blocks, nothing added to the tokens. Base of those that do hear."""

    def forward(self, sigma: Tensor | None, h_BLD: Tensor) -> tuple[Tensor | None, Tensor]:
        """(the vector c_B1C or c_BLC for the modulations, or None; the token features, perhaps changed)."""
        return None, h_BLD


class Modulation(nn.Module):
    """No modulation: None for each part. Base of those that do modulate."""

    def __init__(self, parts: int) -> None:
        """``parts``: how many modulating tensors the caller unpacks."""
        super().__init__()
        self.parts = parts

    def forward(self, c: Tensor | None) -> tuple[Tensor | None, ...]:
        """``parts`` tensors [B, 1 or L, D] to shift, scale and gate by, or Nones."""
        return (None,) * self.parts


class SigmaVector(nn.Module):
    """SEDD's embedding of σ (unscaled): cos ‖ sin at 256/2 frequencies → Linear → SiLU → Linear → SiLU."""

    inv_period_F: Tensor

    def __init__(self, cond_dim: int) -> None:
        """``cond_dim``: width C of the vector."""
        super().__init__()
        half = FREQUENCIES // 2
        exponents_F = torch.arange(half, dtype=torch.float32) / half
        self.register_buffer("inv_period_F", torch.exp(-math.log(MAX_PERIOD) * exponents_F), persistent=False)
        self.inner = nn.Linear(FREQUENCIES, cond_dim)
        self.outer = nn.Linear(cond_dim, cond_dim)

    def forward(self, sigma: Tensor | None, h_BLD: Tensor) -> Tensor:
        """c [B, 1, C] of σ [B], or [B, L, C] of σ [B, L]; no σ is σ = 0, the value a time-free network hears.

        One σ for all, or none, is one row [1, 1, C], which modulates a batch of any size, and in the same way.
        """
        weight = self.inner.weight
        if sigma is None:
            sigma = weight.new_zeros(1)
        with full_precision(weight):
            sigma = sigma.to(weight.dtype).reshape(sigma.shape[0], -1, 1)
            angle = sigma * self.inv_period_F.to(weight.dtype)
            waves = torch.cat((angle.cos(), angle.sin()), dim=-1)
            return F.silu(self.outer(F.silu(self.inner(waves))))


@Conditioning.register("adaln")
class AdaLN(Conditioning):
    """Adaptive layer norm, zero-initialised (adaLN-zero; Peebles & Xie 2023), as SEDD has it: σ shifts and scales
    what each norm gives out and gates what each branch adds. Blocks begin as the identity.
    """

    def embedding(self, dim: int, cond_dim: int) -> Embedding:
        """A vector for the modulations."""
        return _ForModulation(cond_dim)

    def modulation(self, dim: int, cond_dim: int, parts: int) -> Modulation:
        """A zero-initialised linear map from the vector."""
        return _Linear(dim, cond_dim, parts)


@Conditioning.register("added")
class Added(Conditioning):
    """σ's vector, mapped to the stack's width (zero-initialised), is added to the token embeddings."""

    def embedding(self, dim: int, cond_dim: int) -> Embedding:
        """A vector added to the tokens."""
        return _AddedVector(dim, cond_dim)

    def modulation(self, dim: int, cond_dim: int, parts: int) -> Modulation:
        """None."""
        return Modulation(parts)


@Conditioning.register("none")
class Unconditioned(Conditioning):
    """The network does not hear σ: enough on the absorbing graph, where the share of masks tells it."""

    def embedding(self, dim: int, cond_dim: int) -> Embedding:
        """Deaf to σ."""
        return Embedding()

    def modulation(self, dim: int, cond_dim: int, parts: int) -> Modulation:
        """None."""
        return Modulation(parts)


@Conditioning.register("step_size")
class StepSize(Conditioning):
    """σ as a scale on the steps Δ of recurrent mixers: Δ · exp(w · c(σ) + b) in each block, 1 at the start.

    At high noise a recurrence that takes longer steps forgets sooner, at low noise it reaches further; σ then needs
    no other way in, or goes the usual one as well.

    Settings:
        inner: how σ reaches the blocks besides (none, adaln, added).
    """

    usual = {"inner": {"type": "none"}}

    def __init__(self, inner: Conditioning) -> None:
        """Keep what is wrapped."""
        self.inner = inner

    def embedding(self, dim: int, cond_dim: int) -> Embedding:
        """The inner one's, and a vector of its own."""
        return _Both(self.inner.embedding(dim, cond_dim), cond_dim)

    def modulation(self, dim: int, cond_dim: int, parts: int) -> Modulation:
        """The inner one's."""
        return _OfInner(self.inner.modulation(dim, cond_dim, parts))

    def pace(self, cond_dim: int) -> nn.Module:
        """exp of a zero-initialised linear map of the vector."""
        return _Pace(cond_dim)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A backbone none of whose mixers takes steps."""
        yield from super().misfits(node, root)
        backbone = root.find("backbone")
        if backbone is None:
            return
        inner = node.settings["inner"]
        if any(issubclass(one.part, StepSize) for one in inner.walk()):
            yield Problem(inner.path, "the steps are scaled once: what 'step_size' wraps cannot be 'step_size' again")
        part: Any = backbone.part
        if not any(mixer.part.paced for mixer in part.mixers(backbone)):
            fitting = sorted(name for name, part in Mixer.registered.items() if issubclass(part, Mixer) and part.paced)
            yield Problem(
                node.path,
                f"conditioning 'step_size' scales the steps of recurrent mixers, and backbone "
                f"{backbone.part.type_name!r} has none. Mixers that fit: {', '.join(fitting)}.",
            )


ADALN = AdaLN()
"""SEDD's conditioning: a stateless object, the default where a stack is built by hand."""


class _ForModulation(Embedding):
    def __init__(self, cond_dim: int) -> None:
        super().__init__()
        self.vector = SigmaVector(cond_dim)

    def forward(self, sigma: Tensor | None, h_BLD: Tensor) -> tuple[Tensor | None, Tensor]:
        return self.vector(sigma, h_BLD), h_BLD


class _AddedVector(Embedding):
    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.vector = SigmaVector(cond_dim)
        self.project = nn.Linear(cond_dim, dim)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, sigma: Tensor | None, h_BLD: Tensor) -> tuple[Tensor | None, Tensor]:
        c = self.vector(sigma, h_BLD)
        with full_precision(h_BLD):
            return None, h_BLD + self.project(c)


class _Both(Embedding):
    """The vector of an inner embedding beside one for paces: the blocks hand the pair on to whom it concerns."""

    def __init__(self, inner: Embedding, cond_dim: int) -> None:
        super().__init__()
        self.inner = inner
        self.vector = SigmaVector(cond_dim)

    def forward(self, sigma: Tensor | None, h_BLD: Tensor) -> tuple[Any, Tensor]:
        c, changed_BLD = self.inner(sigma, h_BLD)
        return (c, self.vector(sigma, h_BLD)), changed_BLD


class _OfInner(Modulation):
    def __init__(self, inner: Modulation) -> None:
        super().__init__(inner.parts)
        self.inner = inner

    def forward(self, c: Any) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor | None, ...] = self.inner(c[0])
        return found


class _Pace(nn.Module):
    def __init__(self, cond_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(cond_dim, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Any) -> Tensor:
        with full_precision(c[1]):
            factor: Tensor = self.linear(c[1]).exp()
            return factor


class _Linear(Modulation):
    def __init__(self, dim: int, cond_dim: int, parts: int) -> None:
        super().__init__(parts)
        self.linear = nn.Linear(cond_dim, parts * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor | None) -> tuple[Tensor | None, ...]:
        assert c is not None  # the embedding of the same conditioning made it
        with full_precision(c):
            return self.linear(c).chunk(self.parts, dim=-1)


@Conditioning.register("time_free")
class TimeFree(Conditioning):
    """Another conditioning that hears σ = 0 at every noise, as MDLM's networks do (``time_conditioning: false``).

    Settings:
        inner: the conditioning, whose parameters stay: published weights hold them.
    """

    usual = {"inner": {"type": "adaln"}}

    def __init__(self, inner: Conditioning) -> None:
        """``inner`` is told 0."""
        self.inner = inner

    def embedding(self, dim: int, cond_dim: int) -> Embedding:
        """The inner one's, behind a wall."""
        return _Deaf(self.inner.embedding(dim, cond_dim))

    def modulation(self, dim: int, cond_dim: int, parts: int) -> Modulation:
        """The inner one's."""
        return self.inner.modulation(dim, cond_dim, parts)

    def pace(self, cond_dim: int) -> nn.Module | None:
        """The inner one's."""
        return self.inner.pace(cond_dim)


class _Deaf(Embedding):
    def __init__(self, inner: Embedding) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sigma: Tensor | None, h_BLD: Tensor) -> tuple[Any, Tensor]:
        # one σ for all: [1, 1, C] modulates a batch of any size at the cost of one row
        return self.inner(h_BLD.new_zeros(1, dtype=torch.float32), h_BLD)
