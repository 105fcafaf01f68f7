"""A process around a process: what it leaves as it is, it asks the one within."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from workbench.processes.base import Process

if TYPE_CHECKING:
    from workbench.core.node import Node

P = TypeVar("P", bound=Process)


class Around(Process, ABC, Generic[P]):
    """Base of processes around another one, which stands in their setting ``inner``."""

    def __init__(self, inner: P) -> None:
        """Sizes, copies and the meaning of the loss are those of ``inner``."""
        self.inner = inner
        self.states, self.outputs = inner.states, inner.outputs
        self.copies, self.loss_is_text = inner.copies, inner.loss_is_text
        self.looks, self.teachers = inner.looks, inner.teachers

    def place(self, device: torch.device) -> None:
        """Here and within."""
        super().place(device)
        self.inner.place(device)

    def compile_chunks(self) -> None:
        """Those of the process within."""
        self.inner.compile_chunks()

    @classmethod
    def says_unigram(cls, node: Node) -> bool:
        """As the process within."""
        inner: Any = node.settings["inner"]
        return bool(inner.part.says_unigram(inner))

    def unigram_bias(self, share_V: Tensor) -> Tensor | None:
        """As the process within."""
        return self.inner.unigram_bias(share_V)
