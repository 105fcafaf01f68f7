"""Layouts as parts: which one it is, what a broken one is told, and what imports made necessary elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import yaml

from backbones.base import Backbone
from backbones.transformer import Transformer
from backbones.weights.base import Layout, Published, agrees, differences, named
from backbones.weights.bd3lm import Bd3lm
from backbones.weights.contract import check_layout
from backbones.weights.native import Native
from backbones.weights.sedd import Sedd
from tests.smoke import EXACT, RECIPES, prose
from tests.weights.imported import same
from tests.weights.official import logits, state_of
from workbench import experiment, opening
from workbench.core.errors import WorkbenchError
from workbench.core.index import import_parts
from workbench.core.spec import build, resolve
from workbench.publish.importing import chosen
from workbench.recipe import load

import_parts()
DIT, PREFIXED = state_of(9, 16, 2, 1, 4), state_of(9, 16, 2, 1, 4, prefix="backbone.")
GPT2 = {"wte.weight": torch.zeros(9, 16), "wpe.weight": torch.zeros(8, 16)}


@pytest.mark.parametrize(
    ("state", "config", "layout"),
    [
        (DIT, {}, "sedd"),
        (DIT, {"graph": {"type": "uniform"}, "model": {"length": 8}}, "sedd"),
        ({f"module.{name}": value for name, value in DIT.items()}, {}, "sedd"),
        (PREFIXED, {}, "mdlm"),
        (PREFIXED, {"model_type": "mdlm"}, "mdlm"),
        (PREFIXED, {"model_type": "DUO"}, "duo"),
        (PREFIXED, {"graph": {"type": "absorb"}}, "sedd"),
        (DIT, {"model_type": "duo"}, "duo"),
        (PREFIXED, {"model_type": "bd3lm", "block_size": 4}, "bd3lm"),
        ({**PREFIXED, "sampling_eps_min": torch.zeros(())}, {}, "bd3lm"),
        (GPT2, {}, "gpt2"),
        ({f"transformer.{name}": value for name, value in GPT2.items()}, {"model_type": "gpt2"}, "gpt2"),
        ({"anything": torch.zeros(1)}, {"model_type": "sedd-workbench"}, "native"),
        (DIT, {"model_type": "sedd-workbench"}, "native"),
    ],
)
def test_exactly_one_layout_recognises_published_weights(state, config, layout):
    found = Published(state, config)
    assert chosen(found).type_name == layout
    known = {name: part() for name, part in Layout.registered.items()}
    assert [name for name, one in sorted(known.items()) if one.recognises(found)] == [layout]


def test_a_name_goes_before_what_keys_tell():
    assert chosen(Published(PREFIXED), "duo").type_name == "duo"


def test_weights_of_blocks_can_be_loaded_though_no_process_uses_them():
    net = Transformer(9, 9, 8, dim=16, depth=1, heads=2, cond_dim=4)
    Bd3lm().load(net, {**PREFIXED, "sampling_eps_max": torch.ones(())})
    x_BL, sigma_B = torch.randint(0, 9, (2, 8)), torch.tensor([0.1, 2.0])
    with torch.no_grad():
        found = net.eval().head(net(x_BL, sigma_B)).double()
    torch.testing.assert_close(found, logits(PREFIXED, 2, x_BL, sigma_B, "backbone."), rtol=1e-5, atol=1e-5)


def test_a_gpt2_of_another_make_is_refused_and_so_is_a_head_of_its_own():
    gpt2 = chosen(Published(GPT2))
    assert "layer_norm_epsilon" in gpt2.read(Published(GPT2, {"n_head": 2, "layer_norm_epsilon": 1e-6})).refusal
    assert gpt2.read(Published(GPT2, {"n_head": 2, "activation_function": "gelu_new"})).refusal == ""
    with pytest.raises(WorkbenchError, match="a head of its own"):
        gpt2.load(Transformer(9, 9, 8, dim=16, depth=1, heads=2), {**GPT2, "lm_head.weight": torch.ones(9, 16)})


@pytest.mark.parametrize("name", Backbone.names())
def test_every_backbone_goes_out_natively_and_comes_back(name):
    part = Backbone.lookup(name)
    node, problems = resolve(Backbone, {"type": name, **part.example()})
    assert node is not None and not problems
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(build(node, {"states": 9, "outputs": 8, "length": 6}))
        for parameter in nets[-1].parameters():
            torch.nn.init.normal_(parameter)
    Native().load(nets[1], Native().save(nets[0]))
    assert same(nets[0].state_dict(), nets[1].state_dict())


# --- the contract finds faults ----------------------------------------------------------------------------------


@pytest.fixture
def register() -> Iterator[None]:
    kept = dict(Layout.registered)
    yield
    Layout.registered.clear()
    Layout.registered.update(kept)


class Halved(Native):
    """Loses bits on the way out."""

    def save(self, net):
        return {name: value.bfloat16().float() for name, value in super().save(net).items()}


class Lax(Native):
    """Loads what fits."""

    def load(self, net, state):
        own = net.state_dict()
        fitting = {n: v for n, v in state.items() if n in own and own[n].shape == v.shape}
        net.load_state_dict(fitting, strict=False)


class Forgetful(Sedd):
    """Writes another width of heads."""

    def config(self, recipe, vocab, eos):
        told = super().config(recipe, vocab, eos)
        return told | {"model": told["model"] | {"dropout": 0.7}}


class Blind(Native):
    """Does not know its own."""

    def recognises(self, found):
        return False


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (Halved, "other bits after saving and loading"),
        (Lax, "loads weights with a missing"),
        (Lax, "loads a part of faulty weights"),
        (Forgetful, "is read"),
        (Blind, "does not recognise what it saved"),
    ],
)
def test_a_broken_layout_is_told(register, part, complaint):
    Layout.register("broken")(part)
    assert any(complaint in problem for problem in check_layout(part)), check_layout(part)


def test_how_data_is_compared():
    wanted = {"graph": {"type": "x"}, "n": 1}
    assert agrees(wanted, {"graph": {"type": "x", "more": 2}, "n": 1, "other": 3})
    assert list(differences(wanted, {"graph": {"type": "y"}}, "process")) == [
        "process.graph.type is 'y', the layout means 'x'",
        "process.n is None, the layout means 1",
    ]
    assert named({1: {"a": 1}, 2: {"a": 2}}, {"a": 2, "b": 0}) == 2 and named({1: {"a": 1}}, {}) is None


# --- what imports made necessary --------------------------------------------------------------------------------


def test_a_time_free_network_of_normalised_outputs_is_trained_sampled_and_evaluated(tmp_path, cache_of_the_session):
    words = [
        *EXACT, *prose(tmp_path / "text"), "name=mdlm", "backbone.conditioning=time_free", "process.readout=normalised",
        "sampler.predictor=normalised",
    ]  # fmt: skip
    resolved = load(RECIPES / "smoke" / "sedd.yaml", words)
    run = experiment.create(resolved, tmp_path / "runs")
    experiment.train(run, resolved, cache_of_the_session, quiet=True)
    opened = opening.open_trained(run.path)
    net, x_BL = opened.model.backbone, torch.randint(0, 258, (2, 9))
    with torch.no_grad():
        told = [net(x_BL, sigma) for sigma in (None, torch.tensor([0.1, 5.0]), torch.rand(2, 9))]
    assert torch.equal(told[0], told[1]) and torch.equal(told[0], told[2])
    assert net.blocks[0].modulation.linear.bias.abs().max() > 0, "what hears 0 is trained all the same"
    values = {value.name: value.value for value in experiment.evaluate(run.path, cache_of_the_session).values}
    assert values["bits_per_byte"] < 8
    assert yaml.safe_load(run.resolved.read_text())["backbone"]["conditioning"]["inner"]["type"] == "adaln"
