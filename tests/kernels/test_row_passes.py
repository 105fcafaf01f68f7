"""Plans of row functions against the row functions, and Triton's kernels against the plans (by its interpreter)."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphs.absorbing import Absorbing
from graphs.mixture import Mixture
from graphs.uniform import Uniform
from workbench.kernels import row_passes
from workbench.kernels.row_passes import ROW_PASSES, ExpPlan, Measured, SoftmaxPlan, by_torch
from workbench.kernels.rows import fused_rows
from workbench.processes.denoising import DenoisingCrossEntropy
from workbench.processes.objectives import DenoisingRows, NextTokenRows, ScoreEntropy
from workbench.processes.readouts import LeaveOneOut, Normalised, Plain, Scaled

FORMS = ("masks", "uniform", "mixture", "law on masks", "cross-entropy on masks", "next token")


def case(form: str, vocab: int, rows: int, masks: float, seed: int, dtype: torch.dtype = torch.float32):
    """(row function, context, outputs, weights) of a form; ``masks``: share of rows that are masks."""
    generator = torch.Generator().manual_seed(seed)
    graph = {"uniform": Uniform(vocab), "mixture": Mixture(vocab, 0.3)}.get(form, Absorbing(vocab))
    readout = {
        "masks": Scaled(vocab),
        "law on masks": Normalised().on(graph),
        "cross-entropy on masks": LeaveOneOut().on(graph),
    }.get(form, Plain())
    objective = DenoisingCrossEntropy() if form.startswith("cross") else ScoreEntropy()
    function = NextTokenRows() if form == "next token" else DenoisingRows(graph, readout, objective)
    target = torch.randint(vocab, (rows,), generator=generator)
    drawn = torch.randint(vocab, (rows,), generator=generator)
    moved = torch.rand(rows, generator=generator) < masks
    x = torch.where(moved, vocab, target) if graph.mask else torch.where(moved, drawn, target)
    sigma = (torch.rand(rows, generator=generator) * 3 + 0.05).to(dtype)
    states = vocab if form == "next token" else graph.states
    out = (2 * torch.randn(rows, states, generator=generator)).to(dtype)
    weight = torch.rand(rows, generator=generator)
    return function, {"x": x, "target": target, "sigma": sigma}, out, weight


SHAPES = {
    "form": st.sampled_from(FORMS),
    "vocab": st.integers(2, 300),
    "rows": st.integers(1, 9),
    "masks": st.sampled_from([0.0, 0.5, 1.0]),
    "seed": st.integers(0, 10**6),
}


def own(function, context, out, weight, low=torch.float32):
    nats, aux, grad = function.values_and_grad(out.clone(), context)
    return nats, aux, (grad * weight.to(grad.dtype).unsqueeze(-1)).to(low)


def same(found, due, close=1e-5):
    for name, a, b in zip(("nats", "aux", "gradient"), found, due, strict=True):
        assert a.shape == b.shape, name
        if a.numel():
            worst = float((a.double() - b.double()).abs().max())
            assert worst <= close * (1 + float(b.double().abs().max())), (name, worst)


@given(**SHAPES)
@settings(max_examples=120)
def test_a_plan_says_what_its_row_function_does(form, vocab, rows, masks, seed):
    function, context, out, weight = case(form, vocab, rows, masks, seed, torch.float64)
    plan = function.plan(context)
    assert isinstance(plan, SoftmaxPlan if "law" in form or "entropy" in form or form == "next token" else ExpPlan)
    weight, wide = weight.double(), torch.float64
    same(by_torch(plan, out.clone(), weight, wide), own(function, context, out, weight, wide), 1e-9)


def test_dead_rows_may_hold_anything():
    function, context, out, weight = case("masks", 7, 4, 0.0, 0)
    out[:] = float("inf")
    nats, aux, grad = by_torch(function.plan(context), out, weight, torch.float32)
    assert not nats.any() and not aux.any() and not grad.any()


def test_what_has_no_plan_says_so():
    function, context, _, _ = case("mixture", 7, 4, 0.5, 0)
    function.readout = LeaveOneOut().on(function.graph)
    assert function.plan(context) is None  # its scores are no sum of exponentials of the outputs
    assert row_passes.plan_for(object(), context, torch.zeros(1, 2)) is None


# --- choosing ---------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel that stands for Triton's: the plan in PyTorch, called so often."""
    calls = []

    def fake(plan, out, weight, low):
        calls.append(tuple(out.shape))
        return by_torch(plan, out, weight, low)

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(row_passes, "MEASURED", {})
    monkeypatch.setattr(row_passes, "by_triton", fake)
    monkeypatch.setattr(row_passes, "triton_available", lambda device, **where: None)
    candidate = row_passes.Candidate("triton", fake, "", lambda **where: None, row_passes._advisable)
    monkeypatch.setitem(ROW_PASSES.candidates, "triton", candidate)
    ROW_PASSES.forget()
    yield calls
    ROW_PASSES.forget()


def loss(form="masks", rows=8):
    function, context, _, weight = case(form, 11, rows, 1.0, 3)
    torch.manual_seed(0)
    head, h = nn.Linear(5, 12), torch.randn(rows, 5, requires_grad=True)
    total, nats, _ = fused_rows(head, h, weight, function, context, 4)
    total.backward()
    return nats, h.grad, head.weight.grad, head.bias.grad


@pytest.mark.parametrize("seconds", [Measured(2.0, 1.0), Measured(1.0, 2.0)])
def test_the_faster_form_of_a_shape_is_taken(kernel, monkeypatch, seconds):
    monkeypatch.setattr(row_passes, "measure", lambda *words: seconds)
    due = [value.clone() for value in loss()]
    assert len(kernel) == (2 if seconds.triton < 2.0 else 0)  # two chunks of four rows
    monkeypatch.setattr(row_passes, "triton_available", lambda device, **where: "not here")
    same(loss()[:3], due[:3])
    assert torch.allclose(loss()[3], due[3], atol=1e-6)


