"""What networks share that read noised blocks beside clean text: which mixers can, and what stands before a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from backbones.base import BlockMixer, Mixer
from workbench.core.errors import Problem

if TYPE_CHECKING:
    from workbench.core.spec import Node


def mixer_block_misfits(node: Node, mixer: Node) -> Iterator[Problem]:
    """A mixer of a blockwise network that reads no blocks."""
    part: Any = mixer.part
    if not node.settings["blockwise"]:
        return
    if not issubclass(part, BlockMixer):
        known: dict[str, Any] = dict(Mixer.registered)
        fitting = [name for name, one in sorted(known.items()) if issubclass(one, BlockMixer)]
        yield Problem(
            mixer.path, f"mixer {part.type_name!r} reads no blocks of tokens. What would fit: {', '.join(fitting)}."
        )
        return
    for setting, message in part.unfit_for_blocks(mixer.settings):
        yield Problem(f"{mixer.path}.{setting}", message)


def before_blocks(clean_BTX: Tensor, reach: int, size: int, fill: float = 0) -> Tensor:
    """The ``reach`` clean positions (ids [B, T] or features [B, T, D]) before each of K blocks, [B · K, reach, …].

    ``fill`` stands before the text. T = (K − 1) · size.
    """
    sides = (0, 0) * (clean_BTX.dim() - 2)
    padded = F.pad(clean_BTX, (*sides, reach, 0), value=fill)
    windows = padded.unfold(1, reach, size)  # [B, K, (D,) reach]
    return windows.movedim(-1, 2).flatten(0, 1)
