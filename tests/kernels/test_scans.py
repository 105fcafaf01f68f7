"""The state-space dual and the selective scan: implementations against the recurrence, the recurrence against numpy."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from workbench.core.errors import WorkbenchError
from workbench.kernels import scan_by_chunks, selective_scan, ssd

LENGTHS = [1, 2, 15, 16, 17, 63, 64, 65, 130]
"""One position, chunk edges of both (16 and 64), odd ones, several chunks."""


def draws(*shapes, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(*shape, dtype=dtype) for shape in shapes]


def dual(length, dtype=torch.float64, batch=2, heads=4, width=3, groups=2, n=5):
    """x, Δ, A, B, C and a first state."""
    x, dt, a, B, C, state = draws(
        (batch, length, heads, width), (batch, length, heads), (heads,), (batch, length, groups, n),
        (batch, length, groups, n), (batch, heads, width, n), dtype=dtype,
    )  # fmt: skip
    return [x, F.softplus(dt - 1), -a.exp(), B, C, state]


def selective(length, dtype=torch.float64, batch=2, channels=6, groups=2, n=5):
    x, dt, a, B, C, state = draws(
        (batch, length, channels), (batch, length, channels), (channels, n), (batch, length, groups, n),
        (batch, length, groups, n), (batch, channels, n), dtype=dtype,
    )  # fmt: skip
    return [x, F.softplus(dt - 1), -a.exp(), B, C, state]


OPERATIONS = {"ssd": (ssd.ssd, dual), "selective scan": (selective_scan.selective_scan, selective)}


def value_and_grads(call, inputs, kernel, state=True):
    """(y, last state, gradients) of a random functional of both."""
    leaves = [z.clone().requires_grad_() for z in inputs]
    y, last = call(*leaves[:5], leaves[5] if state else None, kernel=kernel)
    weights = draws(y.shape, last.shape, seed=9)
    sum((out.double() * weight.to(out.device)).sum() for out, weight in zip((y, last), weights, strict=True)).backward()
    used = leaves if state else leaves[:5]
    return [y.detach(), last.detach(), *(leaf.grad for leaf in used)]


def numpy_dual(x, dt, A, B, C, state):
    """The formula of the paper with nothing but loops."""
    x, dt, A, B, C, state = (z.numpy() for z in (x, dt, A, B, C, state))
    (batch, length, heads, _), y, h = x.shape, np.zeros_like(x), state.copy()
    for b in range(batch):
        for t in range(length):
            for k in range(heads):
                g = k // (heads // B.shape[2])
                h[b, k] = np.exp(dt[b, t, k] * A[k]) * h[b, k] + dt[b, t, k] * np.outer(x[b, t, k], B[b, t, g])
                y[b, t, k] = h[b, k] @ C[b, t, g]
    return y, h


def numpy_selective(x, dt, A, B, C, state):
    x, dt, A, B, C, state = (z.numpy() for z in (x, dt, A, B, C, state))
    batch, length, channels = x.shape
    y, h = np.zeros_like(x), state.copy()
    for b in range(batch):
        for t in range(length):
            for d in range(channels):
                g = d // (channels // B.shape[2])
                h[b, d] = np.exp(dt[b, t, d] * A[d]) * h[b, d] + dt[b, t, d] * x[b, t, d] * B[b, t, g]
                y[b, t, d] = h[b, d] @ C[b, t, g]
    return y, h


@pytest.mark.parametrize("name, oracle", [("ssd", numpy_dual), ("selective scan", numpy_selective)])
def test_the_recurrence_is_the_formula(name, oracle):
    call, make = OPERATIONS[name]
    inputs = make(7)
    for ours, due in zip(call(*inputs, kernel="recurrence"), oracle(*inputs), strict=True):
        np.testing.assert_allclose(ours.numpy(), due, rtol=1e-12, atol=1e-12)
    leaves = [z.requires_grad_() for z in make(3)]
    assert torch.autograd.gradcheck(lambda *z: call(*z, kernel="recurrence"), leaves)


@pytest.mark.parametrize("state", [True, False], ids=["from a state", "from nothing"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_chunks_are_the_recurrence(name, length, state):
    """Value, last state and every gradient to 1e-10 in float64."""
    call, make = OPERATIONS[name]
    ours, due = (value_and_grads(call, make(length), kernel, state) for kernel in ("chunked", "recurrence"))
    for a, b in zip(ours, due, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bytes_", [1, 1 << 14])
def test_segments_do_not_show(monkeypatch, bytes_):
    """A scan in many segments, with one chunk or a few in each."""
    monkeypatch.setattr(scan_by_chunks, "SEGMENT_BYTES", bytes_)
    for length in (16, 33, 100):
        ours, due = (value_and_grads(*OPERATIONS["selective scan"][:1], selective(length), k) for k in
                     ("chunked", "recurrence"))  # fmt: skip
        for a, b in zip(ours, due, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_recomputation_does_not_show(monkeypatch):
    kept = value_and_grads(ssd.ssd, dual(130), "chunked")
    monkeypatch.setattr(ssd, "KEPT_BYTES", 0)
    for a, b in zip(value_and_grads(ssd.ssd, dual(130), "chunked"), kept, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_state_carries_on(name):
    """Two halves, the second from the first one's state, are the whole."""
    call, make = OPERATIONS[name]
    *inputs, state = make(70)
    whole, last = call(*inputs, state)
    parts = []
    for piece in (slice(0, 23), slice(23, 70)):
        y, state = call(*(z if z.ndim < 3 else z[:, piece] for z in inputs), state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OPERATIONS)
