"""The dispatcher, and the kernels of attention against the formula."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from workbench.core.errors import WorkbenchError
from workbench.kernels import conv, dispatch, selective_scan, ssd  # noqa: F401 (they make dispatchers)
from workbench.kernels.attention import ATTENTION, attention, reference
from workbench.kernels.dispatch import Candidate, Dispatcher, absent
from workbench.kernels.products import PRODUCT, vendor
from workbench.kernels.replay import REPLAY


@pytest.fixture
def toy():
    """A dispatcher of two, one of them on a device that is not there."""
    before = list(dispatch.DISPATCHERS)
    made = Dispatcher(
        "toy",
        [
            Candidate("fast", lambda: "fast", "a kernel", lambda device: None if device == "gpu" else "needs a gpu",
                      extra="cuda"),
            Candidate("shy", lambda: "shy", "odd", advisable=lambda device: "only where asked for"),
            Candidate("plain", lambda: "plain", "runs everywhere"),
        ],
    )
    yield made
    dispatch.DISPATCHERS[:] = before


def test_auto_takes_the_first_that_fits_and_says_why(toy):
    implementation, why = toy.pick(device="cpu")
    assert implementation() == "plain"
    assert why == "runs everywhere (not fast: needs a gpu; not shy: only where asked for)"
    assert toy.pick(device="gpu")[0]() == "fast"
    assert toy.pick("shy", device="cpu")[0]() == "shy"


def test_what_is_absent_or_unknown_is_refused_with_the_remedy(toy):
    with pytest.raises(WorkbenchError, match=r"needs a gpu.*pip install \"sedd-workbench\[cuda\]\""):
        toy.pick("fast", device="cpu")
    with pytest.raises(WorkbenchError, match="Did you mean 'plain'"):
        toy.pick("plan", device="cpu")


def test_picks_are_remembered_for_the_log(toy):
    for _ in range(3):
        toy.pick(device="gpu")
    toy.pick("plain", device="cpu")
    rows = [row for row in dispatch.report() if row["operation"] == "toy"]
    assert rows == [
        {"operation": "toy", "asked": "auto", "picked": "fast", "why": "a kernel"},
        {"operation": "toy", "asked": "plain", "picked": "plain", "why": "asked for"},
    ]
    toy.forget()
    assert toy.picked() == []


@pytest.mark.parametrize("kernel", ["sdpa", "matmul", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "causal, queries, keys", [(False, 9, 9), (True, 9, 9), (True, 4, 9), (True, 1, 9), (False, 4, 9)]
)
def test_kernels_compute_the_formula(kernel, dtype, causal, queries, keys):
    torch.manual_seed(0)
    q = torch.randn(2, queries, 3, 8, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(2, keys, 3, 8, dtype=dtype, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, queries, 3, 8)
    close = {"rtol": 0.05, "atol": 0.03} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    results = []
    for out in (attention(q, k, v, causal, kernel=kernel), reference(q, k, v, causal, 0.0)):
        assert out.dtype == dtype and out.shape == q.shape
        results.append((out, *torch.autograd.grad((out.float() * weight).sum(), (q, k, v))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **close)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", ["sdpa", "matmul", "flex", "auto"])
@pytest.mark.parametrize("window", [1, 3, 30])
@pytest.mark.parametrize("causal, queries, keys", [(False, 9, 9), (True, 9, 9), (True, 4, 9), (True, 1, 9)])
def test_a_window_hides_what_is_further_away(kernel, window, causal, queries, keys):
    torch.manual_seed(0)
    q = torch.randn(2, queries, 3, 8)
    k, v = torch.randn(2, 2, keys, 3, 8).unbind(0)
    here = torch.arange(queries)[:, None] + keys - queries
    away = torch.arange(keys)[None] - here
    seen = (away >= -window) & (away <= (0 if causal else window))
    scores = torch.einsum("blhd,bthd->bhlt", q, k) * 8**-0.5
    due = torch.einsum("bhlt,bthd->blhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)
    with torch.no_grad():  # flex has no backward pass on a CPU
        torch.testing.assert_close(attention(q, k, v, causal, kernel=kernel, window=window), due, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(reference(q, k, v, causal, 0.0, window), due, rtol=1e-5, atol=1e-5)


def test_flex_is_refused_where_it_has_no_gradient():
    with pytest.raises(WorkbenchError, match="no backward pass on a CPU"):
        attention(*torch.randn(3, 1, 9, 2, 8).unbind(0), kernel="flex", window=2)
    where = {"dtype": torch.bfloat16, "small": False, "grad": True}
    assert ATTENTION.choose("auto", device="cuda", banded=True, sparse=True, **where)[0] == "flex"
    assert ATTENTION.choose("auto", device="cuda", banded=True, sparse=False, **where)[0] == "sdpa"


def test_a_kernel_that_is_asked_for_is_costed_without_being_run(monkeypatch):
    """A recipe for a GPU is checked anywhere: on the meta device nothing is computed. Names are still read."""
    where = {"dtype": torch.float32, "small": True}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ATTENTION.choose("xformers", device="meta", **where)[0] != "xformers"
    with pytest.raises(WorkbenchError, match="Did you mean 'xformers'"):
        ATTENTION.choose("xformer", device="meta", **where)


def test_a_package_that_does_not_import_is_no_candidate(monkeypatch):
    """Installed, on CUDA, and broken: said in words, in place of an ImportError in the first step."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "does not import (ModuleNotFoundError" in absent("mamba-ssm", "mamba_ssm_is_not_here", "cuda", torch.float32)
    assert absent("mamba-ssm", "json", "cuda", torch.float32) is None
    assert "float64" in absent("mamba-ssm", "json", "cuda", torch.float64)
    assert "on CUDA only" in absent("mamba-ssm", "json", "cpu", torch.float32)


@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="mamba-ssm is installed")
@pytest.mark.parametrize("dispatcher", dispatch.DISPATCHERS, ids=lambda one: one.operation)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_survey_says_what_auto_takes(dispatcher, device):
    dispatcher.forget()
    rows = dispatcher.survey(device, torch.float32)
    assert [name for name, _, _ in rows] == list(dispatcher.candidates)
    (taken,) = [name for name, verdict, _ in rows if verdict == "auto"]
    product = "onednn" if device == "cpu" and vendor() == "AuthenticAMD" else "torch"
    known = {"attention": "sdpa", "attention of blocks": "spans", "convolution": "taps", PRODUCT.operation: product}
    known["passes over a chunk of head outputs"] = "torch"
    known[REPLAY.operation] = "replay" if device == "cuda" else "eager"
    assert taken == known.get(dispatcher.operation, "chunked")  # no package here
    assert all(why for _, _, why in rows) and not dispatcher.picked()


