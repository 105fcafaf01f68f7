"""Ancestral sampling of a next-token law, one position after the other, with a KV cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor

from samplers.base import Canvas, Conditions, NextTokenView, Sampler, Samples, ShapeContext, Shaper, View
from samplers.draw import land
from samplers.shapers import chain
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng


@Sampler.register("left_to_right")
class LeftToRight(Sampler):
    """GPT-2's sampler: each token from the (shaped) law given those before it.

    Draws are keyed by (sequence, position), float64 inverse CDF: the same tokens in any batch.

    Settings:
        shapers: changes of the next-token law (temperature, nucleus, …), applied in order
    """

    needs: ClassVar[type[View]] = NextTokenView
    conditions: ClassVar[Conditions] = "prefix"

    def __init__(self, shapers: Sequence[Shaper] = ()) -> None:
        """Keep the shapers."""
        self.shape = chain(shapers)

    @torch.no_grad()
    def draw(self, view: View, canvas: Canvas, rng: Rng, progress: Callable[[float], None] | None = None) -> Samples:
        """See the base. Prefixes may differ in length: they are drawn in groups of equal length, without padding.

        Raises:
            WorkbenchError: a fixed position stands after a free one, the canvas is longer than the model reads, or
                the network's law is not a number.
        """
        view = cast("NextTokenView", view)
        began, calls = time.perf_counter(), view.calls
        x_BL = canvas.x_BL.clone()
        length = x_BL.shape[1]
        prefix_B = canvas.fixed_BL.sum(-1)
        if bool((canvas.fixed_BL != (torch.arange(length) < prefix_B[:, None])).any()):
            raise WorkbenchError(
                "left_to_right continues prefixes only, and this canvas fixes tokens after a free position: use a "
                "sampler that conditions anywhere (`reverse`, with a diffusion process)"
            )
        if length > view.length:
            raise WorkbenchError(f"the canvas has {length} positions, the model {view.length}: write on fewer")
        u_BL = torch.from_numpy(rng.uniform("next", 0, canvas.seq_B.numpy(), length))
        done, all_free = 0, max(1, int((length - prefix_B).sum()))
        for prefix in torch.unique(prefix_B).tolist():
            rows_G = torch.nonzero(prefix_B == prefix).squeeze(-1)

            def heard(tokens: int, before: int = done) -> None:
                if progress is not None:
                    progress((before + tokens) / all_free)

            x_BL[rows_G] = self._continue(view, x_BL[rows_G], prefix, u_BL[rows_G], heard)
            done += (length - prefix) * len(rows_G)
        return Samples(x_BL, view.calls - calls, time.perf_counter() - began)

    def _continue(
        self, view: NextTokenView, x_GL: Tensor, prefix: int, u_GL: Tensor, heard: Callable[[int], None]
    ) -> Tensor:
        """Fill ``x_GL`` from position ``prefix`` on; the host reads the device once, at the end."""
        group, length = x_GL.shape
        x_GL, u_GL = x_GL.to(view.device), u_GL.to(view.device)
        first_G = torch.arange(group, device=view.device) * length
        sound = torch.ones((), dtype=torch.bool, device=view.device)
        new_Gn, cache = x_GL[:, :prefix], view.start(group)
        for position in range(prefix, length):
            log_p_GV, cache = view.next(new_Gn, cache)
            if self.shape is not None:
                settled_GL = (torch.arange(length) < position).expand(group, -1)
                left_G = torch.full((group,), 1 - position / length, dtype=torch.float64)
                log_p_GV = self.shape(log_p_GV, ShapeContext(x_GL, first_G + position, settled_GL, left_G))
            token_G, ok_G = land(log_p_GV, u_GL[:, position])
            sound = sound & ok_G.all()
            x_GL[:, position] = token_G
            new_Gn = token_G.unsqueeze(-1)
            heard(group * (position + 1 - prefix))
        if not bool(sound):
            raise WorkbenchError(
                "the network's next-token law holds no probability or is not a number: look at the training log for "
                "a diverged loss, or loosen the sampler's shapers"
            )
        return x_GL.cpu()
