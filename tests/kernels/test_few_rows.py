"""Products of few rows under autocast: as fine as they say, only where they may be, and never of a weight that was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.gpt2 import GPT2
from workbench.kernels import few_rows
from workbench.kernels.few_rows import AFTER, FEW, FEW_ROWS
from workbench.kernels.precision import cast_once
from workbench.kernels.rows import head_rows

pytestmark = pytest.mark.skipif(
    few_rows._callable("cpu", torch.float32) is not None, reason="this build of torch packs no float16 weights"
)
DIM, OUT = 96, 501


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(DIM, OUT).requires_grad_(False)


def low():
    return torch.autocast("cpu", torch.bfloat16)


def error(linear, h, out):
    due = h.double() @ linear.weight.double().t() + linear.bias.double()
    size = h.double().abs() @ linear.weight.double().abs().t()
    return float(((out.double() - due).abs() / size).max())


@pytest.mark.parametrize("rows", [1, 7, FEW])
def test_few_rows_are_float32_first_and_have_weights_of_11_bits_later(linear, rows):
    h = torch.randn(rows, DIM)
    with cast_once(linear), low():
        errors = [error(linear, h, linear(h)) for _ in range(AFTER + 1)]
    assert max(errors[: AFTER - 1]) < 1e-6
    assert 1e-6 < max(errors[AFTER - 1 :]) < 2**-11
    with torch.no_grad(), low():
        assert error(linear, h, linear(h)) > 2**-11  # what autocast would have given


def test_other_shapes_and_a_head_take_the_same_way(linear):
    h = torch.randn(2, 3, DIM)
    with cast_once(linear), low():
        assert linear(h).dtype == torch.float32
        assert torch.equal(linear(h), linear(h.reshape(6, DIM)).reshape(2, 3, OUT))
        assert torch.equal(head_rows(linear, h[0]), linear(h[0]))
        assert linear(h.bfloat16()).dtype == torch.float32


def test_it_is_left_alone_elsewhere(linear):
    many, few = torch.randn(FEW + 1, DIM), torch.randn(1, DIM)
    with cast_once(linear):
        exact = linear(few)
        assert few_rows.product(linear, few) is None  # float32 is asked for
        with low():
            assert few_rows.product(linear, many) is None and linear(many).dtype == torch.bfloat16
            assert few_rows.product(linear, many[:0]) is None
            with torch.enable_grad():
                assert few_rows.product(linear, few) is None
    assert few_rows.product(linear, few) is None and "forward" not in vars(linear)
    assert torch.equal(linear(few), exact)


@pytest.mark.parametrize("number", [7e4, -7e4, torch.inf, torch.nan])
def test_a_weight_beyond_float16_stays_float32(linear, number):
    linear.weight[3, 5] = number
    h = torch.randn(1, DIM)
    with cast_once(linear), low():
        outs = [linear(h) for _ in range(AFTER + 1)]
    due = nn.functional.linear(h, linear.weight, linear.bias)
    torch.testing.assert_close(outs[-1], due, equal_nan=True)


def test_weights_that_change_between_two_uses_are_seen(linear):
    h = torch.randn(1, DIM)
    for _ in range(2):
        with cast_once(linear), low():
            for _ in range(AFTER + 1):
                out = linear(h)
        assert error(linear, h, out) < 2**-11
        linear.weight.mul_(-3.0)


def test_contexts_nest_and_share_what_is_packed(linear, monkeypatch):
    packed = []
    monkeypatch.setattr(few_rows.Half, "_pack", lambda self: packed.append(self))
    h = torch.randn(1, DIM)
    with cast_once(linear):
        for _ in range(AFTER):
            with cast_once(linear), low():
                linear(h)
        assert "forward" in vars(linear)
    assert len(packed) == 1 and "forward" not in vars(linear)


def test_whatever_happens_the_forwards_are_put_back(linear):
    with pytest.raises(RuntimeError), cast_once(linear):
        raise RuntimeError
    assert "forward" not in vars(linear) and not few_rows._HELD


def test_compiled_blocks_stay_as_they_are(linear):
    net = nn.Sequential(linear, nn.Linear(OUT, DIM))
    linear.compile(backend="eager")
    with cast_once(net):
        assert list(few_rows._HELD) == [net[1]]


def test_a_network_reads_one_token_finer_than_by_autocast_alone():
    torch.manual_seed(0)
    net = GPT2(40, 40, 6, dim=32, depth=2, heads=2, dropout=0.0).eval().requires_grad_(False)
    x_BL = torch.arange(6)[None]

    def features(few):
        cache, found = net.new_cache(1), []
        with cast_once(net) if few else torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=few is not None):
            for at in range(6):
                h, cache = net.commit(x_BL[:, at : at + 1], cache)
                found.append(h)
        return torch.cat(found, 1)

    exact = features(None)  # attention itself takes bfloat16 either way
    assert 2 * (features(True) - exact).abs().max() < (features(False) - exact).abs().max()


def test_what_is_picked_is_told():
    FEW_ROWS.forget()
    with cast_once(nn.Linear(DIM, OUT)):
        pass
    assert [row["picked"] for row in FEW_ROWS.picked()] == ["half"]
    with cast_once(nn.Linear(DIM, OUT).double()):
        assert not few_rows._HELD
    FEW_ROWS.forget()
