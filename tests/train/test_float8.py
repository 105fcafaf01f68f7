"""Training in 8-bit floats: the very roundings, only where they belong, and weights that know nothing of it."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.base import Backbone
from backbones.probes import BATCH, LENGTH, OUTPUTS, STATES, maker
from tests.train.test_recompute import differing, gradients
from workbench import assemble, doctor, experiment
from workbench.check import estimate
from workbench.core import index
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.files import read_json
from workbench.processes.base import named_weights
from workbench.recipe import load
from workbench.train import float8
from workbench.train.recompute import recompute_blocks
from workbench.train.sharing import blocks_of

index.import_parts()
ROOT = Path(__file__).parents[2]
SEDD = ROOT / "recipes/smoke/sedd.yaml"
EMULATED = ["train.float8=tensorwise", "train.float8_emulated=true"]
CPU = torch.device("cpu")
torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao (extra float8)")


def network(*changes):
    resolved = load(SEDD, changes)
    net = assemble.model(resolved, assemble.data_of(resolved).tokenizer).backbone
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def lowered(net, scaling="tensorwise", emulated=True):
    """A copy that computes in 8-bit floats while it trains."""
    made = copy.deepcopy(net)
    float8.lower(made, scaling, emulated, CPU)
    return made.train()


def rounded(x, dtype, axis=None):
    """The oracle: scaled so that the largest magnitude (of all, or along an axis) is the type's largest; rounded."""
    most = x.abs().amax() if axis is None else x.abs().amax(axis, keepdim=True)
    scale = torch.finfo(dtype).max / most.double().clamp(min=1e-12)
    return (x * scale.float()).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype).double() / scale


@torchao
def test_the_three_products_of_a_map_are_of_rounded_factors():
    """Tensorwise: input and weight by e4m3, the gradient by e5m2; the bias is added in full."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(32, 48)

        def coarse_products(self):
            return {"map.weight", "map.bias"}

    net = Net()
    made = lowered(net)
    x_RD, g_RE = torch.randn(5, 32, requires_grad=True), torch.randn(5, 48)
    out_RE = made.map(x_RD)
    out_RE.backward(g_RE)
    x, w, g = (
        rounded(t.detach(), dtype)
        for t, dtype in (
            (x_RD, torch.float8_e4m3fn),
            (net.map.weight, torch.float8_e4m3fn),
            (g_RE, torch.float8_e5m2),
        )
    )
    torch.testing.assert_close(out_RE.double(), x @ w.T + net.map.bias.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_RD.grad.double(), g @ w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.map.weight.grad.double(), g.T @ x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.map.bias.grad, g_RE.sum(0))
    plain_RE = net.map(x_RD)
    assert 1e-3 < (out_RE - plain_RE).norm() / plain_RE.norm() < 0.1


@torchao
@pytest.mark.parametrize("scaling", ["tensorwise", "rowwise", "rowwise_with_gw_hp"])
def test_the_gradient_is_near_the_plain_one_and_not_it(scaling):
    net = network()
    wanted, found = gradients(net.train())[0], gradients(lowered(net, scaling))[0]
    for name, gradient in wanted.items():
        cosine = torch.cosine_similarity(gradient.flatten(), found[name].flatten(), dim=0)
        assert cosine > 0.99, name
    assert differing(wanted, found)


@torchao
@pytest.mark.parametrize(("scaling", "low"), [("tensorwise", False), ("tensorwise", True), ("rowwise", True)])
def test_what_the_device_computes_is_what_is_emulated(scaling, low):
    """torch's 8-bit product itself, which a CPU has too, beside the emulation; 24 rows are no multiple of 16."""
    net = network()
    device, emulated = (copy.deepcopy(net) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float8, "hindrance", lambda *where, **how: None)
        float8.lower(device, scaling, False, CPU)
    float8.lower(emulated, scaling, True, CPU)
    x_BL, found = torch.arange(24).reshape(1, 24), []
    for made in (device, emulated):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            h_BLD = made.train()(x_BL, torch.ones(1))
        h_BLD.square().sum().backward()
        found.append((h_BLD.detach(), {name: p.grad for name, p in made.named_parameters() if p.grad is not None}))
    for one, other in zip(*(list(grads.values()) for _, grads in found), strict=True):
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > (0.99 if low else 0.999)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0.05, atol=0.05)


@torchao
@pytest.mark.parametrize("name", Backbone.names())
def test_only_branches_are_lowered(name):
    """Of every backbone: no head, nothing that σ alone passes through; names, tensors and what is evaluated stay."""
    supplied = {"states": STATES, "outputs": OUTPUTS, "length": LENGTH}
    net = maker(Backbone.lookup(name), Backbone, supplied)[1]()
    seen, maps = {}, float8.maps_of(net)
    for module in maps:
        module.register_forward_pre_hook(lambda module, given: seen.update({id(module): given[0].shape}))
    x_BL, sigma_B = torch.randint(0, STATES, (BATCH, LENGTH)), torch.rand(BATCH) + 0.1
    with torch.no_grad():
        net.eval()(x_BL, sigma_B)
    assert maps and all(id(module) in seen for module in maps)
    assert net.coarse_products() <= net.products()
    assert all(shape[-2] == LENGTH for shape in seen.values())
    assert net.head not in maps


@torchao
def test_weights_and_what_is_evaluated_are_as_before():
    net = network()
    made = lowered(net)
    assert list(named_weights(made)) == list(named_weights(net))
    assert all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in made.parameters())
    assert differing(named_weights(net), named_weights(made)) == []
    x_BL = torch.arange(64).reshape(2, 32)
    for low in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            assert torch.equal(made.eval()(x_BL, torch.ones(2)), net.eval()(x_BL, torch.ones(2)))
    assert not torch.equal(made.train()(x_BL, torch.ones(2)), net(x_BL, torch.ones(2)))


