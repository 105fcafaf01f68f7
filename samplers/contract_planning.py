"""What every order and lens must satisfy: run on any registered part, a plug-in's included (see `contract`)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas, Lens, Order, OrderContext
from samplers.exact import ExactView
from samplers.predictors.normalised import Normalised
from samplers.predictors.ordered import Ordered
from samplers.reverse import Reverse, start
from samplers.times import Uniform
from workbench.core.checks import run_checks
from workbench.core.rng import Rng

TOLD = {"entropy", "top1", "top2", "drawn"}
"""What an order can be told."""


def check_order(part: type[Order]) -> list[str]:
    """Problems of an order, in words."""
    return run_checks(Order, part, (_ranks, _writes))


def check_lens(part: type[Lens]) -> list[str]:
    """Problems of a lens, in words."""
    return run_checks(Lens, part, (_shows_laws, _looks_at_each_text_alone))


def _view() -> ExactView:
    generator = torch.Generator().manual_seed(3)
    joint = torch.rand((3, 3, 3), generator=generator, dtype=torch.float64) + 0.05
    return ExactView(Absorbing(3), LogLinear(), joint)


def _canvas(batch: int) -> Canvas:
    """Every third text with its middle given."""
    canvas = Canvas.blank(batch, 3, first=20)
    canvas.fixed_BL[::3, 1], canvas.x_BL[::3, 1] = True, 1
    return canvas


def _ranks(order: Order) -> Iterator[str]:
    """One number a row, of each row by itself; counts between 0 and what there is."""
    if not order.needs <= TOLD:
        yield f"needs {set(order.needs - TOLD)}, which no order is told ({', '.join(sorted(TOLD))})"
        return
    view = _view()
    state = start(view, Canvas.blank(2, 3), torch.tensor([[3, 3, 0], [3, 3, 3]]))
    look = view.look(state.x_BL, torch.ones(2, dtype=torch.float64))
    rows_R = torch.tensor([0, 1, 3, 4, 5])
    drawn_R = torch.tensor([-0.1, -2.0, -0.5, -0.2, -1.0], dtype=torch.float64)
    was_R = torch.tensor([True, True, True, False, True])
    due_B = torch.tensor([1, 2])
    stats = look.stats(rows_R, 2).on_host()
    score_R = order.score(stats, OrderContext(state, rows_R, due_B, drawn_R, was_R))
    if score_R.shape != rows_R.shape or score_R.dtype != torch.float64 or bool(score_R.isnan().any()):
        yield f"scores must be one float64 number a row; got {score_R.dtype} {list(score_R.shape)}"
        return
    alone_R = order.score(
        look.stats(rows_R[2:], 8).on_host(), OrderContext(state, rows_R[2:], due_B, drawn_R[2:], was_R[2:])
    )
    if not torch.allclose(alone_R, score_R[2:], rtol=0, atol=1e-9):
        yield "a text's scores depend on the other texts"
    score_BL = torch.full((2, 3), -torch.inf, dtype=torch.float64)
    score_BL.view(-1)[rows_R] = score_R
    count_B = order.count(score_BL, OrderContext(state, rows_R, due_B, drawn_R, was_R))
    if count_B.dtype != torch.int64 or not bool(((count_B >= 0) & (count_B <= torch.tensor([3, 3]))).all()):
        yield f"counts must be int64, from 0 to the length; got {count_B}"


def _writes(order: Order) -> Iterator[str]:
    """Walks end in text, given tokens stay, and no text hears its batch."""
    view, canvas = _view(), _canvas(9)
    sampler = Reverse(Ordered(order), Uniform(), 3)
    tokens_BL = sampler.draw(view, canvas, Rng(2)).tokens_BL
    if not bool(((tokens_BL >= 0) & (tokens_BL < view.vocab)).all()):
        yield "the samples hold ids that are no tokens"
    if not torch.equal(tokens_BL[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL]):
        yield "a fixed position changed"
    alone = Canvas(canvas.x_BL[4:5], canvas.fixed_BL[4:5], canvas.seq_B[4:5])
    if not torch.equal(sampler.draw(view, alone, Rng(2)).tokens_BL, tokens_BL[4:5]):
        yield "a text drawn alone differs from the same one in a batch"


def _shows_laws(lens: Lens) -> Iterator[str]:
    """Clean laws are normalised, scores 0 at the own entry, calls are the inner view's, nothing is asked too early."""
    view, canvas = _view(), _canvas(2)
    seen = lens(view, canvas)
    x_BL = torch.where(canvas.fixed_BL, canvas.x_BL, 3)
    look = seen.look(x_BL, torch.ones(2, dtype=torch.float64))
    if view.calls:
        yield "the network is called before rows are asked for"
    rows_R = torch.nonzero((x_BL == 3).reshape(-1)).squeeze(-1)
    p_RV = look.clean(rows_R).exp()
    if p_RV.shape != (len(rows_R), 3) or not bool(((p_RV.sum(-1) - 1).abs() < 1e-6).all()):
        yield "the clean law is not one: [R, V], normalised"
    if bool((look.log_score(rows_R)[:, 3].abs() > 1e-6).any()):
        yield "a score's own entry is not 0"
    if not view.calls or seen.calls != view.calls:
        yield f"{seen.calls} calls are told of {view.calls}"
    if not torch.equal(look.select(torch.tensor([1, 1])).x_BL, x_BL[[1, 1]]):
        yield "select does not select"


def _looks_at_each_text_alone(lens: Lens) -> Iterator[str]:
    """Given tokens stay and no text hears its batch."""
    view, canvas = _view(), _canvas(9)
    sampler = Reverse(Normalised(), Uniform(), 3, lenses=(lens,))
    tokens_BL = sampler.draw(view, canvas, Rng(2)).tokens_BL
    if not torch.equal(tokens_BL[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL]):
        yield "a fixed position changed"
    for at in (3, 4):
        alone = Canvas(*(value[at : at + 1] for value in vars(canvas).values()))
        if not torch.equal(sampler.draw(view, alone, Rng(2)).tokens_BL, tokens_BL[at : at + 1]):
            yield "a text drawn alone differs from the same one in a batch"
