"""The transformer and GPT-2: caches, conditioning, sizes, precision, compilation."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from backbones.attention import Attention
from backbones.base import Mixer
from backbones.conditioning import AdaLN, Added, Unconditioned
from backbones.cost import count_parameters, counted_flops_per_token, flops_per_token
from backbones.embedding import Tokens
from backbones.gpt2 import GPT2
from backbones.rotary import Rotary, split_and_turn, tables
from backbones.shortconv import ShortConv
from backbones.stack import Stack
from backbones.transformer import Transformer
from workbench.core.errors import WorkbenchError
from workbench.core.spec import misfits, resolve
from workbench.kernels.attention import ATTENTION

SMALL = {"dim": 32, "depth": 2, "heads": 4}


def ids(states, batch, length, seed=0):
    return torch.randint(0, states, (batch, length), generator=torch.Generator().manual_seed(seed))


def perturbed(net, size=0.2):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return net


CACHED = {
    "gpt2": lambda: GPT2(30, 30, 200, **SMALL),
    "causal transformer": lambda: Transformer(30, 30, 200, **SMALL, causal=True),
    "causal transformer, short convolution": lambda: Transformer(30, 30, 64, **SMALL, causal=True, shortconv=5),
    "causal transformer, neighbours": lambda: Transformer(30, 30, 64, **SMALL, causal=True, neighbours=3),
}


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("make", CACHED.values(), ids=CACHED)
def test_cache_equals_full_forward_over_200_tokens(make, dtype, close):
    net = perturbed(make(), 0.1).eval().to(dtype)
    x_BL = ids(30, 2, 200)
    pieces = [7, *[1] * 150, 43]
    with torch.no_grad():
        full, cache, out, start = net(x_BL), net.new_cache(2), [], 0
        for size in pieces:
            h, cache = net.commit(x_BL[:, start : start + size], cache)
            out.append(h)
            start += size
    assert cache.length == 200
    torch.testing.assert_close(torch.cat(out, 1), full, rtol=close, atol=close)


def test_a_cache_can_be_continued_twice():
    net = perturbed(Transformer(30, 30, 32, **SMALL, causal=True, shortconv=3), 0.1).eval()
    x_BL = ids(30, 2, 12)
    other_BL = torch.cat((x_BL[:, :5], (x_BL[:, 5:] + 1) % 30), 1)
    with torch.no_grad():
        _, stem = net.commit(x_BL[:, :5], net.new_cache(2))
        one, longer = net.commit(x_BL[:, 5:8], stem)
        two, _ = net.commit(other_BL[:, 5:], stem)
        rest, _ = net.commit(x_BL[:, 8:], longer)  # after the other branch wrote
        torch.testing.assert_close(torch.cat((one, rest), 1), net(x_BL)[:, 5:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(two, net(other_BL)[:, 5:], rtol=1e-5, atol=1e-5)


def test_no_cache_without_causality():
    net = Transformer(30, 30, 8, **SMALL)
    assert not net.has_cache
    with pytest.raises(WorkbenchError, match="set causal: true"):
        net.new_cache(1)


def test_a_mixer_without_a_cache_is_named():
    class Plain(Mixer):
        type_name = "plain"

        def forward(self, h_BLD, cache=None):
            return h_BLD

        def flops_per_token(self, length):
            return 1.0

        def state_bytes(self, length):
            return 0

    net = Transformer(30, 30, 8, **SMALL, causal=True)
    net.blocks[1].mixer = Plain()
    assert not net.has_cache
    with pytest.raises(WorkbenchError, match="'plain' keeps no cache"):
        net.new_cache(1)


@pytest.mark.parametrize("causal", [False, True])
def test_a_windowed_mixer_sees_its_window_and_says_what_it_costs(causal):
    torch.manual_seed(0)
    mixer = Attention(32, 64, causal, window=3)
    h_BLD = torch.randn(1, 20, 32)
    moved = h_BLD.clone()
    moved[:, 10] += 1
    changed = (mixer(h_BLD) != mixer(moved)).any(-1)[0].nonzero().flatten().tolist()
    assert changed == list(range(10 if causal else 7, 14))
    keys = sum(min(i, 3) + 1 + (0 if causal else min(19 - i, 3)) for i in range(20)) / 20
    assert mixer.flops_per_token(20) == pytest.approx(8 * 32**2 + 4 * keys * 32)
    assert mixer.flops_per_token(3) == 8 * 32**2 + 4 * 3 * 32 * (0.5 if causal else 1)  # all of it is within reach
    assert mixer.heads == 1 and Attention(192, 8, False).heads == 3


# --- conditioning -----------------------------------------------------------------------------------------------


def test_blocks_begin_as_the_identity_and_the_head_at_zero():
    net = Transformer(30, 29, 8, **SMALL).eval()
    x_BL = ids(30, 2, 8)
    h_BLD = net(x_BL, torch.rand(2))
    torch.testing.assert_close(h_BLD, net.final.norm(net.embed(x_BL)))
    assert not net.head(h_BLD).any()


@pytest.mark.parametrize("conditioning", [AdaLN(), Added(), Unconditioned()], ids=lambda c: c.type_name)
def test_who_hears_sigma(conditioning):
    net = perturbed(Transformer(30, 29, 8, **SMALL, conditioning=conditioning)).eval().double()
    x_BL = ids(30, 2, 8)
    with torch.no_grad():
        low, high, none = net(x_BL, torch.zeros(1)), net(x_BL, torch.full((2,), 3.0)), net(x_BL)
        assert torch.equal(low, none)  # no σ is σ = 0, one row of it whatever the batch
        torch.testing.assert_close(low, net(x_BL, torch.zeros(2)))
    assert torch.equal(low, high) == isinstance(conditioning, Unconditioned)


def test_sigma_per_token_stays_at_its_token():
    net = perturbed(Transformer(30, 29, 8, **{**SMALL, "depth": 1}, conditioning=AdaLN())).eval()
    x_BL, sigma_BL = ids(30, 1, 8), torch.rand(1, 8)
    moved_BL = sigma_BL.clone()
    moved_BL[0, 3] += 1.0
    with torch.no_grad():
        c, h = net.conditioning(sigma_BL, net.embed(x_BL))
        c2, _ = net.conditioning(moved_BL, h)
    changed = (c != c2).any(-1)[0]
    assert changed.tolist() == [i == 3 for i in range(8)]


# --- sizes ------------------------------------------------------------------------------------------------------


def test_published_sizes():
    with torch.device("meta"):
        small = Transformer(50258, 50258, 1024)
        gpt2 = GPT2(50257, 50257, 1024)
    assert count_parameters(small) == (169_627_218, 92_380_672)
    assert count_parameters(gpt2).total == 124_439_808
    # 24 D² + 4 L D a block, 2 D V for the head (the rest is the noise level's)
    due = 12 * (24 * 768**2 + 4 * 1024 * 768) + 2 * 768 * 50258
    assert flops_per_token(small, 1024) == pytest.approx(due, rel=1e-3)
    assert counted_flops_per_token(gpt2, 1024) == pytest.approx(due, rel=1e-3)
    pairs_ahead = 12 * 2 * 1024 * 768  # which the counter counts and nobody needs
    assert flops_per_token(gpt2, 1024) == pytest.approx(due - pairs_ahead, rel=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_a_mixers_own_flops_are_those_counted(causal):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net = Transformer(30, 30, 64, **SMALL, causal=causal)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.blocks[0].mixer(torch.zeros(1, 64, 32))
    pairs = 4 * 64 * 32 * (0.5 if causal else 0)  # the counter does not know that half the pairs are masked
    assert net.blocks[0].mixer.flops_per_token(64) == counter.get_total_flops() / 64 - pairs


def test_rotary_reaches_beyond_the_supplied_length():
    short = perturbed(Transformer(30, 30, 4, **SMALL)).eval()
    long = Transformer(30, 30, 64, **SMALL).eval()
    long.load_state_dict(short.state_dict())
    x_BL = ids(30, 2, 50)
    with torch.no_grad():
        assert torch.equal(short(x_BL), long(x_BL))


def test_gpt2_says_which_positions_it_has():
    net = GPT2(30, 30, 16, **SMALL)
    with pytest.raises(WorkbenchError, match="17 positions asked of a network with 16"):
        net(ids(30, 1, 17))


@pytest.mark.parametrize("make", [Transformer, GPT2], ids=["transformer", "gpt2"])
def test_meta_builds_hold_nothing_and_normal_ones_fill_them(make):
    with torch.device("meta"):
        empty = make(30, 30, 16, **SMALL)
    full = make(30, 30, 16, **SMALL)
    assert all(value.is_meta for value in itertools.chain(empty.parameters(), empty.buffers()))
    assert not any(value.is_meta for value in itertools.chain(full.parameters(), full.buffers()))
    assert {k: v.shape for k, v in empty.state_dict().items()} == {k: v.shape for k, v in full.state_dict().items()}
    assert all(value.isfinite().all() for value in full.buffers())


# --- the tied head ----------------------------------------------------------------------------------------------


def test_the_head_is_the_table():
    net = GPT2(30, 30, 16, **SMALL)
    assert net.head.weight is net.embed.tokens.weight
    assert "head.weight" not in net.state_dict()
    twin = copy.deepcopy(net)
    assert twin.head.weight is twin.embed.tokens.weight is not net.head.weight


def test_a_head_over_fewer_outputs_trains_the_same_table():
    net = GPT2(30, 28, 16, **SMALL).eval()
    out = net.head(net(torch.full((1, 4), 29)))
    assert out.shape == (1, 4, 28) and net.head.out_features == 28
    out[..., 5].sum().backward()
    grad = net.embed.tokens.weight.grad
    assert grad[5].any() and grad[29].any() and not grad[28].any()
    with pytest.raises(WorkbenchError, match="at most 30 outputs"):
        GPT2(30, 31, 16, **SMALL)


# --- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_fast_rotary_is_the_formula(dtype):
    torch.manual_seed(0)
    rotary = Rotary(8, 16)
    qkv = torch.randn(2, 6, 3, 4, 8, dtype=dtype)
    fast, plain = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    cos, sin = (table[3:9, None, None] for table in tables(8, 16))
    outs = rotary(fast, start=3), split_and_turn(plain, cos, sin)
    weight = torch.randn(3, *outs[0][0].shape)
    for out in outs:
        sum((z.float() * w).sum() for z, w in zip(out, weight, strict=True)).backward()
    close = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    for a, b in zip(*outs, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b.to(dtype), **close)
    torch.testing.assert_close(fast.grad, plain.grad, **close)


def test_rotary_depends_on_differences_of_positions_only():
    q, k = torch.randn(2, 1, 1, 1, 8).unbind(0)

    def score(i, j):
        rotary = Rotary(8, 32)
        at_i = rotary(torch.stack((q, q, q), 2), start=i)[0]
        at_j = rotary(torch.stack((k, k, k), 2), start=j)[1]
        return (at_i * at_j).sum()

    torch.testing.assert_close(score(3, 7), score(20, 24), rtol=1e-5, atol=1e-5)
    assert not torch.isclose(score(3, 7), score(3, 9))


@pytest.mark.parametrize("length", [9, 2, 1])
@pytest.mark.parametrize("causal", [False, True])
def test_short_convolution_is_a_convolution(causal, length):
    class Identity(Mixer):
        def forward(self, h_BLD, cache=None):
            return h_BLD

        def flops_per_token(self, length):
            return 0.0

        def state_bytes(self, length):
            return 0

    torch.manual_seed(0)
    mixer = ShortConv(Identity(), 6, 5, causal)
    h_BLD = torch.randn(2, length, 6, requires_grad=True)
    assert torch.equal(mixer(h_BLD), h_BLD)  # begins as is
    torch.nn.init.normal_(mixer.weight)
    h_BDL = h_BLD.transpose(1, 2)
    padded = torch.nn.functional.pad(h_BDL, (4, 0) if causal else (2, 2))
    due = h_BDL + torch.nn.functional.conv1d(padded, mixer.weight, groups=6)
    results = []
    for out_BLD in (mixer(h_BLD), due.transpose(1, 2)):
        results.append((out_BLD, *torch.autograd.grad(out_BLD.square().sum(), (h_BLD, mixer.weight))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_neighbours_speak_by_their_offset(causal):
    torch.manual_seed(0)
    embed = Tokens(5, 4, reach=2, causal=causal)
    x = [3, 1, 4, 1]
    h_LD = embed(torch.tensor([x]))[0]
    assert embed.offsets == ([-2, -1] if causal else [-2, -1, 1, 2])
    for i in range(4):
        due_D = embed.table.weight[x[i]]
        for offset, table in zip(embed.offsets, embed.beside, strict=True):
            if 0 <= i + offset < 4:
                due_D = due_D + table.weight[x[i + offset]]
        torch.testing.assert_close(h_LD[i], due_D)


def test_autocast_keeps_the_stream_wide_and_stays_near():
    net = perturbed(Transformer(30, 29, 32, **SMALL, shortconv=3), 0.05).eval()
    x_BL, sigma_B = ids(30, 4, 32), torch.rand(4)
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, inputs, out: seen.append((inputs[1].dtype, out.dtype)))
    with torch.no_grad():
        exact = net(x_BL, sigma_B)
        seen.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x_BL, sigma_B)
    assert rough.dtype == torch.float32 and set(seen) == {(torch.float32, torch.float32)}
    assert (rough - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(rough, exact)  # the products were taken in bfloat16


def test_dropout_is_for_training_only():
    net = perturbed(Transformer(30, 29, 8, **SMALL, dropout=0.5))
    x_BL = ids(30, 2, 8)
    assert not torch.equal(net(x_BL), net(x_BL))
    net.eval()
    assert torch.equal(net(x_BL), net(x_BL))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("make", [
    lambda: Transformer(30, 29, 16, **SMALL, dropout=0.0, shortconv=3),
    lambda: GPT2(30, 30, 16, **SMALL, dropout=0.0),
], ids=["transformer", "gpt2"])
def test_blocks_compile_whole(make, autocast):
    """One graph for all blocks, without a break; the code generator itself is left out (it takes half a minute)."""
    net = perturbed(make(), 0.05)
    x_BL, sigma_B = ids(30, 2, 16), torch.rand(2)

    def step():
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            h_BLD = net(x_BL, sigma_B)
        h_BLD.square().mean().backward()
        return h_BLD.detach().clone(), [p.grad.clone() for p in net.parameters() if p.grad is not None]

    eager, eager_grads = step()
    ATTENTION.forget()  # the first pick may fall into tracing
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for block in net.blocks:
        block.compile(fullgraph=True, backend="aot_eager")
    compiled, grads = step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    close = 0.03 if autocast else 1e-5
    for a, b in zip((compiled, *grads), (eager, *eager_grads), strict=True):
        assert (a - b).norm() <= close * b.norm()


# --- recipes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data, path, part", [
    ({"type": "transformer", "dim": 50, "heads": 4}, "backbone.heads", "not divisible"),
    ({"type": "transformer", "dim": 12, "heads": 4}, "backbone.heads", "even width per head"),
    ({"type": "gpt2", "dim": 50, "heads": 4}, "backbone.heads", "not divisible"),
    ({"type": "transformer", "shortconv": 4}, "backbone.shortconv", "odd width"),
])
def test_misfits_are_found_while_resolving(data, path, part):
    from backbones.base import Backbone

    node, problems = resolve(Backbone, data, "backbone")
    assert problems == []
    (problem,) = misfits(node)
    assert problem.path == path and part in problem.message


def test_sight_follows_causality():
    assert Transformer.sight({"causal": True}) == "left"
    assert Transformer.sight({"causal": False}) == "all"
    assert GPT2.sight({}) == "left"
    assert issubclass(Transformer, Stack)