@torchao
def test_it_keeps_no_more_between_the_passes_which_check_counts_on():
    net = network("backbone.dropout=0")
    assert gradients(lowered(net))[1] <= gradients(net.train())[1]
    plain, eight = load(SEDD), load(SEDD, EMULATED)
    assert estimate(plain) == estimate(eight)


@torchao
def test_shared_blocks_are_lowered_once_and_computed_again_alike():
    net = network("backbone={type: hybrid, dim: 32, depth: 4, pattern: MA, shared: [A]}", "backbone.cond_dim=16")
    again = lowered(net)
    recompute_blocks(again, 1)
    assert differing(gradients(lowered(net))[0], gradients(again)[0]) == []


@torchao
def test_compiled_blocks_give_the_same():
    """One graph without a break; traced and differentiated, without the minute that making machine code takes."""
    made = lowered(network("backbone.depth=1"))
    wanted = gradients(made)[0]
    for block in blocks_of(made):
        block.compile(backend="aot_eager", fullgraph=True)
    made.zero_grad()
    for name, gradient in gradients(made)[0].items():
        assert torch.cosine_similarity(gradient.flatten(), wanted[name].flatten(), dim=0) > 0.999, name


@torchao
def test_widths_that_do_not_fit_stay_or_are_refused():
    some = network("backbone.dim=24", "backbone.heads=2", "backbone.mlp_ratio=2")
    with pytest.raises(WorkbenchError, match=r"none of the .* linear maps .* a multiple of 16"):
        float8.lower(some, "tensorwise", True, CPU)


@torchao
def test_a_run_says_it_and_goes_on_to_the_same_bits(tmp_path, cache_of_the_session):
    changes = [*EMULATED, "train.steps=6", "train.checkpoint_every=3", "train.tensorboard=false"]
    resolved = load(SEDD, changes)
    assert resolved.hash != load(SEDD, changes[2:]).hash
    weights = []
    for name in ("whole", "broken"):
        run = experiment.create(resolved, tmp_path / name)
        data = assemble.prepare(resolved, cache_of_the_session)
        data.tokenizer.save(run.path / assemble.TOKENIZER)
        made = experiment.trainer(run, resolved, data, quiet=True)
        if name == "broken":
            made.stopping.reason = lambda step, seconds: "half" if step == 3 else ""
            made.fit()
            made = experiment.trainer(run, resolved, data, quiet=True)
            assert any("float8 tensorwise in 8 of 8" in note for note in made._resume())
        made.fit()
        weights.append(named_weights(made.shell.net))
    assert differing(*weights) == []
    facts = read_json(made.checkpoints.path(6) / "state.json")["machine"]
    assert facts["float8"].startswith("float8 tensorwise in 8 of 8 linear maps of mixers and MLPs (emulated")
    results = experiment.evaluate(run.path, cache_of_the_session)
    assert results.provenance["trained_in"] == "float8 tensorwise, emulated"


def test_settings_that_fit_nothing_are_refused():
    with pytest.raises(RecipeError, match="nothing to emulate"):
        load(SEDD, EMULATED[1:])
    with pytest.raises(RecipeError, match="float8's products give bfloat16"):
        load(SEDD, [EMULATED[0], "train.precision=fp32"])
    load(SEDD, [*EMULATED, "train.precision=fp32"])


def test_a_machine_without_it_is_told_before_any_work(tmp_path, monkeypatch):
    resolved = load(SEDD, ["train.float8=rowwise", "train.device=cpu"])
    monkeypatch.setattr(assemble, "prepare", lambda *given: pytest.fail("it began to work"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.18.0+cpu")
    with pytest.raises(WorkbenchError, match=r"CUDA, not on cpu; train\.float8_emulated: true"):
        experiment.train(experiment.create(resolved, tmp_path), resolved)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    cuda = torch.device("cuda")
    assert float8.hindrance(cuda) == "A100 has compute capability 8.0, and 8-bit floats need 8.9"
    assert float8.hindrance(cuda, emulated=True) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert float8.hindrance(cuda) is None
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9.0")
    assert float8.hindrance(cuda).startswith("it needs torchao 0.18, and 0.9.0 is installed: pip install")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkbenchError, match=r'cannot be had here: it needs torchao: pip install "sedd-workbench\[fl'):
        float8.require("rowwise", True, cuda)


def test_the_doctor_says_why_not():
    if not torch.cuda.is_available():
        assert doctor.machine()["float8"] == float8.hindrance(CPU)


@torchao
def test_torchao_is_imported_without_a_word_and_only_where_it_is_asked_for():
    code = (
        "import sys, torch\n"
        "from workbench.train import float8, loop\n"
        "assert 'torchao' not in sys.modules\n"
        "float8._torchao()\n"
        "import logging\n"
        "logging.getLogger('torchao').warning('another')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr.strip() == "another", done.stderr


@pytest.mark.cuda
@torchao
@pytest.mark.parametrize("scaling", ["tensorwise", "rowwise", "rowwise_with_gw_hp"])
def test_on_a_gpu_it_is_what_is_emulated(scaling):
    """Not run by anybody yet."""
    device = torch.device("cuda")
    if float8.hindrance(device):
        pytest.skip(float8.hindrance(device))
    net = network().to(device)
    x_BL, found = torch.arange(24, device=device).reshape(1, 24), []
    for emulated in (False, True):
        made = copy.deepcopy(net).train()
        float8.lower(made, scaling, emulated, device)
        with torch.autocast("cuda", torch.bfloat16):
            made(x_BL, torch.ones(1, device=device)).square().sum().backward()
        found.append([p.grad for p in made.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99
