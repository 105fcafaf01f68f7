"""Every registered backbone and mixer meets its kind's contract; broken ones are found out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones import probes
from backbones.attention import Attention
from backbones.base import Backbone, CachedBackbone, Mixer
from backbones.conditioning import Conditioning
from backbones.contract import CHECKS, check_backbone, check_mixer
from workbench.core import index
from workbench.core.spec import build, resolve
from workbench.kernels import dispatch

index.import_parts()
GRU = Path(__file__).parents[2] / "docs" / "plugins" / "my_gru.py"
SHIPPED_BACKBONES, SHIPPED_MIXERS = Backbone.names(), Mixer.names()


@pytest.fixture
def registry():
    """Registers as they were, whatever a test puts in."""
    kept = dict(Backbone.registered), dict(Mixer.registered)
    yield
    for kind, before in zip((Backbone, Mixer), kept, strict=True):
        kind.registered.clear()
        kind.registered.update(before)


@pytest.mark.parametrize("name", SHIPPED_BACKBONES)
def test_backbone(name):
    assert CHECKS["backbone"](Backbone.lookup(name)) == []


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", SHIPPED_BACKBONES)
def test_blocks_compile_whole(name, autocast):
    """Value and gradients of compiled blocks, without a break in a graph; code generation is left out."""
    node, _ = resolve(Backbone, {"type": name, **Backbone.lookup(name).example()})
    torch.manual_seed(0)
    net = build(node, {"states": 30, "outputs": 29, "length": 16})
    probes.perturb(net)
    net.eval()
    x_BL, sigma_B = torch.randint(0, 30, (2, 16)), torch.rand(2)

    def step():
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            h_BLD = net(x_BL, sigma_B)
        h_BLD.square().mean().backward()
        grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        return h_BLD.detach().clone(), torch.cat(grads)

    eager = step()
    for one in dispatch.DISPATCHERS:
        one.forget()  # the first pick may fall into tracing
    torch._dynamo.reset()
    for block in net.blocks:
        block.compile(fullgraph=True, backend="aot_eager")
    for a, b in zip(step(), eager, strict=True):
        assert (a - b).norm() <= (0.03 if autocast else 1e-5) * b.norm()


@pytest.mark.parametrize("name", SHIPPED_MIXERS)
def test_mixer(name):
    assert CHECKS["mixer"](Mixer.lookup(name)) == []


@pytest.mark.parametrize("name", Conditioning.names())
def test_conditioning(name):
    assert CHECKS["conditioning"](Conditioning.lookup(name)) == []


def test_the_plug_in_of_the_docs(registry):
    spec = importlib.util.spec_from_file_location("my_gru", GRU)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert check_backbone(Backbone.lookup("my_gru")) == []
    code = [line for line in GRU.read_text().splitlines() if line.strip()]
    assert len(code) <= 22  # "20 lines" is what the docs promise


class Broken(Backbone):
    """A sound little network for the broken ones below to break."""

    def __init__(self, states: int, outputs: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(states, 8)
        self.mix = nn.GRU(8, 4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, x_BL, sigma=None, cache=None):
        return self.mix(self.embed(x_BL))[0]


def problems(cls, kind=Backbone, check=check_backbone):
    kind.register(f"broken_{cls.__name__.lower()}")(cls)
    return " | ".join(check(cls))


def test_the_sound_one_is_sound(registry):
    assert problems(Broken) == ""


def test_a_wrong_sight_is_found(registry):
    class Peeks(Broken):
        @classmethod
        def sight(cls, settings):
            return "left"

    class Blind(Broken):
        def forward(self, x_BL, sigma=None, cache=None):
            return self.mix(self.embed(x_BL))[0] * torch.tensor([1.0] * 4 + [0.0] * 4)

    class Others(Broken):
        @classmethod
        def sight(cls, settings):
            return "others"

    assert "position 0 changes with position 1" in problems(Peeks)
    assert "sees nothing to its right" in problems(Blind)
    assert "position 0 changes with position 0" in problems(Others)


def test_products_that_are_taken_in_float32_are_found(registry):
    class Full(Broken):
        def __init__(self, states: int, outputs: int, length: int) -> None:
            super().__init__(states, outputs, length)
            self.last = nn.Linear(8, 8)

        def forward(self, x_BL, sigma=None, cache=None):
            h_BLD = super().forward(x_BL)
            with torch.autocast("cpu", enabled=False):
                return h_BLD.float() + h_BLD.float() @ self.last.weight.float() + self.last.bias

        def products(self):
            return {"last.weight"}

    class Cast(Full):
        def forward(self, x_BL, sigma=None, cache=None):
            h_BLD = Broken.forward(self, x_BL)
            return h_BLD + self.last(h_BLD)

    class Nowhere(Broken):
        def products(self):
            return {"nowhere"}

    assert "products() names too much: with it in bfloat16 these differ under autocast: the output" in problems(Full)
    assert problems(Cast) == ""
    assert "products() names no parameter: ['nowhere']" in problems(Nowhere)


def test_idle_parameters_wrong_heads_and_devices_are_found(registry):
    class Idle(Broken):
        def __init__(self, states: int, outputs: int, length: int) -> None:
            super().__init__(states, outputs, length)
            self.idle = nn.Parameter(torch.zeros(3))
            self.register_buffer("table", torch.zeros(2, device="cpu"))

    class Headless(Broken):
        def __init__(self, states: int, outputs: int, length: int) -> None:
            super().__init__(states, outputs, length)
            self.head = nn.Linear(8, outputs + 1)

    class Fixed(Broken):
        def __init__(self, states: int, outputs: int, length: int) -> None:
            super().__init__(states, outputs, length)
            self.where = nn.Parameter(torch.zeros(length, 8))

        def forward(self, x_BL, sigma=None, cache=None):
            return self.mix(self.embed(x_BL) + self.where)[0]

    found = problems(Idle)
    assert "no gradient reaches the parameter 'idle'" in found
    assert "'table' is made on cpu" in found
    assert "head must be an nn.Linear with 6 outputs" in problems(Headless)
    assert "fails with RuntimeError" in problems(Fixed)  # no shorter sequence than the supplied length


def test_chance_and_state_are_found(registry):
    class Noisy(Broken):
        def forward(self, x_BL, sigma=None, cache=None):
            return super().forward(x_BL) + torch.rand(1)

    class Unsaved(Broken):
        def __init__(self, states: int, outputs: int, length: int) -> None:
            super().__init__(states, outputs, length)
            self.secret = torch.randn(8) if self.embed.weight.is_cpu else 0

        def forward(self, x_BL, sigma=None, cache=None):
            return super().forward(x_BL) * self.secret

    class Batchwise(Broken):
        def forward(self, x_BL, sigma=None, cache=None):
            h_BLD = super().forward(x_BL)
            return h_BLD - h_BLD.mean(0)

    assert "not deterministic" in problems(Noisy)
    assert "a second instance with the same state dict computes something else" in problems(Unsaved)
    assert "depend on the others in its batch" in problems(Batchwise)


def test_a_broken_cache_is_found(registry):
    class Forgets(CachedBackbone):
        def __init__(self, states: int, outputs: int) -> None:
            super().__init__()
            self.embed = nn.Embedding(states, 8)
            self.mix = nn.GRU(8, 8, batch_first=True)
            self.head = nn.Linear(8, outputs)

        @classmethod
        def sight(cls, settings):
            return "left"

        def forward(self, x_BL, sigma=None, cache=None):
            return self.mix(self.embed(x_BL), cache)[0]

        def new_cache(self, batch):
            return torch.zeros(1, batch, 8)

        def commit(self, x_BL, cache):
            h_BLD, state = self.mix(self.embed(x_BL), cache)
            cache.copy_(state)
            return h_BLD, cache

    assert "no longer valid after a commit" in problems(Forgets)


def test_a_mixer_that_hears_no_pace_is_found(registry):
    class Deaf(Attention):
        paced = True

        def __init__(self, dim: int, length: int, causal: bool) -> None:
            super().__init__(dim, length, causal)

    class Idle(Deaf):
        def forward(self, h_BLD, cache=None, pace=None):
            return super().forward(h_BLD, cache)

    assert "unexpected keyword argument 'pace'" in problems(Deaf, Mixer, check_mixer)
    assert "no pace changes its output" in problems(Idle, Mixer, check_mixer)


def test_a_mixer_that_leaks_the_future_is_found(registry):
    class Leaks(Attention):
        def __init__(self, dim: int, length: int, causal: bool) -> None:
            super().__init__(dim, length, causal=False)

    assert "position 0 changes with position 1 (causal: True)" in problems(Leaks, Mixer, check_mixer)
