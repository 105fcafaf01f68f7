"""Published networks: the same weights give the same numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.gpt2 import GPT2
from backbones.transformer import Transformer
from backbones.weights import dit as sedd
from backbones.weights import gpt2
from workbench.core.errors import WorkbenchError

GOLDEN = Path(__file__).parents[1] / "data_files"


def golden(name):
    data = np.load(GOLDEN / f"{name}.npz")
    state = {key[6:]: torch.from_numpy(data[key]) for key in data.files if key.startswith("state/")}
    return data, state


def official(data, state):
    _, dim, heads, depth, length, _, _ = data["meta"].tolist()
    states, cond_dim = len(state["vocab_embed.embedding"]), len(state["sigma_map.mlp.0.bias"])
    net = Transformer(states, states, length, dim=dim, depth=depth, heads=heads, cond_dim=cond_dim)
    sedd.load(net, state)
    return net.eval()


@pytest.mark.parametrize("name", ["sedd_absorb_d32", "sedd_uniform_d32"])
@pytest.mark.parametrize("kernel", ["sdpa", "matmul", "reference"])
def test_sedd_log_scores(name, kernel):
    data, state = golden(name)
    net = official(data, state)
    for block in net.blocks:
        block.mixer.kernel = kernel
    x_BL, sigma_B = torch.from_numpy(data["xt"]), torch.from_numpy(data["sigma"])
    tokens, scaled = data["meta"][0], data["meta"][-1]
    with torch.no_grad():
        log_score = net.head(net(x_BL, sigma_B))
    if scaled:
        log_score = log_score - torch.log(torch.expm1(sigma_B))[:, None, None] - math.log(tokens)
    log_score.scatter_(-1, x_BL.unsqueeze(-1), 0.0)
    torch.testing.assert_close(log_score, torch.from_numpy(data["log_score"]), rtol=1e-5, atol=1e-5)


def test_sedd_layout_goes_back_in_the_official_order():
    data, state = golden("sedd_uniform_d32")
    back = sedd.save(official(data, state))
    assert [key for key in back if key != sedd.ROTARY] == [key for key in state if key != sedd.ROTARY]
    for key, value in state.items():
        torch.testing.assert_close(back[key], value, rtol=1e-6, atol=0)


def test_prefixed_weights_load():
    data, state = golden("sedd_uniform_d32")
    net = official(data, state)
    twin = official(data, state)
    sedd.load(twin, {f"backbone.{key}": value for key, value in state.items()}, prefix="backbone.")
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_all_faults_of_a_state_dict_are_listed_and_nothing_is_loaded():
    data, state = golden("sedd_uniform_d32")
    net = official(data, state)
    before = net.head.bias.detach().clone()
    damaged = {**state, "mystery": torch.zeros(1), "output_layer.linear.bias": torch.zeros(3)}
    del damaged["blocks.1.attn_out.weight"]
    with pytest.raises(WorkbenchError) as caught:
        sedd.load(net, damaged)
    for part in ("unknown: mystery", "missing: blocks.1.attn_out.weight", "shape: output_layer.linear.bias is [3]"):
        assert part in str(caught.value)
    assert torch.equal(net.head.bias, before)


def test_a_layout_without_room_is_refused():
    net = Transformer(7, 7, 8, dim=8, depth=1, heads=2, shortconv=3)
    with pytest.raises(WorkbenchError, match=r"no place for.*blocks\.0\.mixer"):
        sedd.save(net)


def hugging_face(**settings):
    transformers = pytest.importorskip("transformers", reason="the reference GPT-2 is in transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=24, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, **settings
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def test_gpt2_logits():
    theirs = hugging_face()
    ours = GPT2(50, 50, 24, dim=32, depth=2, heads=4).eval()
    gpt2.load(ours, theirs.state_dict())
    x_BL = torch.randint(0, 50, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.head(ours(x_BL)), theirs(x_BL).logits, rtol=1e-5, atol=1e-5)


def test_gpt2_layout_goes_back():
    theirs = hugging_face()
    ours = GPT2(50, 50, 24, dim=32, depth=2, heads=4)
    gpt2.load(ours, theirs.state_dict())
    back = gpt2.save(ours)
    assert set(back) == set(theirs.state_dict())
    theirs.load_state_dict(back)
    for key, value in theirs.state_dict().items():
        assert torch.equal(back[key], value)


def test_gpt2_initialisation():
    torch.manual_seed(0)
    net = GPT2(300, 300, 64, dim=128, depth=8, heads=4)
    block = net.blocks[3]
    assert block.mixer.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.mlp.outer.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)  # 1/√(2·8)
    assert block.mixer.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
    assert net.embed.tokens.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not block.mixer.qkv.bias.any() and not block.mlp.inner.bias.any()