def test_the_last_query_stands_at_the_last_key():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 6, 2, 4) for _ in range(3))
    whole = reference(q, k, v, True, 0.0)
    torch.testing.assert_close(reference(q[:, 4:], k, v, True, 0.0), whole[:, 4:])


@pytest.mark.parametrize("kernel", ["sdpa", "matmul", "reference"])
def test_dropout_drops_weights_and_keeps_the_mean(kernel):
    torch.manual_seed(0)
    q, k = torch.randn(2, 64, 8, 4, 8).unbind(0)
    v = torch.ones(64, 8, 4, 8)
    out = attention(q, k, v, dropout=0.5, kernel=kernel)
    assert out.std() > 0.1
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)


def test_auto_on_this_machine():
    assert ATTENTION.pick("auto", device="cpu", dtype=torch.float32, small=True)[0].__name__ == "sdpa"
    assert ATTENTION.pick("auto", device="cpu", dtype=torch.bfloat16, small=True)[0].__name__ == "matmul"
    assert ATTENTION.pick("auto", device="cpu", dtype=torch.bfloat16, small=False)[0].__name__ == "sdpa"
    assert ATTENTION.pick("auto", device="cuda", dtype=torch.bfloat16, small=True)[0].__name__ == "sdpa"


def test_xformers_where_it_cannot_run_names_the_extra():
    due = "on CUDA only" if importlib.util.find_spec("xformers") else "not installed"
    with pytest.raises(WorkbenchError, match=rf"{due}.*sedd-workbench\[cuda\]"):
        attention(*torch.randn(3, 1, 4, 2, 8).unbind(0), kernel="xformers")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", ["sdpa", "matmul", "xformers"])
@pytest.mark.parametrize("causal, queries", [(False, 64), (True, 64), (True, 16)])
def test_kernels_on_cuda(kernel, causal, queries):
    if kernel == "xformers" and importlib.util.find_spec("xformers") is None:
        pytest.skip("xformers is not installed")
    torch.manual_seed(0)
    q = torch.randn(2, queries, 4, 64, dtype=torch.bfloat16, device="cuda")
    k, v = torch.randn(2, 2, 64, 4, 64, dtype=torch.bfloat16, device="cuda").unbind(0)
    out = attention(q, k, v, causal, kernel=kernel)
    torch.testing.assert_close(out, reference(q, k, v, causal, 0.0), rtol=0.03, atol=0.03)
