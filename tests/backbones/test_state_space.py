"""Mamba, Mamba-2, hybrids and the hollow network: directions, caches, σ on steps, precision, sizes, patterns."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from backbones.attention import Attention
from backbones.base import Backbone, CachedBackbone, Mixer
from backbones.conditioning import Conditioning
from backbones.contract import CORES
from backbones.cost import count_parameters, counted_flops_per_token, flops_per_token
from backbones.directions import Directions
from backbones.recurrence import Convolution, OneWay, first_steps
from workbench.core import index
from workbench.core.errors import WorkbenchError
from workbench.core.loading import resolve_as
from workbench.core.spec import build, misfits, resolve
from workbench.kernels import selective_scan, ssd
from workbench.recipe import Recipe, load
from workbench.train.optim import AdamW, Muon, plain

index.import_parts()
SMALL = {"dim": 32, "depth": 2, "cond_dim": 8, "dropout": 0.0}
MIXER = {"mamba": {"state": 4}, "mamba2": {"state": 4, "head_dim": 8}}
MIXED = {"M": MIXER["mamba2"], "S": MIXER["mamba"], "A": {"heads": 2}}
RECURRENT = {
    "mamba": {"type": "mamba", **SMALL, "mixer": MIXER["mamba"]},
    "mamba2": {"type": "mamba2", **SMALL, "mixer": MIXER["mamba2"]},
    "hybrid": {"type": "hybrid", **SMALL, "depth": 3, "pattern": "MAS", "mixers": MIXED},
}


def make(data, states=30, outputs=29, length=64, device="cpu"):
    node, problems = resolve(Backbone, data, "backbone")
    assert not problems, problems
    assert not misfits(node)
    torch.manual_seed(0)
    with torch.device(device):
        return build(node, {"states": states, "outputs": outputs, "length": length})


def perturbed(module, size=0.1):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return module


def ids(batch, length, states=30, seed=0):
    return torch.randint(0, states, (batch, length), generator=torch.Generator().manual_seed(seed))


# --- directions -------------------------------------------------------------------------------------------------


def same_both_ways(module):
    """Give the second direction the first one's weights, wherever they are stacked."""
    core = module.core
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if not name.startswith(("read", "step", "norm")) or (name == "norm" and len(parameter) == 2):
                first, second = parameter.chunk(2)
                second.copy_(first)
        for pair in (getattr(core, "read", None), getattr(core, "step", None)):
            if pair is not None:
                pair[1].load_state_dict(pair[0].state_dict())
    return module


def equal_directions(name, core):
    """A module whose two directions have the same weights, whatever they share."""
    module = same_both_ways(perturbed(Directions.lookup(name)().module(16, CORES[core])))
    with torch.no_grad():
        if name in ("added", "gated"):
            first, second = module.project.weight.chunk(2)
            second.copy_(first)
        if name == "added":
            first, second = module.out.weight.chunk(2, dim=1)
            second.copy_(first)
        elif name == "gated":
            module.out[1].load_state_dict(module.out[0].state_dict())
            module.share.weight.zero_()
            module.share.bias.zero_()
        elif name == "quasiseparable":
            equal_sides_of_hydra(module)
    return module


