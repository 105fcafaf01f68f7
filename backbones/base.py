"""The contract of backbones (token ids → features) and of sequence mixers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from workbench.core.part import Part

Sight = Literal["left", "all", "block", "others"]
"""What position i of the features may depend on: positions ≤ i, all, its block and those before, all but i."""


class Backbone(nn.Module, Part, ABC, kind="backbone", supplied=("states", "outputs", "length")):
    """A network from token ids to features, and the linear head from features to outputs.

    The head is applied outside ``forward``, on the rows that need it: a backbone never makes a B×L×V tensor.
    Supplied: ``states`` (number of input ids, the mask included), ``outputs`` (width of the head), ``length`` (the
    longest sequence asked for). A backbone never sees the graph.
    """

    head: nn.Linear

    @classmethod
    def sight(cls, settings: Mapping[str, Any]) -> Sight:
        """What a position sees under these (resolved) settings; causality is a setting, not a class."""
        return "all"

    @abstractmethod
    def forward(self, x_BL: Tensor, sigma: Tensor | None = None, cache: Any = None) -> Tensor:
        """Features h_BLD of the tokens ``x_BL`` (int64).

        ``sigma``: total noise, [B], [1] (one for all), [B, L] or None (no conditioning). With ``cache`` (from
        ``new_cache``, only on backbones that have one) ``x_BL`` continues the cached tokens; the cache is read, never
        written.
        """

    def no_decay(self) -> set[str]:
        """Names of parameters besides biases, norms and embeddings that weight decay must leave alone."""
        return set()

    @property
    def has_cache(self) -> bool:
        """Whether ``new_cache`` and ``commit`` can be used on this network."""
        return False


class CachedBackbone(Backbone):
    """A left-sighted backbone with a cache of clean tokens: reading and committing are apart.

    A cache is a value: it stays valid, and may be read or continued again, after a commit made a longer one of it.
    """

    @property
    def has_cache(self) -> bool:
        """True, unless settings (no causality, a mixer without a cache) take it away."""
        return True

    @abstractmethod
    def new_cache(self, batch: int) -> Any:
        """An empty cache for ``batch`` sequences, on the parameters' device and type."""

    @abstractmethod
    def commit(self, x_BL: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Append clean tokens: (features h_BLD of ``x_BL``, the longer cache). One network pass."""


class Mixer(nn.Module, Part, ABC, kind="mixer", supplied=("dim", "length", "causal")):
    """A sequence mixer of a block: h_BLD → h_BLD.

    Supplied: ``dim`` (D), ``length`` (the longest sequence asked for), ``causal``. Each mixer does both: with
    ``causal`` position i sees those ≤ i, without it every position (a recurrence then runs both ways).
    """

    @abstractmethod
    def forward(self, h_BLD: Tensor, cache: Any = None) -> Tensor:
        """Mix along L. ``cache``: what this mixer's ``commit`` made of the tokens before, or None."""

    @abstractmethod
    def flops_per_token(self, length: int) -> float:
        """Forward multiply-adds × 2 per token at this length."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of cached state per sequence after ``length`` tokens, in 16-bit storage."""


class CachedMixer(Mixer):
    """A mixer that, when causal, can keep what later positions need of earlier ones."""

    @abstractmethod
    def new_cache(self, batch: int) -> Any:
        """An empty cache for ``batch`` sequences, on the parameters' device and type."""

    @abstractmethod
    def commit(self, h_BLD: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """(what ``forward(h_BLD, cache)`` gives, the cache with ``h_BLD`` appended); the old cache stays valid."""
