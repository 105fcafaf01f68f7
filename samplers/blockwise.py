"""Writing block after block, each by a reverse sampler, with what is finished in a cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from samplers.base import BlockView, Canvas, Conditions, Sampler, Samples, ScoreView, View
from workbench.core.errors import Problem
from workbench.core.rng import Rng

if TYPE_CHECKING:
    from workbench.core.spec import Node


@Sampler.register("blockwise")
class Blockwise(Sampler):
    """Block diffusion's sampler (Arriola et al. 2025, alg. 2): a block by the sampler within, then the next after it.

    Texts of any length that the network can read, longer than it was trained on too; a length that is no whole number
    of blocks is cut from one that is. Finished blocks go through the network once more, clean, and from then on stand
    in its cache. Fixed tokens may stand anywhere: the sampler within holds them in their block and in those after it.
    Blocks before it are written without knowing them; given a prefix nothing is lost.

    Settings:
        inner: the sampler of one block
        cache: whether finished blocks are kept in a cache; false reads them again at every call, for comparison
    """

    needs: ClassVar[type[View]] = BlockView
    conditions: ClassVar[Conditions] = "anywhere"
    any_length: ClassVar[bool] = True
    usual: ClassVar[dict[str, Any]] = {"inner": {"type": "reverse", "predictor": {"type": "first_hitting"}}}

    def __init__(self, inner: Sampler, cache: bool = True) -> None:
        """Keep the parts."""
        self.inner, self.cache = inner, cache

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A sampler within that does not go by scores."""
        yield from super().misfits(node, root)
        inner = node.settings["inner"]
        part: Any = inner.part
        if not issubclass(ScoreView, part.needs):
            known: dict[str, Any] = dict(Sampler.registered)
            fitting = [name for name, one in sorted(known.items()) if issubclass(ScoreView, one.needs)]
            yield Problem(
                inner.path,
                f"a block is a ScoreView, and sampler {part.type_name!r} needs a {part.needs.__name__}. "
                f"What would fit: {', '.join(fitting)}.",
            )

    @torch.no_grad()
    def draw(self, view: View, canvas: Canvas, rng: Rng, progress: Callable[[float], None] | None = None) -> Samples:
        """See the base. The trace holds, per block written, network ``calls``; and ``unseen``, how many fixed tokens
        blocks with free positions were written without knowing.

        Raises:
            WorkbenchError: the canvas fixes something that is no token.
        """
        view = cast("BlockView", view)
        began, calls = time.perf_counter(), view.calls
        canvas.require_tokens(view.vocab)
        length = canvas.x_BL.shape[1]
        pieces, trace = list(canvas.pieces(view.size)), []
        context, written = view.start(len(canvas.x_BL), self.cache), []
        for index, piece in enumerate(pieces):

            def heard(share: float, index: int = index) -> None:
                if progress is not None:
                    progress((index + share) / len(pieces))

            before, tokens_BS = view.calls, piece.x_BL
            if not bool(piece.fixed_BL.all()):
                numbers = rng.child(f"block/{index}")
                tokens_BS = self.inner.draw(view.block(context), piece, numbers, heard).tokens_BL
            if index + 1 < len(pieces):
                context = view.commit(tokens_BS, context)
            written.append(tokens_BS)
            trace.append(view.calls - before)
            heard(1.0)
        tokens_BL = torch.cat(written, 1)[:, :length]
        return Samples(
            tokens_BL, view.calls - calls, time.perf_counter() - began, {"calls": trace, "unseen": _unseen(pieces)}
        )


def _unseen(pieces: list[Canvas]) -> int:
    """Fixed tokens after the first block of their text that has a free position, that block's own apart."""
    open_B, unseen = torch.zeros(len(pieces[0].x_BL), dtype=torch.bool), 0
    for piece in pieces:
        unseen += int(piece.fixed_BL[open_B].sum())
        open_B |= ~piece.fixed_BL.all(-1)
    return unseen
