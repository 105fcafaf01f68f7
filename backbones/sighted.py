"""Stacks whose sight is a setting: both sides, the left, or blocks; and that may hear hints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backbones.base import Sight
from backbones.stack import Stack
from workbench.core.errors import Problem

if TYPE_CHECKING:
    from workbench.core.spec import Node


class Sighted(Stack):
    """Base of stacks with the settings ``causal``, ``blockwise`` and ``hints``."""

    neutral = {"hints": False, "blockwise": False}

    @classmethod
    def sight(cls, settings: Mapping[str, Any]) -> Sight:
        """Left when causal, block when blockwise, else all."""
        return "left" if settings.get("causal", False) else "block" if settings.get("blockwise", False) else "all"

    @classmethod
    def hears(cls, settings: Mapping[str, Any]) -> bool:
        """As ``hints`` says."""
        return bool(settings.get("hints", False))

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Two sights at once; hints for a network that keeps a cache of clean text, which expects nothing."""
        yield from super().misfits(node, root)
        if node.settings["causal"] and node.settings["blockwise"]:
            yield Problem(
                f"{node.path}.blockwise" if node.path else "blockwise",
                "a position sees its whole block, or with causal: true only what is before it: set one of the two",
            )
        if node.settings["hints"] and cls.sight(node.settings) != "all":
            yield Problem(
                f"{node.path}.hints" if node.path else "hints",
                "hints are for a network that sees a whole noised text: leave causal and blockwise out, or the hints",
            )
