"""The fused rows kernel against the dense way of computing, written plainly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from graphs.absorbing import Absorbing
from graphs.uniform import Uniform
from workbench.kernels import head_gradients
from workbench.kernels.rows import chunk_rows, fused_rows, head_rows, padded_rows, rows_values
from workbench.processes.objectives import DenoisingRows, NextTokenRows, ScoreEntropy
from workbench.processes.readouts import Plain, Readout, Scaled

VOCAB, DIM = 11, 6


def _case(masked: bool, rows: int, dtype: torch.dtype, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    graph = (Absorbing if masked else Uniform)(vocab=VOCAB)
    head = nn.Linear(DIM, graph.states).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    h = torch.randn(rows, DIM, generator=generator).to(dtype)
    target = torch.randint(VOCAB, (rows,), generator=generator)
    sigma = torch.rand(rows, generator=generator).to(dtype) * 3 + 0.01
    moved = torch.rand(rows, generator=generator) < 0.7
    x = torch.where(moved, torch.full_like(target, graph.states - 1), target)
    weight = torch.rand(rows, generator=generator).to(dtype)
    function = DenoisingRows(graph, Scaled(vocab=VOCAB) if masked else Plain(), ScoreEntropy())
    return graph, head, h, weight, function, {"x": x, "target": target, "sigma": sigma}


def _dense(graph, head, h, weight, context, masked: bool):
    """All rows at once, every step of the formula on the whole vocabulary, differentiated automatically."""
    out = h @ head.weight.t() + head.bias
    if masked:
        out = (
            out - torch.log(torch.exp(context["sigma"]) - 1)[:, None] - torch.log(torch.tensor(float(VOCAB)))
        )
    log_score = out.scatter(-1, context["x"][:, None], 0.0)
    nats = graph.score_entropy(log_score, context["x"], context["target"], context["sigma"])
    return (nats * weight).sum(), nats


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_chunked_rows_equal_dense_in_value_and_gradient(masked, dtype, tolerance):
    graph, head, h, weight, function, context = _case(masked, 37, dtype)
    h_a, h_b = h.clone().requires_grad_(), h.clone().requires_grad_()
    dense, nats = _dense(graph, head, h_a, weight, context, masked)
    dense.backward()
    expected = [h_a.grad, head.weight.grad.clone(), head.bias.grad.clone()]
    head.zero_grad()
    for chunk in (1, 5, 16, 37, 64):
        h_b.grad = None
        head.zero_grad()
        total, nats_R, _ = fused_rows(head, h_b, weight, function, context, chunk)
        total.backward()
        scale = max(1.0, float(dense.detach().abs()))
        assert torch.allclose(nats_R, nats, atol=tolerance * scale, rtol=tolerance)
        assert abs(float(total - dense)) <= tolerance * scale
        for got, want in zip([h_b.grad, head.weight.grad, head.bias.grad], expected, strict=True):
            assert torch.allclose(
                got, want, atol=tolerance * max(1.0, float(want.abs().max())), rtol=tolerance
            )


@given(rows=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 10**6), masked=st.booleans())
@settings(max_examples=40, deadline=None)
def test_chunk_size_never_matters(rows, chunk, seed, masked):
    _, head, h, weight, function, context = _case(masked, rows, torch.float64, seed)
    whole = fused_rows(head, h, weight, function, context, rows)
    pieces = fused_rows(head, h, weight, function, context, chunk)
    for a, b in zip(whole, pieces, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    values, aux = rows_values(head, h, function, context, chunk)
    assert torch.allclose(values, whole[1], atol=1e-10)
    assert torch.allclose(aux, whole[2], atol=1e-9)


def test_next_token_rows_equal_cross_entropy():
    _, head, h, weight, _, context = _case(True, 23, torch.float64)
    h = h.requires_grad_()
    dense = (nn.functional.cross_entropy(head(h), context["target"], reduction="none") * weight).sum()
    want = torch.autograd.grad(dense, [h, head.weight, head.bias])
    total, _, _ = fused_rows(head, h, weight, NextTokenRows(), {"target": context["target"]}, 7)
    got = torch.autograd.grad(total, [h, head.weight, head.bias])
    assert abs(float(total - dense)) < 1e-10
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_a_readout_that_is_not_affine_is_differentiated_automatically():
    class Squashed(Readout):
        def log_score(self, out_RS, x_R, sigma_R):
            return (3 * torch.tanh(out_RS)).scatter(-1, x_R.unsqueeze(-1), 0.0)

    graph, head, h, weight, _, context = _case(False, 9, torch.float64)
    function = DenoisingRows(graph, Squashed(), ScoreEntropy())
    h = h.requires_grad_()
    log_score = (3 * torch.tanh(head(h))).scatter(-1, context["x"][:, None], 0.0)
    dense = (graph.score_entropy(log_score, context["x"], context["target"], context["sigma"]) * weight).sum()
    want = torch.autograd.grad(dense, [h, head.weight])
    total, _, _ = fused_rows(head, h, weight, function, context, 4)
    for a, b in zip(torch.autograd.grad(total, [h, head.weight]), want, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_calibration_is_the_slack_of_the_score_sum():
    """bound = cross-entropy of the normalised network / (e^σ − 1) + slack / (e^σ − 1), slack = Z − 1 − ln Z."""
    graph, head, h, _, function, context = _case(True, 50, torch.float64)
    log_score = function.readout.log_score(head_rows(head, h).detach(), context["x"], context["sigma"])
    scale = torch.expm1(context["sigma"])
    log_z = log_score[:, :VOCAB].logsumexp(-1) + scale.log()
    slack = log_z.exp() - 1 - log_z
    cross_entropy = (
        log_score[:, :VOCAB].logsumexp(-1) - log_score.gather(-1, context["target"][:, None])[:, 0]
    )
    nats, aux = rows_values(head, h, function, context, 8)
    live = graph.live(context["x"])
    assert torch.allclose(aux[live, 0], slack[live], atol=1e-9)
    assert torch.allclose((nats * scale)[live], (cross_entropy + slack)[live], atol=1e-9)
    assert (nats[~live] == 0).all()


@pytest.mark.parametrize("low", [False, True])
def test_no_tensor_is_larger_than_a_chunk_or_two_of_the_vocabulary(low):
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for leaf in tree_iter(out):
                if isinstance(leaf, torch.Tensor):
                    self.seen = max(self.seen, leaf.numel())
            return out

    vocab, rows, chunk = 3000, 512, 16
    graph = Absorbing(vocab=vocab)
    head = nn.Linear(8, graph.states)
    h = torch.randn(rows, 8, requires_grad=True)
    context = {
        "x": torch.full((rows,), vocab),
        "target": torch.randint(vocab, (rows,)),
        "sigma": torch.ones(rows),
    }
    function = DenoisingRows(graph, Scaled(vocab=vocab), ScoreEntropy())
    with Largest() as mode:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            total, _, _ = fused_rows(head, h, torch.ones(rows), function, context, chunk)
        total.backward()
    # gradients in bfloat16 are brought together a few chunks at a time, in no more bytes than two chunks' outputs
    assert mode.seen <= chunk * graph.states * (head_gradients.GROUP if low else 1)


def test_autocast_keeps_scores_in_float32():
    _, head, h, weight, function, context = _case(True, 64, torch.float32)
    plain = head_rows(head, h)
    with torch.no_grad():
        head.bias.add_(100.0)  # a bfloat16 output would be rounded by up to 0.25 here
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raised = head_rows(head, h)
    assert raised.dtype == torch.float32
    assert (raised - 100.0 - plain).abs().max() < 0.03
    with torch.no_grad():
        head.bias.sub_(100.0)
    exact = fused_rows(head, h.requires_grad_(), weight, function, context, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = fused_rows(head, h, weight, function, context, 16)
        low[0].backward()
    assert torch.allclose(exact[1], low[1], rtol=0.03, atol=0.03)  # inputs may be rounded, outputs and sums are not
    want = torch.autograd.grad(exact[0], head.weight)[0]
    assert torch.allclose(head.weight.grad, want, rtol=0.05, atol=0.02 * float(want.abs().max()))


@pytest.mark.parametrize("rows", [1, 16, 17, 32, 33, 96, 111])
def test_chunks_brought_together_under_autocast_give_the_gradient_of_each(rows):
    """Groups of chunks, whole and not, and slices of the vocabulary: one chunk of all rows is the yardstick."""
    _, head, h, weight, function, context = _case(True, rows, torch.float32)
    found = []
    for chunk, piece in ((rows, head_gradients.CPU_SLICE_BYTES), (16, 4 * DIM * 5), (16, 1)):
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype=torch.bfloat16):
            patch.setattr(head_gradients, "CPU_SLICE_BYTES", piece)
            total, _, _ = fused_rows(head, h.requires_grad_(), weight, function, context, chunk)
            found.append(torch.autograd.grad(total, [h, head.weight, head.bias]))
    for due, *others in zip(*found, strict=True):
        for got in others:
            assert torch.allclose(got, due, rtol=0.02, atol=0.01 * float(due.abs().max()))


def test_a_factor_on_the_loss_reaches_the_gradient():
    _, head, h, weight, function, context = _case(True, 20, torch.float64)
    grads = []
    for factor in (1.0, 0.25):
        total, _, _ = fused_rows(head, h.requires_grad_(), weight, function, context, 8)
        grads.append(torch.autograd.grad(total * factor, [h, head.weight, head.bias]))
    total, _, _ = fused_rows(head, h, weight, function, context, 8, over=4)
    grads.append(torch.autograd.grad(total, [h, head.weight, head.bias]))
    for whole, quarter, divided in zip(*grads, strict=True):
        torch.testing.assert_close(quarter, whole * 0.25)
        torch.testing.assert_close(divided, quarter)


def test_padding_always_leaves_rows_for_the_head():
    assert padded_rows(0) == 16
    assert padded_rows(16) == 16
    assert padded_rows(17) == 32
    assert padded_rows(1, "cuda") == 512


def test_few_shapes_reach_a_compiled_chunk_pass():
    """A recompilation costs tens of seconds: whatever the number of live rows, last chunks have at most four sizes."""
    for vocab in (257, 1024, 50_257, 128_000):
        chunk = chunk_rows(vocab, "cuda")
        sizes = {chunk} | {padded_rows(rows, "cuda") % chunk or chunk for rows in range(1, 40_000, 97)}
        assert len(sizes) <= 4, (vocab, sorted(sizes))
