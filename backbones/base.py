"""The contract of backbones (token ids → features) and of sequence mixers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from workbench.core.part import Part

if TYPE_CHECKING:
    from workbench.core.spec import Node

Sight = Literal["left", "all", "block", "others"]
"""What position i of the features may depend on: positions ≤ i, all, its block and those before (clean), all but i."""


class Backbone(nn.Module, Part, ABC, kind="backbone", supplied=("states", "outputs", "length")):
    """A network from token ids to features, and the linear head from features to outputs.

    The head is applied outside ``forward``, on the rows that need it: a backbone never makes a B×L×V tensor.
    Supplied: ``states`` (number of input ids, the mask included), ``outputs`` (width of the head), ``length`` (the
    longest sequence asked for). A backbone never sees the graph. ``head_bias``: whether the head has a bias.
    """

    head: nn.Linear
    head_bias: ClassVar[bool] = True

    @classmethod
    def sight(cls, settings: Mapping[str, Any]) -> Sight:
        """What a position sees under these (resolved) settings; causality is a setting, not a class."""
        return "all"

    @classmethod
    def hears(cls, settings: Mapping[str, Any]) -> bool:
        """Whether, under these (resolved) settings, ``forward`` takes ``hint_BLD`` and ``expected`` makes hints.

        ``hint_BLD`` is the expected token vector at positions where there is something to expect, 0 elsewhere. None and
        0 are the same to the digit, and so is any hint to a network that was never trained.
        """
        return False

    @classmethod
    def mixers(cls, node: Node) -> list[Node]:
        """The resolved mixers that a network of this node is made of."""
        return [inner for inner in node.walk() if issubclass(inner.part, Mixer)]

    @abstractmethod
    def forward(self, x_BL: Tensor, sigma: Tensor | None = None, cache: Any = None) -> Tensor:
        """Features h_BLD of the tokens ``x_BL`` (int64).

        ``sigma``: total noise, [B], [1] (one for all), [B, L] or None (no conditioning). With ``cache`` (from
        ``new_cache``, only on backbones that have one) ``x_BL`` continues the cached tokens; the cache is read, never
        written.
        """

    def beside(self, x_NS: Tensor, clean_BT: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Features h_NSD of all noised blocks of B texts in one pass, each after the clean text before it.

        Only on backbones whose sight is "block". N = B · K blocks of S tokens, block n = b · K + k standing at
        positions k · S … of text b and seeing the clean tokens of its first k blocks; ``clean_BT``: T = (K − 1) · S
        tokens. ``sigma`` as in ``forward``, of the N blocks; clean tokens hear none.

        Raises:
            NotImplementedError: the network does not read blocks.
        """
        raise NotImplementedError(f"backbone {self.type_name!r} does not read noised blocks beside clean text")

    def expected(self, p_RV: Tensor) -> Tensor:
        """The expected token vectors of laws of the clean token, [R, D]: what a hint is made of (``hears``).

        Raises:
            NotImplementedError: the network hears no hints.
        """
        raise NotImplementedError(f"backbone {self.type_name!r} hears no hints")

    def no_decay(self) -> set[str]:
        """Names of parameters besides biases, norms and embeddings that weight decay must leave alone: its mixers'."""
        mixers = [(path, module) for path, module in self.named_modules() if isinstance(module, Mixer)]
        return {f"{path}.{name}" for path, mixer in mixers for name in mixer.no_decay()}

    def products(self) -> set[str]:
        """Names of parameters that nothing reads but products which autocast takes: what its branches say of theirs.

        autocast casts them before each product, so that they may come in its type: the numbers are the same.
        """
        return self._said(lambda branch: branch.products())

    def coarse_products(self) -> set[str]:
        """Those of `products` that a training may round to 8 bits as well. Never the head, and nothing that σ passes
        through."""
        return self._said(lambda branch: branch.coarse_products())

    def _said(self, ask: Callable[[Branch], set[str]]) -> set[str]:
        branches = [(path, module) for path, module in self.named_modules() if isinstance(module, Branch)]
        return {f"{path}.{name}" for path, branch in branches for name in ask(branch)}

    def flops_per_token(self, length: int) -> float | None:
        """Forward FLOPs (2 × multiply-adds) per token at this length, head included, by formula.

        None: no formula; then they are counted (`backbones.cost`).
        """
        return None

    def state_bytes(self, length: int) -> int | None:
        """Bytes that its cache holds of a sequence after ``length`` tokens; None without a cache."""
        return None

    @property
    def has_cache(self) -> bool:
        """Whether ``new_cache`` and ``commit`` can be used on this network."""
        return False


