"""What stands before and after a stack's blocks: token tables, positions, and heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.blockwise import before_blocks
from workbench.core.errors import WorkbenchError


class Tokens(nn.Module):
    """A table of token vectors, uniform in ±1/√D as SEDD begins (kaiming_uniform with a = √5).

    With ``reach``, each position also adds what the tokens up to ``reach`` places away say to it, by one further
    table for each offset: local word order without an attention layer having to find it. Outside of the sequence
    stands an id of its own, whose vectors are zero.
    """

    def __init__(self, states: int, dim: int, reach: int = 0, causal: bool = False) -> None:
        """``states``: number of input ids; ``causal``: only offsets to the left."""
        super().__init__()
        self.states, self.reach = states, reach
        self.offsets = [*range(-reach, 0), *(() if causal else range(1, reach + 1))]
        self.right = 0 if causal else reach
        self.table = nn.Embedding(states, dim)
        self.beside = nn.ModuleList(nn.Embedding(states + 1, dim, padding_idx=states) for _ in self.offsets)
        for weight in self.parameters():
            nn.init.uniform_(weight[:states], -(dim**-0.5), dim**-0.5)
            with torch.no_grad():
                weight[states:] = 0.0

    def forward(self, x_BL: Tensor, before_BL: Tensor | None = None) -> Tensor:
        """h_BLD of tokens that follow ``before_BL``; positions are the mixers' affair."""
        h_BLD = self.table(x_BL)
        if not self.offsets:
            return h_BLD
        length = x_BL.shape[1]
        ids_BL = x_BL if before_BL is None else torch.cat((before_BL[:, -self.reach :], x_BL), dim=1)
        left = self.reach - (ids_BL.shape[1] - length)
        ids_BL = F.pad(ids_BL, (left, self.right), value=self.states)
        for offset, table in zip(self.offsets, self.beside, strict=True):
            start = self.reach + offset
            h_BLD = h_BLD + table(ids_BL[:, start : start + length])
        return h_BLD


    def by_blocks(self, x_NS: Tensor, clean_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(h_NSD of noised blocks, h_BTD of the clean text), each block after clean tokens, none after it."""
        clean_MS = clean_BT.reshape(-1, x_NS.shape[1])
        if not self.offsets:
            return self(x_NS), self(clean_BT)
        before_NR = before_blocks(clean_BT, self.reach, x_NS.shape[1], self.states)
        before_MR = before_NR.unflatten(0, (len(clean_BT), -1))[:, :-1].flatten(0, 1)
        return self(x_NS, before_NR), self(clean_MS, before_MR).reshape(*clean_BT.shape, -1)


class Hint(nn.Module):
    """Adds a linear map of what a network expects at a position to what stands there; 0 at the start.

    Self-conditioning (Chen, Zhang & Hinton 2022, "Analog bits") puts the expectation beside the input of the first
    linear map: the same, written as a sum.
    """

    def __init__(self, dim: int) -> None:
        """``dim``: width of the token vectors."""
        super().__init__()
        self.map = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.map.weight)

    def forward(self, h_BLD: Tensor, hint_BLD: Tensor) -> Tensor:
        """h_BLD of a text beside the hint, [B, L, D] or [1, 1, D]."""
        return h_BLD + self.map(hint_BLD)


class TokensAndPositions(nn.Module):
    """Token vectors plus learned position vectors, then dropout: GPT-2's input."""

    def __init__(self, states: int, length: int, dim: int, dropout: float = 0.0) -> None:
        """``length``: the number of positions there are."""
        super().__init__()
        self.tokens = nn.Embedding(states, dim)
        self.positions = nn.Embedding(length, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BL: Tensor, before_BL: Tensor | None = None) -> Tensor:
        """h_BLD of tokens that follow ``before_BL``.

        Raises:
            WorkbenchError: a position beyond the learned ones.
        """
        start = 0 if before_BL is None else before_BL.shape[1]
        end = start + x_BL.shape[1]
        if end > self.positions.num_embeddings:
            raise WorkbenchError(
                f"{end} positions asked of a network with {self.positions.num_embeddings} learned ones; raise "
                "data.length, or ask for less"
            )
        return self.dropout(self.tokens(x_BL) + self.positions.weight[start:end])


def zero_head(dim: int, outputs: int) -> nn.Linear:
    """A linear head with bias that begins at zero, as SEDD's: all log-scores equal."""
    head = nn.Linear(dim, outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class TiedHead(nn.Linear):
    """A head without a weight of its own: the first ``outputs`` rows of a token table, no bias.

    ``weight`` *is* the table's parameter where all rows are used, else a view of it (gradients flow through). The
    state dict and ``named_parameters`` hold the table once. Ids beyond ``outputs`` (a mask) are read, never written.
    """

    def __init__(self, table: nn.Embedding, outputs: int) -> None:
        """Tie to ``table``.

        Raises:
            WorkbenchError: more outputs than the table has rows.
        """
        nn.Module.__init__(self)
        if outputs > table.num_embeddings:
            raise WorkbenchError(f"a tied head has at most {table.num_embeddings} outputs, {outputs} were asked for")
        self.in_features, self.out_features = table.embedding_dim, outputs
        self.register_parameter("bias", None)
        self._table = (table,)  # in a tuple: not a submodule, so that it is owned, moved and saved once

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[outputs, D]."""
        weight = self._table[0].weight
        return weight if self.out_features == weight.shape[0] else weight[: self.out_features]


def normal_(module: nn.Module, std: float) -> None:
    """GPT-2's initialisation of every linear map and table below ``module``: normal weights, zero biases."""
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Embedding) and not isinstance(child, TiedHead):
            nn.init.normal_(child.weight, std=std)
            if isinstance(child, nn.Linear) and child.bias is not None:
                nn.init.zeros_(child.bias)


def scale_(weights: list[Tensor], factor: float) -> None:
    """Multiply weights in place, without a gradient."""
    with torch.no_grad():
        for weight in weights:
            weight.mul_(factor)
