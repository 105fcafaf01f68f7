"""The residual stack: embed → blocks(norm, mixer, norm, MLP; σ by a conditioning) → final norm, and a head beside.

Backbones differ in their mixers and in the pieces they hand to ``Stack``; nothing here knows which. Under autocast
the residual stream, the norms and all that σ passes through stay in float32, matrix products do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import BlockMixer, Branch, CachedBackbone, CachedMixer, Mixer, linear_flops
from backbones.conditioning import Conditioning, Embedding, Modulation
from workbench.core.errors import WorkbenchError
from workbench.kernels.precision import full_precision

if TYPE_CHECKING:
    from backbones.embedding import Hint, Tokens


class LayerNorm(nn.LayerNorm):
    """Layer norm (eps 1e-5) that computes and returns float32 where its weight is float32, autocast or not."""

    def __init__(self, dim: int, bias: bool = False) -> None:
        """``bias``: with GPT-2, without SEDD."""
        super().__init__(dim, bias=bias)

    def forward(self, h_BLD: Tensor) -> Tensor:
        """Normalise over D."""
        with full_precision(h_BLD):
            return F.layer_norm(h_BLD.to(self.weight.dtype), self.normalized_shape, self.weight, self.bias, self.eps)


class MLP(Branch):
    """Linear → GELU (tanh form) → Linear, with biases."""

    def __init__(self, dim: int, ratio: float = 4) -> None:
        """``ratio``: hidden width over ``dim``."""
        super().__init__()
        hidden = max(1, round(dim * ratio))
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, dim)

    def forward(self, h_BLD: Tensor) -> Tensor:
        """Position by position."""
        return self.outer(F.gelu(self.inner(h_BLD), approximate="tanh"))


class Block(nn.Module):
    """h + gate · drop(mixer(norm(h))), then the same with an MLP if there is one; norms and gates as the modulation
    says, the mixer's steps as the pace says.
    """

    mixer: Mixer

    def __init__(
        self,
        mixer: Mixer,
        mlp: nn.Module | None,
        norms: Sequence[nn.Module],
        modulation: Modulation,
        dropout: float = 0.0,
        pace: nn.Module | None = None,
    ) -> None:
        """``norms``: before the mixer, and before the MLP; ``modulation`` makes three parts for each of the two.

        ``dropout`` of branches; ``pace`` (σ's vector → a factor on steps) only with a paced mixer.
        """
        super().__init__()
        self.norm1, self.norm2 = norms[0], norms[1] if mlp is not None else None
        self.mixer = mixer
        self.mlp = mlp
        self.modulation = modulation
        self.pace = pace
        self.dropout = dropout

    def forward(self, h_BLD: Tensor, c: Any = None, cache: Any = None) -> Tensor:
        """One block. ``cache``: the mixer's, read only."""
        parts = self.modulation(c)
        mixed_BLD = self.mixer(modulate(self.norm1(h_BLD), parts[0], parts[1]), cache, **self._paced(c))
        return self._finish(h_BLD, mixed_BLD, parts)

    def commit(self, h_BLD: Tensor, c: Any, cache: Any) -> tuple[Tensor, Any]:
        """``forward``, and the mixer's longer cache."""
        parts = self.modulation(c)
        mixer = _cached(self.mixer)
        mixed_BLD, cache = mixer.commit(modulate(self.norm1(h_BLD), parts[0], parts[1]), cache, **self._paced(c))
        return self._finish(h_BLD, mixed_BLD, parts), cache

    def beside(
        self, h_NSD: Tensor, c: Any, clean_BTD: Tensor, clean_c: Any, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Noised blocks and the clean text beside them, each by its own σ, as the mixer brings them together.

        ``last``: nobody reads the clean text after this block, which then leaves it as it is.
        """
        parts, clean_parts = self.modulation(c), self.modulation(clean_c)
        paced = {} if self.pace is None else {"pace": self.pace(c), "clean_pace": self.pace(clean_c)}
        mixed_NSD, mixed_BTD = cast("BlockMixer", self.mixer).beside(
            modulate(self.norm1(h_NSD), parts[0], parts[1]),
            modulate(self.norm1(clean_BTD), clean_parts[0], clean_parts[1]),
            **paced,
        )
        h_NSD = self._finish(h_NSD, mixed_NSD, parts)
        return h_NSD, clean_BTD if last else self._finish(clean_BTD, mixed_BTD, clean_parts)

    def flops_per_token(self, length: int) -> float:
        """The mixer's and the MLP's; what σ passes through is the stack's to count."""
        return self.mixer.flops_per_token(length) + (0 if self.mlp is None else linear_flops(self.mlp))

    def hearing(self) -> list[nn.Module]:
        """Modules that turn σ's vector into what this block does."""
        return [self.modulation, *([] if self.pace is None else [self.pace])]

    def _paced(self, c: Any) -> dict[str, Tensor]:
        return {} if self.pace is None else {"pace": self.pace(c)}

    def _finish(self, h_BLD: Tensor, mixed_BLD: Tensor, parts: tuple[Tensor | None, ...]) -> Tensor:
        h_BLD = self._add(h_BLD, parts[2], mixed_BLD)
        if self.mlp is None or self.norm2 is None:
            return h_BLD
        return self._add(h_BLD, parts[5], self.mlp(modulate(self.norm2(h_BLD), parts[3], parts[4])))

    def _add(self, h_BLD: Tensor, gate: Tensor | None, branch_BLD: Tensor) -> Tensor:
        if self.training and self.dropout:
            branch_BLD = F.dropout(branch_BLD, self.dropout)
        if gate is None:
            return h_BLD + branch_BLD
        return torch.addcmul(h_BLD, gate, branch_BLD.to(h_BLD.dtype))


def block(
    mixer: Mixer,
    dim: int,
    mlp: nn.Module | None,
    conditioning: Conditioning,
    cond_dim: int,
    dropout: float = 0.0,
) -> Block:
    """A block with SEDD's norms around ``mixer`` and ``mlp`` (None: no second half)."""
    halves = 1 if mlp is None else 2
    return Block(
        mixer,
        mlp,
        [LayerNorm(dim) for _ in range(halves)],
        conditioning.modulation(dim, cond_dim, 3 * halves),
        dropout,
        conditioning.pace(cond_dim) if mixer.paced else None,
    )


class FinalNorm(nn.Module):
    """The last norm, shifted and scaled where the modulation says so."""

    def __init__(self, norm: nn.Module, modulation: Modulation) -> None:
        """``modulation`` makes two parts."""
        super().__init__()
        self.norm = norm
        self.modulation = modulation

    def forward(self, h_BLD: Tensor, c: Tensor | None = None) -> Tensor:
        """Features for the head."""
        shift, scale = self.modulation(c)
        return modulate(self.norm(h_BLD), shift, scale)


@dataclass(frozen=True)
class StackCache:
    """The committed ids x_BL and one cache for each block."""

    x_BL: Tensor
    blocks: tuple[Any, ...]

    @property
    def length(self) -> int:
        """How many positions are committed."""
        return self.x_BL.shape[1]


class Stack(CachedBackbone):
    """Base of backbones that are a residual stack: their constructors choose the pieces, the rest stands here.

    Pieces: ``embed`` (called as ``embed(x_BL, before_BL)``: the ids, and those before them or None),
    ``conditioning`` (hears σ), ``blocks``, ``final`` and ``head``. The blocks may be compiled one by one: no branch
    in them depends on data.
    """

    embed: nn.Module  # with ``by_blocks`` where the stack is blockwise
    conditioning: Embedding
    blocks: nn.ModuleList
    final: FinalNorm
    head: nn.Linear
    causal: bool
    blockwise: bool = False

    def __init__(self) -> None:
        """Without a ``hint``; stacks that hear one make it last, so that their other weights begin as without."""
        super().__init__()
        self.hint: Hint | None = None

    def forward(
        self,
        x_BL: Tensor,
        sigma: Tensor | None = None,
        cache: StackCache | None = None,
        hint_BLD: Tensor | None = None,
    ) -> Tensor:
        """Features h_BLD; see ``Backbone.forward``, and ``Backbone.hears`` for the hint."""
        h_BLD = self.embed(x_BL, None if cache is None else cache.x_BL)
        if hint_BLD is not None:
            h_BLD = self._hint()(h_BLD, hint_BLD)
        c, h_BLD = self.conditioning(sigma, h_BLD)
        caches = (None,) * len(self.blocks) if cache is None else cache.blocks
        for block, kept in zip(self.blocks, caches, strict=True):
            h_BLD = block(h_BLD, c, kept)
        return self.final(h_BLD, c)

    def beside(self, x_NS: Tensor, clean_BT: Tensor, sigma: Tensor | None = None) -> Tensor:
        """See ``Backbone.beside``: noised and clean text go through the blocks side by side."""
        self._require_blocks()
        if not clean_BT.shape[1]:
            return self(x_NS, sigma)
        h_NSD, clean_BTD = cast("Tokens", self.embed).by_blocks(x_NS, clean_BT)
        c, h_NSD = self.conditioning(sigma, h_NSD)
        clean_c, clean_BTD = self.conditioning(None, clean_BTD)
        *first, end = self._blocks()
        for block in first:
            h_NSD, clean_BTD = block.beside(h_NSD, c, clean_BTD, clean_c, last=False)
        h_NSD, _ = end.beside(h_NSD, c, clean_BTD, clean_c, last=True)
        return self.final(h_NSD, c)

    def flops_per_token(self, length: int) -> float:
        """See `network_flops`; a pass that hears a hint."""
        hint = 0 if self.hint is None else linear_flops(self.hint)
        return hint + network_flops(self._blocks(), self.conditioning, self.final, self.head, length)

    def expected(self, p_RV: Tensor) -> Tensor:
        """See ``Backbone.expected``: means of rows of the token table."""
        self._hint()
        table = cast("Tokens", self.embed).table.weight
        return p_RV.to(table.dtype) @ table[: p_RV.shape[-1]]

    def state_bytes(self, length: int) -> int | None:
        """The sum of the mixers' caches, where there is one."""
        return sum(block.mixer.state_bytes(length) for block in self._blocks()) if self.has_cache else None

    @property
    def has_cache(self) -> bool:
        """Causal or blockwise, and every mixer keeps such a cache."""
        kind = CachedMixer if self.causal else BlockMixer
        return (self.causal or self.blockwise) and all(isinstance(block.mixer, kind) for block in self._blocks())

    def new_cache(self, batch: int) -> StackCache:
        """An empty cache for ``batch`` sequences.

        Raises:
            WorkbenchError: the stack is neither causal nor blockwise, or a mixer keeps no cache.
        """
        if not self.causal:
            self._require_blocks()
        none_BL = torch.empty(batch, 0, dtype=torch.long, device=self.head.weight.device)
        return StackCache(none_BL, tuple(_cached(block.mixer).new_cache(batch) for block in self._blocks()))

    def commit(self, x_BL: Tensor, cache: StackCache) -> tuple[Tensor, StackCache]:
        """Append clean tokens: (their features, the longer cache). Hears no σ: they are clean."""
        h_BLD = self.embed(x_BL, cache.x_BL)
        c, h_BLD = self.conditioning(None, h_BLD)
        kept = []
        for block, old in zip(self._blocks(), cache.blocks, strict=True):
            h_BLD, new = block.commit(h_BLD, c, old)
            kept.append(new)
        return self.final(h_BLD, c), StackCache(torch.cat((cache.x_BL, x_BL), dim=1), tuple(kept))

    def _require_blocks(self) -> None:
        if not self.blockwise:
            raise WorkbenchError(
                f"backbone {self.type_name!r} sees both sides and keeps no cache; set causal: true, or blockwise: true "
                "to keep whole blocks"
            )

    def _hint(self) -> Hint:
        if self.hint is None:
            raise WorkbenchError(f"this {self.type_name!r} hears no hints; a stack that can is made with hints: true")
        return self.hint

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))


def modulate(h_BLD: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    """h (1 + scale) + shift, in one pass; h itself where there is nothing to modulate by."""
    if shift is None or scale is None:
        return h_BLD
    return torch.addcmul(shift, h_BLD, 1 + scale)


def network_flops(
    blocks: Sequence[Block], conditioning: Embedding, final: FinalNorm, head: nn.Linear, length: int
) -> float:
    """FLOPs a token of blocks and head; and, once a sequence, of what σ passes through on its way to them."""
    hearing = [conditioning, final.modulation, *(part for block in blocks for part in block.hearing())]
    per_token = sum(block.flops_per_token(length) for block in blocks) + 2 * head.weight.numel()
    return per_token + linear_flops(*hearing) / length


def _cached(mixer: Mixer) -> CachedMixer:
    if not isinstance(mixer, CachedMixer):
        raise WorkbenchError(f"mixer {mixer.type_name!r} keeps no cache: read all tokens again at each step instead")
    return mixer