class CachedBackbone(Backbone):
    """A backbone with a cache of clean tokens: reading and committing are apart.

    A cache is a value: it stays valid, and may be read or continued again, after a commit made a longer one of it.
    Where the sight is "left", tokens may be committed in any pieces. Where it is "block", what is committed or read
    in one call is one block, whose tokens see one another and what the cache holds.
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

    def beside(self, x_NS: Tensor, clean_BT: Tensor, sigma: Tensor | None = None) -> Tensor:
        """See the base: block after block through the cache, which says what is due; a pass for all is faster."""
        blocks_BKS = x_NS.unflatten(0, (len(clean_BT), -1))
        count, size = blocks_BKS.shape[1:]
        each = sigma is not None and sigma.shape[0] == len(x_NS)
        sigmas = sigma.unflatten(0, (-1, count)).unbind(1) if sigma is not None and each else (sigma,) * count
        cache, found = self.new_cache(len(clean_BT)), []
        for index, told in enumerate(sigmas):
            found.append(self(blocks_BKS[:, index], told, cache))
            if index + 1 < count:
                _, cache = self.commit(clean_BT[:, index * size : (index + 1) * size], cache)
        return torch.stack(found, 1).flatten(0, 1)


class Branch(nn.Module):
    """What a block adds to the residual stream, position by position or along the sequence: an MLP, a mixer."""

    def products(self) -> set[str]:
        """Names of parameters that nothing reads but products which autocast takes: here those of linear maps, less
        what branches inside say of theirs. One that reads such a parameter otherwise (in float32, or its type) leaves
        it out.
        """
        branches = [m for m in self.modules() if isinstance(m, Branch) and m is not self]
        inside = {m for branch in branches for m in branch.modules()}
        maps = [(path, m) for path, m in self.named_modules() if isinstance(m, nn.Linear) and m not in inside]
        return {f"{path}.{name}".lstrip(".") for path, m in maps for name, _ in m.named_parameters()}

    def coarse_products(self) -> set[str]:
        """Those of `products` that a training may round to 8 bits as well: here all of them."""
        return self.products()


class Mixer(Branch, Part, ABC, kind="mixer", supplied=("dim", "length", "causal")):
    """A sequence mixer of a block: h_BLD → h_BLD.

    Supplied: ``dim`` (D), ``length`` (the longest sequence asked for), ``causal``. Each mixer does both: with
    ``causal`` position i sees those ≤ i, without it every position (a recurrence then runs both ways).
    ``paced``: it steps along the sequence, and its methods take ``pace`` [B, 1 or L, 1], a factor on every step.
    ``widens``: it is wider inside than outside, as an MLP is, so that its block can do without one.
    """

    paced: ClassVar[bool] = False
    widens: ClassVar[bool] = False

    @classmethod
    def unfit(cls, settings: Mapping[str, Any], dim: int) -> Iterator[tuple[str, str]]:
        """(setting, message) for each of these resolved settings that a stack of this width cannot have."""
        yield from ()

    @classmethod
    def unfit_for_blocks(cls, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(setting, message) for what keeps a mixer of these resolved settings from reading blocks, if it could."""
        yield from ()

    def no_decay(self) -> set[str]:
        """Names of parameters besides biases and norms that weight decay must leave alone."""
        return set()

    @abstractmethod
    def forward(self, h_BLD: Tensor, cache: Any = None) -> Tensor:
        """Mix along L. ``cache``: what this mixer's ``commit`` made of the tokens before, or None."""

    @abstractmethod
    def flops_per_token(self, length: int) -> float:
        """Forward multiply-adds × 2 per token at this length."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of cached state per sequence after ``length`` tokens, in the parameters' type."""


class CachedMixer(Mixer):
    """A mixer that, when causal, can keep what later positions need of earlier ones."""

    @abstractmethod
    def new_cache(self, batch: int) -> Any:
        """An empty cache for ``batch`` sequences, on the parameters' device and type."""

    @abstractmethod
    def commit(self, h_BLD: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """(what ``forward(h_BLD, cache)`` gives, the cache with ``h_BLD`` appended); the old cache stays valid."""


class BlockMixer(CachedMixer):
    """A mixer whose cache also holds whole blocks when it is not causal, and that mixes many blocks at once.

    Without ``causal``, what one call of ``forward`` or ``commit`` gets is one block: its positions see one another and
    what the cache holds.
    """

    @abstractmethod
    def beside(self, h_NSD: Tensor, clean_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """(mixed noised blocks [N, S, D], mixed clean text [B, T, D]), numbered as in `Backbone.beside`.

        Each noised block as ``forward`` mixes it with a cache of the clean blocks before it, each clean one as
        ``commit`` does.
        """


def linear_flops(*modules: nn.Module) -> int:
    """2 for each weight of the linear maps in these modules: FLOPs of one application."""
    return sum(2 * m.weight.numel() for module in modules for m in module.modules() if isinstance(m, nn.Linear))
