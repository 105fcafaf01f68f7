"""The head's product by either library: float32 throughout, and said in the report."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import products
from workbench.kernels.products import PRODUCT


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 48])
@pytest.mark.parametrize("name", list(PRODUCT.candidates))
def test_every_way_is_full_float32(name: str, rows: int, bias: bool) -> None:
    where = {"device": "cpu", "dtype": torch.float32}
    reason = PRODUCT.candidates[name].available(**where)
    if reason is not None:
        pytest.skip(reason)
    torch.manual_seed(0)
    h_RD, weight = torch.randn(rows, 96), torch.randn(501, 96)
    bias_S = torch.randn(501) if bias else None
    product, _ = PRODUCT.pick(name, **where)
    truth = h_RD.double() @ weight.double().t() + (0 if bias_S is None else bias_S.double())
    # inputs rounded to bfloat16 or TF32 would be off by 1e-2 here
    assert float((product(h_RD, weight, bias_S).double() - truth).abs().max()) < 5e-5


def test_what_is_picked_is_known_with_its_reason(monkeypatch) -> None:
    monkeypatch.setattr(products, "vendor", lambda: "GenuineIntel")
    PRODUCT.forget()
    name, why = PRODUCT.choose(device="cpu", dtype=torch.float32)
    assert name == "torch" and "not AMD's" in why
    monkeypatch.setattr(products, "vendor", lambda: "AuthenticAMD")
    PRODUCT.forget()
    if products._callable("cpu", torch.float32) is None:
        assert PRODUCT.choose(device="cpu", dtype=torch.float32)[0] == "onednn"
    assert PRODUCT.choose(device="cpu", dtype=torch.float64)[0] == "torch"
    assert PRODUCT.choose(device="cuda", dtype=torch.float32)[0] == "torch"
    assert {row["operation"] for row in PRODUCT.picked()} == {PRODUCT.operation}
    PRODUCT.forget()


def test_a_gradient_is_recorded_where_it_is_asked_for() -> None:
    weight = torch.randn(5, 3, requires_grad=True)
    products.linear(torch.randn(2, 3), weight, None).sum().backward()
    assert weight.grad is not None
