"""Protocols of likelihood on evaluation sets: the published ones, as their code has them, and a sliding window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.core.bounds import Count, Natural
from workbench.core.errors import Problem, WorkbenchError
from workbench.metrics.sets import Cut, Ids, Protocol

if TYPE_CHECKING:
    from workbench.core.node import Node


class Packed(Protocol):
    """Each row with its end, one after the other, cut into pieces of one size; what is left over is dropped."""

    def __init__(self, rows: Natural = 0) -> None:
        """Keep the setting."""
        self.rows = rows

    def pieces(self, rows: Sequence[Ids], eos: int, size: int) -> tuple[Ids, Ids, int]:
        """(pieces [N, size], where in the stream each begins [N], tokens of the stream)."""
        step = self.rows or max(1, len(rows))
        found, starts, at = [], [], 0
        for begin in range(0, len(rows), step):
            stream = ended(rows[begin : begin + step], eos)
            count = len(stream) // size
            found.append(stream[: count * size].reshape(count, size))
            starts.append(at + size * np.arange(count))
            at += len(stream)
        if not sum(len(piece) for piece in found):
            raise too_short(at, size)
        return np.concatenate(found), np.concatenate(starts), at


@Protocol.register("sedd")
class Sedd(Packed):
    """SEDD's protocol (Lou et al. 2024, app. C.6 and its code): rows with their ends, cut into blocks of the run's
    length, no token before a block, no sliding window; test splits, of WikiText-2 the train split.

    A model that reads left to right is told the end-of-document token before a block and pays for all of its tokens.
    Times are drawn over the range that the run was trained on; the two terms of the bound that the published code
    drops are kept, so the figure is a bound and somewhat above the published estimator's.

    Settings:
        rows: rows joined at a time, the rest of each dropped; 0 joins all. The published code joins 1,000 (and fewer
            where the share of one of its processes ends), so it drops more.
    """

    about = "rows and their ends packed into blocks of the run's length, remainder dropped, no sliding window"

    def cut(self, rows: Sequence[Ids], eos: int, length: int) -> Cut:
        """Blocks end to end."""
        found, starts, stream = self.pieces(rows, eos, length)
        return Cut(found, np.zeros(len(found), np.int64), starts, stream, stream - found.size)


@Protocol.register("mdlm")
class Mdlm(Packed):
    """MDLM's protocol (Sahoo et al. 2024, its data code): rows with their ends, cut into pieces of the run's length
    less two, each wrapped in an end-of-document token before and behind; validation splits (LAMBADA and 1BW: test).

    The tokens of the wrapping count as all others do. A model that reads left to right is told the first one, which
    then does not count, as in the published comparison.

    Settings:
        rows: rows joined at a time, the rest of each dropped; 0 joins all. The published code joins 1,000 (and fewer
            where the share of one of its processes ends), so it drops more.
    """

    about = "rows and their ends packed, each block wrapped in ends of document, which count; remainder dropped"

    def cut(self, rows: Sequence[Ids], eos: int, length: int) -> Cut:
        """Wrapped blocks."""
        if length < 3:
            raise WorkbenchError(f"protocol mdlm wraps blocks in two tokens, and these have {length}; take longer ones")
        found, starts, stream = self.pieces(rows, eos, length - 2)
        wrapped = np.pad(found, ((0, 0), (1, 1)), constant_values=eos)
        return Cut(wrapped, np.ones(len(found), np.int64), starts, stream, stream - found.size)


@Protocol.register("sliding")
class Sliding(Protocol):
    """A window over the whole stream of rows and ends, moved by ``stride`` (as Radford et al. 2019 measure GPT-2):
    each token counts once, after all the window holds before it. For models that read left to right.

    Settings:
        stride: tokens that the window moves, and that count in it; no more than the run's length.
    """

    about = "a sliding window, each token after all that the window holds before it"

    def __init__(self, stride: Count = 32) -> None:
        """Keep the setting."""
        self.stride = stride

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A quarter of a short block."""
        return {"stride": 4}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A stride that would leave tokens out; a process that does not read left to right."""
        from samplers.base import NextTokenView

        yield from super().misfits(node, root)
        data, process = root.find("data"), root.find("process")
        part: Any = None if process is None else process.part
        if part is not None and not issubclass(part.offers, NextTokenView):
            message = f"is for models that read left to right, and process {part.type_name!r} does not"
            yield Problem(node.path, f"{message}; take sedd or mdlm")
        if data is not None and node.settings["stride"] > data.settings["length"]:
            message = f"moves {node.settings['stride']} tokens, and the run reads {data.settings['length']}; move fewer"
            yield Problem(f"{node.path}.stride", message)

    def cut(self, rows: Sequence[Ids], eos: int, length: int) -> Cut:
        """Windows of length + 1 tokens, of which the last is told and never read; an end stands before the stream."""
        stream = np.concatenate([[eos], ended(rows, eos)]).astype(np.int64)
        if len(stream) <= length:
            raise too_short(len(stream) - 1, length)
        ends_N = np.append(np.arange(length + 1, len(stream), self.stride), len(stream))
        counted_N = np.diff(ends_N, prepend=1)
        tokens_NT = stream[ends_N[:, None] + np.arange(-length - 1, 0)]
        return Cut(tokens_NT, length + 1 - counted_N, ends_N - counted_N - 1, len(stream) - 1, 0)


def ended(rows: Sequence[Ids], eos: int) -> Ids:
    """The rows one after the other, each with its end."""
    end = np.array([eos], dtype=np.int64)
    return np.concatenate([part for row in rows for part in (row, end)] or [end[:0]]).astype(np.int64)


def too_short(tokens: int, size: int) -> WorkbenchError:
    """An error: no block at all."""
    return WorkbenchError(f"the set has {tokens:,} tokens, less than one block of {size:,}; take more of it")