def test_low_precision_keeps_a_wide_state(name):
    call, make = OPERATIONS[name]
    inputs = make(130)
    exact = value_and_grads(call, inputs, "recurrence")
    rough = value_and_grads(call, [inputs[0].bfloat16(), *inputs[1:3], *(z.bfloat16() for z in inputs[3:5]),
                                   inputs[5]], "chunked")  # fmt: skip
    assert rough[0].dtype == torch.bfloat16 and rough[1].dtype in (torch.float32, torch.float64)
    for a, b in zip(rough, exact, strict=True):
        assert (a.double() - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("name", OPERATIONS)
def test_autocast_does_not_reach_the_decays(name):
    call, make = OPERATIONS[name]
    inputs = [z.float() for z in make(40)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = call(*inputs)
    due, last = call(*inputs)
    assert torch.equal(y, due) and torch.equal(state, last)


def test_autocast_does_not_reach_the_scans_own_backward_pass():
    call, make = OPERATIONS["selective scan"]
    inputs = [z.float() for z in make(40)]
    with torch.autocast("cpu", dtype=torch.bfloat16):  # backward within it, as a careless caller has it
        found = value_and_grads(call, inputs, "auto")
    for a, b in zip(found, value_and_grads(call, inputs, "auto"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_in_nothing_out(name):
    call, make = OPERATIONS[name]
    x, dt, A, B, C, state = make(3)
    y, last = call(x[:, :0], dt[:, :0], A, B[:, :0], C[:, :0], state)
    assert y.shape == x[:, :0].shape and torch.equal(last, state)
    y, last = call(x[:0], dt[:0], A, B[:0], C[:0])
    assert y.shape == x[:0].shape and last.shape == state[:0].shape


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_long_forgetful_past_leaves_no_nan(name):
    """Steps so long that decays underflow, and so short that nothing is forgotten."""
    call, make = OPERATIONS[name]
    for step in (1e4, 1e-12):
        inputs = [z.float() for z in make(130)]
        inputs[1] = torch.full_like(inputs[1], step)
        for value in value_and_grads(call, inputs, "chunked"):
            assert value.isfinite().all()


class Seen(TorchDispatchMode):
    """How many operations are called, and the bytes of the largest tensor that any of them makes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.untyped_storage().nbytes())
        return out


@pytest.fixture
def opened(monkeypatch):
    """The scan as a plain function: a mode does not see into an operator."""
    monkeypatch.setattr(selective_scan, "scan_by_chunks", scan_by_chunks.scan_by_chunks._init_fn)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_tensor_has_the_square_of_the_length(name, opened):
    call, make = OPERATIONS[name]
    largest = {}
    for length in (512, 1024):
        with Seen() as seen, torch.no_grad():
            call(*(z.float() for z in make(length)))
        largest[length] = seen.bytes
    assert largest[1024] <= 2.1 * largest[512]


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_kept_for_the_backward_pass_is_linear_in_length(name):
    call, make = OPERATIONS[name]
    sizes = {}
    for length in (256, 512, 1024):
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            call(*(z.float().requires_grad_() for z in make(length)))
        sizes[length] = sum(kept.values())
    assert sizes[1024] <= 2.1 * sizes[512] <= 4.4 * sizes[256]


@pytest.mark.parametrize("name", OPERATIONS)
def test_neither_is_a_loop_over_time(name, opened):
    """One operation a position would be 2,048 already."""
    call, make = OPERATIONS[name]
    with Seen() as seen, torch.no_grad():
        y, _ = call(*(z.float() for z in make(2048)))
    assert y.shape[1] == 2048 and seen.calls < 1024


def test_flops_of_the_dual_are_those_counted():
    from backbones.mamba2 import SSDCore

    core = SSDCore(2, inner=16, state=6, head_dim=8, conv=0, steps=(0.01, 0.1), kernel="chunked")
    for length in (64, 256):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            core.scan(torch.randn(1, length, 2, core.inputs), None, None)
        assert core.scan_flops(length) == counter.get_total_flops() / length


@pytest.mark.parametrize("module", [ssd, selective_scan])
def test_the_package_where_it_cannot_run_names_the_extra(module):
    call, make = OPERATIONS["ssd" if module is ssd else "selective scan"]
    due = "on CUDA only" if importlib.util.find_spec("mamba_ssm") else "not installed"
    with pytest.raises(WorkbenchError, match=rf"{due}.*sedd-workbench\[cuda\]"):
        call(*make(3), kernel="mamba_ssm")


# --- the authors' code, where it is at hand ---------------------------------------------------------------------


def authors(module):
    """A module of mamba_ssm, if it imports here."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        pytest.skip(f"{module} does not import here: {type(error).__name__}")


def test_the_authors_reference_of_the_selective_scan():
    fn = authors("mamba_ssm.ops.selective_scan_interface").selective_scan_ref
    x, dt, A, B, C, _ = (z.float() for z in selective(40))
    y, last = fn(x.mT, dt.mT, A, B.permute(0, 2, 3, 1), C.permute(0, 2, 3, 1), return_last_state=True)
    ours, state = selective_scan.selective_scan(x, dt, A, B, C)
    torch.testing.assert_close(ours, y.mT, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-4)


def test_the_authors_reference_of_the_dual():
    fn = authors("mamba_ssm.ops.triton.ssd_combined").ssd_chunk_scan_combined_ref
    x, dt, A, B, C, _ = (z.float() for z in dual(64))
    ours, _ = ssd.ssd(x, dt, A, B, C)
    torch.testing.assert_close(ours, fn(x, dt, A, B, C, 16), rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", ["chunked", "mamba_ssm"])
@pytest.mark.parametrize("dtype, close", [(torch.float32, 2e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_on_cuda(name, dtype, close, kernel):
    if kernel == "mamba_ssm" and importlib.util.find_spec("mamba_ssm") is None:
        pytest.skip("mamba-ssm is not installed")
    call, _ = OPERATIONS[name]
    sizes = {"heads": 4, "width": 64, "n": 64} if name == "ssd" else {"channels": 128, "n": 16}
    inputs = OPERATIONS[name][1](300, torch.float32, groups=1, **sizes)
    if (name, kernel) == ("selective scan", "mamba_ssm"):  # its last state has no gradient
        real = call
        call = lambda *z, kernel: (lambda y, last: (y, last.detach()))(*real(*z, kernel=kernel))  # noqa: E731
    exact = value_and_grads(call, [z.double() for z in inputs], "recurrence", state=False)
    moved = [z.cuda() if i in (1, 2, 5) else z.cuda().to(dtype) for i, z in enumerate(inputs)]
    for a, b in zip(value_and_grads(call, moved, kernel, state=False), exact, strict=True):
        assert (a.cpu().double() - b).norm() < close * b.norm()