@pytest.mark.parametrize("core", CORES)
def test_tied_directions_commute_with_flipping(core):
    module = equal_directions("tied", core)
    h_BLD = torch.randn(2, 9, 16)
    torch.testing.assert_close(module(h_BLD.flip(1)), module(h_BLD).flip(1), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        module.core.A_log[: len(module.core.A_log) // 2] += 1.0  # other weights the other way
    assert not torch.allclose(module(h_BLD.flip(1)), module(h_BLD).flip(1), atol=1e-3)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", ["added", "gated"])
def test_equal_independent_directions_commute_with_flipping(name, core):
    module = equal_directions(name, core)
    h_BLD = torch.randn(2, 9, 16)
    torch.testing.assert_close(module(h_BLD.flip(1)), module(h_BLD).flip(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("core", CORES)
def test_added_directions_are_two_one_way_mixers(core):
    """The fused projections hold two mixers that could stand alone, the second from right to left."""
    module = perturbed(Directions.lookup("added")().module(16, CORES[core]))
    h_BLD, total = torch.randn(2, 9, 16), 0
    for side in range(2):
        one = OneWay(16, CORES[core])
        with torch.no_grad():
            one.project.weight.copy_(module.project.weight.chunk(2)[side])
            one.out.weight.copy_(module.out.weight.chunk(2, dim=1)[side])
            mine, theirs = dict(one.core.named_parameters()), dict(module.core.named_parameters())
            for name, parameter in mine.items():
                listed = name.startswith(("read", "step"))
                parameter.copy_(theirs[name.replace(".0.", f".{side}.")] if listed else theirs[name].chunk(2)[side])
        total = total + (one(h_BLD.flip(1)).flip(1) if side else one(h_BLD))
    torch.testing.assert_close(module(h_BLD), total, rtol=1e-5, atol=1e-6)


def test_a_quasiseparable_mixer_counts_its_diagonal_once():
    """With the diagonal and the convolution out of the way a position says nothing of itself."""
    module = perturbed(Directions.lookup("quasiseparable")(conv=1).module(16, CORES["mamba2"]))
    with torch.no_grad():
        module.diagonal.zero_()
    h_BLD = torch.randn(1, 9, 16)
    merged = []
    gate = module.core.gate
    module.core.gate = lambda y, z: merged.append(y) or gate(y, z)
    module(h_BLD)
    moved = h_BLD.clone()
    moved[:, 4] += 1
    module(moved)
    before, after = merged
    assert torch.equal(before[:, 4], after[:, 4])
    assert not torch.equal(before[:, 3], after[:, 3]) and not torch.equal(before[:, 5], after[:, 5])


def test_weights_of_two_directions():
    """Beside one direction: twice for independent ones, little more for tied ones."""
    node = {"type": "mamba2", "state": 16, "head_dim": 16}

    def count(causal=False, **settings):
        found, problems = resolve(Mixer, {**node, **settings})
        assert not problems
        return sum(p.numel() for p in build(found, {"dim": 128, "length": 8, "causal": causal}).parameters())

    one = count(causal=True)
    assert count(directions="added") == 2 * one
    assert count(directions="gated") == 2 * one + 128 * 128 + 128
    assert count(directions="tied") == pytest.approx(one, rel=0.05)


# --- caches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, close", [(torch.float32, 2e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", RECURRENT)
def test_the_state_cache_is_the_full_forward(name, dtype, close):
    net = perturbed(make({**RECURRENT[name], "causal": True})).eval().to(dtype)
    x_BL, pieces = ids(2, 90), [7, *[1] * 50, 33]
    with torch.no_grad():
        full, kept, out, start = net(x_BL), net.new_cache(2), [], 0
        for size in pieces:
            piece = x_BL[:, start : start + size]
            read = net(piece, None, kept)
            h_BLD, longer = net.commit(piece, kept)
            torch.testing.assert_close(read, h_BLD, rtol=close, atol=close)
            torch.testing.assert_close(net(piece, None, kept), read, rtol=0, atol=0)  # reading changes nothing
            out.append(h_BLD)
            kept, start = longer, start + size
    torch.testing.assert_close(torch.cat(out, 1), full, rtol=close, atol=close)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_state_takes_the_same_bytes_at_any_length(name):
    net = make({**RECURRENT[name], "causal": True})
    assert net.state_bytes(10) == net.state_bytes(1000)
    _, kept = net.commit(ids(1, 20), net.new_cache(1))
    held = [tensor for block in kept.blocks for tensor in (block.before_BTC, block.state)]
    assert net.state_bytes(20) == sum(t.numel() * t.element_size() for t in held)
    assert make(RECURRENT[name]).state_bytes(20) is None


@pytest.mark.parametrize("name", RECURRENT)
def test_no_cache_both_ways(name):
    net = make(RECURRENT[name])
    assert net.sight(RECURRENT[name]) == "all" and not net.has_cache
    with pytest.raises(WorkbenchError, match="set causal: true"):
        net.new_cache(1)


def test_directions_that_cannot_go_on_alone_keep_no_cache():
    mixer = {**RECURRENT["mamba2"]["mixer"], "directions": {"type": "quasiseparable"}}
    net = make({**RECURRENT["mamba2"], "mixer": mixer})
    with pytest.raises(WorkbenchError, match="runs both ways"):
        net.blocks[0].mixer.new_cache(1)


@pytest.mark.parametrize("conditioning", ["adaln", "step_size"])
@pytest.mark.parametrize("directions", ["added", "gated", "tied"])
@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_noised_blocks_go_on_from_the_state_of_clean_text(name, directions, conditioning):
    """One pass over all blocks is block after block through the cache, gradients too."""
    settings = {**RECURRENT[name], "blockwise": True, "conditioning": {"type": conditioning}}
    settings["mixer"] = {**settings["mixer"], "directions": {"type": directions}}
    net = perturbed(make(settings)).double().eval()
    x_NS, clean_BT, sigma_N = ids(2, 15).reshape(10, 3), ids(2, 12), torch.rand(10, dtype=torch.float64)
    found, due = (way(net, x_NS, clean_BT, sigma_N) for way in (type(net).beside, CachedBackbone.beside))
    torch.testing.assert_close(found, due, rtol=1e-9, atol=1e-9)
    up = torch.randn_like(found)
    for one, other in zip(*(torch.autograd.grad((h * up).sum(), list(net.blocks.parameters())) for h in (found, due)),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


# --- every backbone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECURRENT)
def test_batches_grouped_by_length_give_each_sequence_its_own_result(name):
    net = perturbed(make(RECURRENT[name])).eval()
    ragged = [ids(1, length, seed=i) for i, length in enumerate((5, 9, 5, 64, 9))]
    with torch.no_grad():
        alone = [net(x, torch.ones(1)) for x in ragged]
        for length in (5, 9, 64):
            group = [i for i, x in enumerate(ragged) if x.shape[1] == length]
            together = net(torch.cat([ragged[i] for i in group]), torch.ones(len(group)))
            for i, h_LD in zip(group, together, strict=True):
                torch.testing.assert_close(h_LD, alone[i][0], rtol=1e-5, atol=1e-5)


def test_the_recurrences_rates_do_not_decay_and_stay_in_float32():
    for name in RECURRENT:
        net = make(RECURRENT[name])
        apart = plain(net)
        rates = [n for n, _ in net.named_parameters() if n.endswith(("A_log", "dt_bias", ".D"))]
        assert rates and set(rates) <= apart
        assert all(p.dtype == torch.float32 for n, p in net.named_parameters() if n in rates)
        for optimizer in (AdamW(weight_decay=0.1), Muon(weight_decay=0.1)):
            groups = [group for one in optimizer.build(net) for group in one.param_groups]
            decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
            assert not decayed & {id(p) for n, p in net.named_parameters() if n in rates}
        convolutions = [m.weight for m in net.modules() if isinstance(m, Convolution)]
        turned = {id(p) for p in Muon().build(net)[0].param_groups[0]["params"]}
        assert convolutions and not turned & {id(weight) for weight in convolutions}


@pytest.mark.parametrize("name", RECURRENT)
def test_bf16_training_stays_finite(name):
    """200 updates at a rate three times what a transformer of this size takes."""
    net = make(RECURRENT[name], length=32)
    (optimizer,) = AdamW(lr=3e-3, weight_decay=0.1).build(net)
    optimizer.param_groups[0]["lr"] = 3e-3
    losses = []
    for step in range(200):
        x_BL = ids(4, 32, states=29, seed=step % 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h_BLD = net(x_BL, torch.ones(4))
        loss = torch.nn.functional.cross_entropy(net.head(h_BLD.float()).flatten(0, 1), x_BL.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        losses.append(loss.item())
    assert all(p.isfinite().all() for p in net.parameters())
    assert losses[-1] < 0.5 * losses[0]


# --- σ on the steps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["none", "adaln", "added"])
def test_sigma_as_a_scale_on_steps(inner):
    data = {**RECURRENT["mamba2"], "conditioning": {"type": "step_size", "inner": inner}}
    net = make(data).eval()
    x_BL = ids(2, 12)
    c, _ = net.conditioning(torch.rand(2), net.embed(x_BL))
    assert torch.equal(net.blocks[0].pace(c), torch.ones(2, 1, 1))  # it begins as no change
    perturbed(net)
    with torch.no_grad():
        low, high = net(x_BL, torch.zeros(2)), net(x_BL, torch.full((2,), 3.0))
        per_token = net(x_BL, torch.full((2, 12), 3.0))
    assert not torch.allclose(low, high)
    torch.testing.assert_close(per_token, high, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, module", [("mamba2", ssd), ("mamba", selective_scan)])
def test_a_pace_scales_the_step_itself(monkeypatch, name, module):
    """Mixing at pace c is mixing with Δ multiplied by c."""
    node, _ = resolve(Mixer, {"type": name, **MIXER[name]})
    mixer = perturbed(build(node, {"dim": 16, "length": 8, "causal": True}))
    seen, operation = [], "ssd" if name == "mamba2" else "selective_scan"
    real = getattr(module, operation)
    monkeypatch.setattr(module, operation, lambda x, dt, *rest: seen.append(dt) or real(x, dt, *rest))
    h_BLD = torch.randn(2, 8, 16)
    mixer(h_BLD)
    mixer(h_BLD, None, torch.full((2, 1, 1), 2.5))
    torch.testing.assert_close(seen[1], 2.5 * seen[0])


def test_step_size_beside_a_backbone_without_steps_is_a_misfit():
    node, problems = resolve(Backbone, {"type": "transformer", "conditioning": "step_size"}, "backbone")
    assert not problems
    (found,) = step_size_misfits(node)
    assert "mamba, mamba2" in found


def step_size_misfits(node):
    """What step_size has against a recipe with this backbone."""
    whole = type("Root", (), {"find": lambda self, path: node, "walk": node.walk})()
    problems = Conditioning.lookup("step_size").misfits(node.settings["conditioning"], whole)
    return [problem.message for problem in problems]


@pytest.mark.parametrize("data, due", [
    ({"pattern": "A", "depth": 2, "conditioning": "step_size"}, "backbone 'hybrid' has none"),  # M is there, unused
    ({"conditioning": {"type": "step_size", "inner": "step_size"}}, "cannot be 'step_size' again"),
    ({"conditioning": {"type": "step_size", "inner": "adaln"}}, None),
])  # fmt: skip
def test_step_size_asks_for_the_mixers_that_are_used(data, due):
    node, problems = resolve(Backbone, {"type": "hybrid", **data}, "backbone")
    assert not problems
    found = step_size_misfits(node)
    assert len(found) == (due is not None) and all(due in message for message in found)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", ["added", "gated", "tied", "quasiseparable"])
def test_a_pace_turns_with_its_direction(name, core):
    """With equal directions, mixing what is flipped at the flipped pace is the mixture flipped."""
    module = equal_directions(name, core)
    h_BLD, pace_BL1 = torch.randn(2, 9, 16), torch.rand(2, 9, 1) + 0.5
    flipped = module(h_BLD.flip(1), pace_BL1.flip(1))
    torch.testing.assert_close(flipped, module(h_BLD, pace_BL1).flip(1), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(module(h_BLD.flip(1), pace_BL1), module(h_BLD, pace_BL1).flip(1), atol=1e-4)


def equal_sides_of_hydra(module):
    """Both directions' own channels projected and convolved alike, the centred taps symmetric."""
    core = module.core
    own, extra = core.inputs - core.inner, core.convolved - core.inner
    own_rows = module.project.weight[2 * core.inner :]
    own_rows[own:].copy_(own_rows[:own])
    module.conv.weight[core.inner + extra :].copy_(module.conv.weight[core.inner : core.inner + extra])
    module.conv.bias[core.inner + extra :].copy_(module.conv.bias[core.inner : core.inner + extra])
    module.conv.weight.copy_((module.conv.weight + module.conv.weight.flip(-1)) / 2)


def test_the_streams_of_a_hollow_network_hear_sigma_where_it_belongs():
    """A network with equal streams on flipped text and flipped σ gives flipped features."""
    net = perturbed(make({"type": "hollow", **SMALL, "tied": True, "mixer": MIXER["mamba2"]})).eval()
    with torch.no_grad():
        net.ends[1] = net.ends[0]
        half = 32
        first = net.narrow.weight[:, :half].clone()
        net.narrow.weight[:, half:] = first
        net.merge.outer.weight.zero_()
        net.merge.outer.bias.zero_()
        x_BL, sigma_BL = ids(2, 9), torch.rand(2, 9) * 3
        forward, flipped = net(x_BL, sigma_BL), net(x_BL.flip(1), sigma_BL.flip(1))
    torch.testing.assert_close(flipped, forward.flip(1), rtol=1e-5, atol=1e-5)


def test_first_steps_are_in_their_range():
    torch.manual_seed(0)
    steps = torch.nn.functional.softplus(first_steps(1000, 1e-3, 0.1))
    assert 0.99e-3 < steps.min() < 2e-3 and 0.05 < steps.max() < 0.101
    assert steps.log().mean().item() == pytest.approx(torch.tensor([1e-3, 0.1]).log().mean().item(), abs=0.2)


# --- patterns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern, due", [
    ("MMA", "MMAMM"), (["mamba2", "mamba2", "attention"], "MMAMM"), ("MASA", "MASAM"), (["S"], "SSSSS"),
])
def test_a_pattern_repeats_over_depth(pattern, due):
    net = make({"type": "hybrid", **SMALL, "depth": 5, "pattern": pattern, "mixers": MIXED})
    letters = {"mamba2": "M", "mamba": "S", "attention": "A"}
    assert "".join(letters[block.mixer.type_name] for block in net.blocks) == due
    assert [block.mlp is not None for block in net.blocks] == [letter == "A" for letter in due]


def test_mlps_where_they_are_asked_for():
    net = make({"type": "hybrid", **SMALL, "pattern": "MA", "mixers": MIXED, "mlps": ["M"]})
    assert [block.mlp is not None for block in net.blocks] == [True, False]


def test_an_entry_changes_one_of_the_usual_mixers():
    node, problems = resolve(Backbone, {"type": "hybrid", "mixers": {"M": {"state": 128}, "G": {"type": "attention"}}})
    assert not problems
    mixers = node.settings["mixers"]
    assert sorted(mixers) == ["A", "G", "M", "S"]
    assert mixers["M"].part.type_name == "mamba2" and mixers["M"].settings["state"] == 128


def test_a_dropped_usual_mixer_stays_dropped():
    """What a run writes down is this very recipe: the usual entry does not come back."""
    kept = load("smoke/hybrid.yaml", ["backbone.mixers.S=null", "backbone.pattern=MA"])
    again = resolve_as(Recipe, kept.data)
    assert again.hash == kept.hash and kept.data["backbone"]["mixers"]["S"] is None
    assert [block.mixer.type_name for block in make(kept.data["backbone"]).blocks] == ["mamba2", "attention", "mamba2"]


def test_a_shared_block_is_one():
    data = {"type": "hybrid", **SMALL, "depth": 6, "pattern": "MA", "mixers": MIXED}
    apart, shared = make(data), make({**data, "shared": ["attention"]})
    blocks = [block for block in shared.blocks if isinstance(block.mixer, Attention)]
    assert len({id(block.mixer) for block in blocks}) == len({id(block.mlp) for block in blocks}) == 1
    assert len({id(block.modulation) for block in blocks}) == 3
    attention = sum(p.numel() for module in (blocks[0].mixer, blocks[0].mlp) for p in module.parameters())
    assert count_parameters(apart).total - count_parameters(shared).total == 2 * attention
    assert flops_per_token(apart, 64) == flops_per_token(shared, 64)  # shared weights are no saved work
    twin = make({**data, "shared": ["attention"]})
    twin.load_state_dict(perturbed(shared).state_dict())
    assert torch.equal(twin(ids(1, 8)), shared(ids(1, 8)))


@pytest.mark.parametrize("data, path, part", [
    ({"type": "hybrid", "pattern": "MXA"}, "backbone.pattern", "there is no 'X' among the mixers. Known: A, M, S."),
    ({"type": "hybrid", "shared": ["attn"]}, "backbone.shared", "no 'attn'"),
    ({"type": "hybrid", "pattern": ""}, "backbone.pattern", "at least one"),
    ({"type": "hybrid", "pattern": "mamba2"}, "backbone.pattern", "write a list: [mamba2]"),
    ({"type": "hybrid", "depth": 3}, "backbone.depth", "3 blocks end before 'A' of the pattern comes"),
    ({"type": "hybrid", "pattern": "M", "shared": ["A"]}, "backbone.shared", "does not occur in the pattern"),
    ({"type": "hybrid", "pattern": ["mamba2"], "mixers": {"B": "mamba2"}}, "backbone.pattern", "may be any of M, B"),
    ({"type": "mamba", "mixer": {"directions": {"type": "quasiseparable", "conv": 4}}},
     "backbone.mixer.directions.conv", "no centre"),
    ({"type": "hybrid", "dim": 100, "mixers": {"A": {"heads": 3}}, "pattern": "A"}, "backbone.mixers.A.heads", "not d"),
    ({"type": "mamba2", "dim": 100}, "backbone.mixer.head_dim", "does not divide the inner width 200"),
    ({"type": "mamba2", "mixer": "attention"}, "backbone.mixer", "backbone 'hybrid' takes any"),
    ({"type": "mamba", "mixer": {"step_min": 1}}, "backbone.mixer.step_min", "above step_max"),
    ({"type": "hollow", "dim": 100}, "backbone.mixer.head_dim", "does not divide"),
])  # fmt: skip
def test_misfits_are_found_while_resolving(data, path, part):
    node, problems = resolve(Backbone, data, "backbone")
    assert problems == []
    (problem,) = misfits(node)
    assert problem.path == path and part in problem.message


# --- sizes ------------------------------------------------------------------------------------------------------


def test_the_known_match():
    """Twelve blocks of two independent Mamba-2 directions at width 768 beside a DiT's twelve: 91.6 M and 92.1 M."""
    sizes = {}
    for name, data in {"mamba2": {"type": "mamba2"}, "dit": {"type": "transformer"}}.items():
        net = make(data, 50258, 50258, 1024, device="meta")
        sizes[name] = sum(p.numel() for p in net.blocks.parameters()) / 1e6
    assert sizes["mamba2"] == pytest.approx(91.6, abs=0.05)
    assert sizes["dit"] == pytest.approx(92.1, abs=0.05)


@pytest.mark.parametrize("data", [
    *RECURRENT.values(),
    *({**RECURRENT[name], "causal": True} for name in ("mamba", "mamba2")),
    *({**RECURRENT["mamba2"], "mixer": {**MIXER["mamba2"], "directions": name}} for name in ("gated", "tied")),
    {**RECURRENT["mamba"], "mixer": {**MIXER["mamba"], "directions": "quasiseparable"}, "mlp_ratio": 2},
    {**RECURRENT["mamba2"], "conditioning": {"type": "step_size", "inner": "added"}},
    {"type": "hollow", **SMALL, "mixer": MIXER["mamba"]},
    {"type": "hollow", **SMALL, "mixer": MIXER["mamba2"], "tied": True},
])  # fmt: skip
@pytest.mark.parametrize("length", [64, 256])
def test_flops_by_formula_are_those_counted(data, length):
    """All but what the counter does not see: convolutions by taps, and the selective scan."""
    from backbones.mamba import SelectiveCore

    net = make(data, length=length, device="meta")
    twice = 2 if data.get("tied") else 1
    unseen = twice * (
        sum(m.flops for m in net.modules() if isinstance(m, Convolution))
        + sum(m.scan_flops(length) for m in net.modules() if isinstance(m, SelectiveCore))
    )
    assert flops_per_token(net, length) - unseen == pytest.approx(counted_flops_per_token(net, length), rel=1e-9)


# --- hollow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", [{"type": "mamba", "state": 4}, {"type": "mamba2", "state": 4, "head_dim": 8},
                                   {"type": "attention", "heads": 2}], ids=lambda m: m["type"])  # fmt: skip
@pytest.mark.parametrize("tied", [False, True])
def test_hollow_has_no_diagonal(mixer, tied):
    """∂ features_i / ∂ embedding_i = 0 exactly, and no other block of the Jacobian is 0."""
    net = perturbed(make({"type": "hollow", **SMALL, "depth": 3, "tied": tied, "mixer": mixer})).eval().double()
    length = 7
    table = net.embed.table.weight.detach()[ids(1, length)].requires_grad_()
    net.embed.forward = lambda x_BL, before_BL=None: table
    h_BLD = net(ids(1, length), torch.ones(1, dtype=torch.float64))
    for i in range(length):
        (grad,) = torch.autograd.grad(h_BLD[0, i].sum(), table, retain_graph=True)
        reach = grad[0].abs().amax(-1)
        assert reach[i] == 0
        assert (reach[torch.arange(length) != i] > 0).all()


def test_hollow_is_taken_by_diffusion_and_its_law_is_of_the_others():
    net = perturbed(make({"type": "hollow", **SMALL, "mixer": MIXER["mamba2"]})).eval()
    x_BL = ids(1, 9)
    swapped = x_BL.clone()
    swapped[0, 4] = (swapped[0, 4] + 1) % 30
    with torch.no_grad():
        a, b = net(x_BL, torch.ones(1)), net(swapped, torch.ones(1))
    assert torch.equal(a[0, 4], b[0, 4])
    assert all(not torch.equal(a[0, i], b[0, i]) for i in range(9) if i != 4)


def test_deep_copies_and_state_dicts_of_all():
    for data in (*RECURRENT.values(), {"type": "hollow", **SMALL, "mixer": MIXER["mamba2"]}):
        net = perturbed(make(data)).eval()
        twin = make(data).eval()
        twin.load_state_dict(net.state_dict())
        x_BL = ids(2, 10)
        for other in (twin, copy.deepcopy(net)):
            assert torch.equal(other(x_BL, torch.ones(2)), net(x_BL, torch.ones(2)))
        assert all(v.isfinite().all() for v in itertools.chain(net.parameters(), net.buffers()))