def test_a_shape_is_measured_once_and_remembered_by_the_next_session(kernel, tmp_path, monkeypatch):
    loss()
    (shape,) = row_passes.MEASURED
    assert "exponential; 4 × 12; float32" in shape and row_passes.MEASURED[shape].torch > 0
    kept = json.loads((tmp_path / "kernels" / "row_passes.json").read_text())
    assert set(kept) == {shape}
    monkeypatch.setattr(row_passes, "MEASURED", {})
    monkeypatch.setattr(row_passes, "measure", lambda *words: pytest.fail("measured again"))
    ROW_PASSES.forget()
    loss()
    told = {name: why for name, _, why in ROW_PASSES.survey("cpu", torch.float32)}
    assert "4 × 12" in told["triton"]


def test_a_kernel_with_other_figures_is_never_taken(kernel, monkeypatch):
    def wrong(plan, out, weight, low):
        nats, aux, grad = by_torch(plan, out, weight, low)
        return nats, aux, grad * 1.1

    monkeypatch.setattr(row_passes, "by_triton", wrong)
    loss()
    (found,) = row_passes.MEASURED.values()
    assert found.triton is None and "figures are not" in found.against()


def test_a_kernel_that_fails_stops_nothing(kernel, monkeypatch, tmp_path):
    def broken(plan, out, weight, low):
        raise RuntimeError("no room")

    monkeypatch.setattr(row_passes, "by_triton", broken)
    due = loss()
    (found,) = row_passes.MEASURED.values()
    assert "RuntimeError: no room" in found.against()
    assert json.loads((tmp_path / "kernels" / "row_passes.json").read_text()) == {}  # tried again next time
    monkeypatch.setattr(row_passes, "triton_available", lambda device, **where: "not here")
    assert all(torch.equal(a, b) for a, b in zip(loss(), due, strict=True))


def test_nothing_is_asked_of_a_plan_where_triton_is_absent(monkeypatch):
    monkeypatch.setattr(row_passes, "triton_available", lambda device, **where: "not here")
    monkeypatch.setattr(DenoisingRows, "plan", lambda *words: pytest.fail("asked"))
    loss()


# --- the kernels themselves -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted():
    """The kernels, by Triton's interpreter; it is chosen when triton is imported (tests/conftest.py)."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("a GPU is here: the cuda tests run the kernels as they are")
    pytest.importorskip("triton", reason="triton is not installed: its kernels were not run")
    from workbench.kernels import row_triton

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_triton, "WIDEST", 64)  # several blocks a row, the last one not full
        yield row_passes.by_triton


@given(**SHAPES, low=st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=40)
def test_the_kernels_are_their_plans(interpreted, form, vocab, rows, masks, seed, low):
    function, context, out, weight = case(form, vocab, rows, masks, seed)
    found = interpreted(function.plan(context), out.clone(), weight, low)
    assert found[2].dtype == low
    same(found, own(function, context, out, weight, low), 2e-5 if low == torch.float32 else 1e-2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masks", [0.0, 1.0])
def test_the_kernels_at_the_edges(interpreted, form, masks):
    for vocab, rows in ((64, 1), (63, 2), (65, 1), (2, 3), (1000, 2)):
        function, context, out, weight = case(form, vocab, rows, masks, 5)
        found = interpreted(function.plan(context), out.clone(), weight, torch.float32)
        same(found, own(function, context, out, weight), 2e-5)


@pytest.mark.parametrize("form", ["masks", "next token"])
def test_all_warps_have_read_before_the_gradient_takes_the_outputs_place(interpreted, monkeypatch, form):
    """The interpreter has one thread: what is asked is a barrier between reads of single numbers and the gradient."""
    from triton.runtime import interpreter

    met = []

    def watch(name, what):
        own = getattr(interpreter.InterpreterBuilder, name)

        def watched(self, *words, **named):
            met.append(what(words))
            return own(self, *words, **named)

        monkeypatch.setattr(interpreter.InterpreterBuilder, name, watched)

    watch("create_masked_load", lambda words: ("read", words[0].data.copy()))
    watch("create_masked_store", lambda words: ("write", words[0].data.copy()))
    watch("create_barrier", lambda words: ("barrier", None))
    function, context, out, weight = case(form, 40, 1, 1.0, 0)
    first, last = out.data_ptr(), out.data_ptr() + 4 * out.numel()
    assert interpreted(function.plan(context), out, weight, torch.float32)[2].data_ptr() == first  # in place
    kinds = [what for what, _ in met]
    inside = [at is not None and bool(((at >= first) & (at < last)).any()) for _, at in met]
    single = [i for i, (what, at) in enumerate(met) if what == "read" and inside[i] and at.size == 1]
    writes = [i for i, (what, _) in enumerate(met) if what == "write" and inside[i]]
    assert single and writes and "barrier" in kinds[max(single) : min(writes)]


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("vocab", [1000, 50_257])
def test_the_kernels_on_a_gpu(form, vocab):
    pytest.importorskip("triton", reason="triton is not installed")
    function, context, out, weight = case(form, vocab, 33, 0.5, 1)
    context = {name: value.cuda() for name, value in context.items()}
    found = row_passes.by_triton(function.plan(context), out.cuda(), weight.cuda(), torch.bfloat16)
    due = own(function, context, out.cuda(), weight.cuda(), torch.bfloat16)
    same([one.cpu() for one in found], [one.cpu() for one in due], 1e-2)
