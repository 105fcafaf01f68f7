"""Depthwise convolutions: every implementation computes the formula."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from workbench.core.errors import WorkbenchError
from workbench.kernels.conv import depthwise


def formula(x_BLC, weight_CW, bias_C, left):
    """y[l] = bias + Σ_w x[l + w − left] · weight[w], with loops."""
    out = torch.zeros_like(x_BLC) + (0 if bias_C is None else bias_C)
    for place in range(x_BLC.shape[1]):
        for tap in range(weight_CW.shape[1]):
            source = place + tap - left
            if 0 <= source < x_BLC.shape[1]:
                out[:, place] = out[:, place] + x_BLC[:, source] * weight_CW[:, tap]
    return out


@pytest.mark.parametrize("kernel", ["taps", "conv1d", "auto"])
@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("width, left", [(4, 3), (4, 0), (7, 3), (1, 0), (2, 1)])
def test_it_is_the_formula(kernel, width, left, length):
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, length, 3), (3, width), (3,))
    )
    found = []
    for out in (depthwise(x, weight, bias, left, kernel=kernel), formula(x, weight, bias, left)):
        found.append((out, *torch.autograd.grad(out.square().sum(), (x, weight, bias))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", ["taps", "conv1d"])
def test_what_stood_before_is_read(kernel):
    x, weight = torch.randn(2, 9, 3), torch.randn(3, 4)
    whole = depthwise(x, weight, left=3, kernel=kernel)
    torch.testing.assert_close(depthwise(x[:, 5:], weight, left=3, before_BTC=x[:, 2:5], kernel=kernel), whole[:, 5:])


def test_the_package_where_it_cannot_run_names_the_extra():
    due = "on CUDA only" if importlib.util.find_spec("causal_conv1d") else "not installed"
    with pytest.raises(WorkbenchError, match=rf"{due}.*sedd-workbench\[cuda\]"):
        depthwise(torch.randn(1, 4, 8), torch.randn(8, 4), left=3, kernel="causal_conv1d")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", ["taps", "conv1d", "causal_conv1d"])
def test_kernels_on_cuda(kernel):
    if kernel == "causal_conv1d" and importlib.util.find_spec("causal_conv1d") is None:
        pytest.skip("causal-conv1d is not installed")
    torch.manual_seed(0)
    wide, weight, bias = torch.randn(2, 300, 148), torch.randn(80, 4), torch.randn(80)  # x is a view of wider rows
    for dtype, close in ((torch.float32, 1e-3), (torch.bfloat16, 2e-2)):
        found = []
        for device, one in (("cpu", "conv1d"), ("cuda", kernel)):
            leaves = [z.to(device, dtype if device == "cuda" else None).requires_grad_() for z in (wide, weight, bias)]
            y = depthwise(leaves[0][..., 34:114], leaves[1], leaves[2], left=3, kernel=one)
            found.append([z.float().cpu() for z in (y, *torch.autograd.grad(y.float().square().sum(), leaves))])
        for a, b in zip(*found, strict=True):
            assert (a - b).norm() < close * b.norm()
