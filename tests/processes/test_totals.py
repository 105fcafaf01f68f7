"""The bound of a row's sum of scores: it holds everywhere, is close near a sum that was taken, and draws the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas
from samplers.predictors.analytic import Analytic
from samplers.reverse import Reverse
from samplers.times import Uniform
from workbench.core.rng import Rng
from workbench.kernels.rows import head_rows
from workbench.processes.base import Shell
from workbench.processes.readouts import Scaled
from workbench.processes.totals import Reach
from workbench.processes.views import DenoiserLook, DenoiserView

VOCAB, DIM, LENGTH = 300, 64, 24


def head_of(bias: bool, dtype: torch.dtype, scale: float) -> nn.Linear:
    """A head whose rows are not centred, a few of them long; one output more than there are tokens."""
    torch.manual_seed(2)
    head = nn.Linear(DIM, VOCAB + 1, bias=bias, dtype=dtype).requires_grad_(False)
    head.weight.normal_(0.02, 0.1).mul_(scale)
    head.weight[:5] *= 4
    head.weight[-1] *= 1000  # the mask's, which counts for nothing
    return head


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_no_sum_is_above_its_bound(low: bool, bias: bool, dtype: torch.dtype, scale: float) -> None:
    head = head_of(bias, dtype, scale)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        reach = Reach.of(head, VOCAB, rough=low)
        at_RD = torch.randn(200, DIM, dtype=dtype)
        step_RD = torch.randn(200, DIM, dtype=dtype) * torch.logspace(-6, 1, 200, dtype=dtype).unsqueeze(-1)
        # the worst direction: towards the longest row of the head
        step_RD[::2] = head.weight[:VOCAB][head.weight[:VOCAB].norm(dim=-1).argmax()] * step_RD[::2, :1].abs()
        f_R, g_R = (torch.logsumexp(head_rows(head, h)[:, :VOCAB], -1) for h in (at_RD, at_RD + step_RD))
    note_RK = torch.cat([at_RD, f_R.unsqueeze(-1)], -1)
    bound_R = reach.bound(at_RD + step_RD, note_RK)
    assert bool((bound_R >= g_R.double()).all())
    assert bool((reach.bound(at_RD, reach.blank(torch.Size([200]))) >= f_R.double()).all())


def test_the_bound_is_close_where_little_has_moved_and_not_above_what_it_says() -> None:
    head = head_of(True, torch.float64, 1.0)
    reach = Reach.of(head, VOCAB, rough=False)
    at_RD = torch.randn(50, DIM, dtype=torch.float64)
    f_R = torch.logsumexp(head_rows(head, at_RD)[:, :VOCAB], -1)
    note_RK = torch.cat([at_RD, f_R.unsqueeze(-1)], -1)
    assert torch.allclose(reach.bound(at_RD, note_RK), f_R, rtol=0, atol=1e-10)
    assert torch.allclose(reach.bound(at_RD + 1e-3, note_RK), f_R, rtol=0, atol=0.1)
    assert float(reach.radius) < float(head.weight[:VOCAB].norm(dim=-1).amax()) < float(reach.norm)


@pytest.mark.parametrize("low", [False, True])
def test_a_walk_by_bounds_draws_the_tokens_of_one_that_sums_every_row(monkeypatch, low: bool) -> None:
    """Also how much was clipped; and no sum on the way is above its bound."""
    torch.manual_seed(0)
    graph = Absorbing(VOCAB)
    net = Transformer(graph.states, graph.states, LENGTH, dim=DIM, depth=1, heads=1, cond_dim=8, dropout=0.0).eval()
    for parameter in net.requires_grad_(False).parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    view = DenoiserView(Shell(net), graph, LogLinear(), Scaled(VOCAB), LENGTH, graph.states)
    sums, bound, summed = DenoiserLook.log_total, DenoiserLook.log_total_bound, [0]

    def counted(look, rows_R, vocab):
        summed[0] += len(rows_R)
        return sums(look, rows_R, vocab)

    def checked(look, rows_R, vocab, notes_BLK):
        bound_R, notes_BLK = bound(look, rows_R, vocab, notes_BLK)
        assert bool((bound_R >= sums(look, rows_R, vocab)).all())
        return bound_R, notes_BLK

    monkeypatch.setattr(DenoiserLook, "log_total", counted)
    monkeypatch.setattr(DenoiserLook, "log_total_bound", checked)

    def walk(steps: int):
        summed[0] = 0
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            drawn = Reverse(Analytic(), Uniform(), steps).draw(view, Canvas.blank(3, LENGTH), Rng(5))
        return drawn, summed[0]

    for steps in (2, 64):
        thin, few = walk(steps)
        with monkeypatch.context() as patch:
            patch.setattr(DenoiserLook, "bounds_total", lambda look: False)
            whole, many = walk(steps)
        assert torch.equal(thin.tokens_BL, whole.tokens_BL)
        assert sum(thin.trace["clipped"]) == pytest.approx(sum(whole.trace["clipped"]), abs=1e-6)
    assert few < many / 4
