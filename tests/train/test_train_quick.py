"""What keeps updates quick: nothing compiled again as the number of live rows varies, no waiting for the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import graphs.absorbing
from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from tests.smoke import RECIPES
from tests.train.toy import settings
from workbench.core.rng import Rng
from workbench.kernels import dispatch
from workbench.kernels.rows import CompiledRows
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Plain, Scaled
from workbench.processes.time_draws import UniformTimes
from workbench.recipe import load
from workbench.sketch import sketch
from workbench.train.learner import GRAPHS_OF_A_BLOCK, Learner, compile_blocks, compiled_graphs
from workbench.train.parallel import Parallel
from workbench.train.window import Window

VOCAB, LENGTH, BATCH = 24, 256, 6


def model(device="cpu", masked=True):
    """(process, network, learner) with batches as they are prepared for ``device``; the network stays on the CPU."""
    torch.manual_seed(0)
    graph, readout = (Absorbing(VOCAB), Scaled(VOCAB)) if masked else (Uniform(VOCAB), Plain())
    process = Diffusion(VOCAB, LENGTH, graph, LogLinear(), readout, ScoreEntropy(), UniformTimes())
    process.place(torch.device(device))
    net = Transformer(graph.states, graph.states, LENGTH, dim=16, depth=2, heads=2, cond_dim=8, dropout=0.1)
    return process, net, Learner(net, settings(batch=BATCH))


def update(process, net, learner, window, step):
    """An update as the loop makes it, less the reading of its loss; the rows of its batch."""
    x0_BL = np.random.default_rng(step).integers(0, VOCAB, (BATCH, LENGTH))
    noised = process.prepare(x0_BL, np.arange(BATCH) + step * BATCH, step, Rng(0))
    return (lambda: move(process, net, learner, window, step, noised)), len(noised.rows_R)


def move(process, net, learner, window, step, noised):
    loss = process.loss(Shell(net), noised)
    loss.nats.backward()
    window.add(loss.logs, 1.0)
    window.close_update(step, loss.nats.detach(), learner.clip())
    learner.update(step)
    learner.forget_gradients()


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_nothing_is_compiled_again_as_live_rows_vary(device):
    """With the shapes of either device; the code generator itself is left out (it takes half a minute)."""
    process, net, learner = model(device)
    window, seen, counts = Window(Parallel()), set(), []
    for one in dispatch.DISPATCHERS:
        one.forget()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for block in net.blocks:
        block.compile(backend="aot_eager")
    process.rows = CompiledRows(process.rows, device, backend="aot_eager")
    for step in range(14):
        go, rows = update(process, net, learner, window, step)
        go()
        seen.add(rows)
        counts.append(compiled_graphs())
    assert len(seen) >= (2 if device == "cuda" else 8)  # the rows did vary
    warm = 5
    assert counts[warm] == counts[-1], counts
    assert 0 < counts[-1] <= 6
    assert not torch._dynamo.utils.counters["graph_break"]


def test_a_hybrid_is_compiled_whatever_it_is_asked(monkeypatch):
    """Blocks of three kinds, with a gradient and without, on batches of several sizes, share the code of one class."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = sketch(load(RECIPES / "smoke" / "hybrid.yaml")).make()
    compile_blocks(net, backend="eager")
    for grad in (True, False):
        net.train(grad)
        for batch in (2, 3, 4):
            with torch.set_grad_enabled(grad):
                net(torch.zeros(batch, 32, dtype=torch.long), torch.ones(batch))
    assert 8 < compiled_graphs() <= GRAPHS_OF_A_BLOCK


class Waits(TorchDispatchMode):
    """Notes every operation whose result the host must know before it can go on."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "item")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        if name in self.NAMES or (name == "index" and any(getattr(i, "dtype", None) == torch.bool for i in args[1])):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("masked", [True, False])
def test_an_update_asks_nothing_of_the_device(monkeypatch, masked):
    """All that an update does after its batch was prepared; the loss is read when a line is logged."""
    monkeypatch.setattr(graphs.absorbing, "_all", lambda live_R: False)  # what a CPU may ask of itself
    process, net, learner = model(masked=masked)
    window = Window(Parallel())
    update(process, net, learner, window, 0)[0]()  # optimizers make their state
    go, _ = update(process, net, learner, window, 1)
    with Waits() as waits:
        go()
    assert waits.seen == []
    with Waits() as waits:  # the reader above reads what it should
        float(torch.ones(3)[torch.ones(3) > 0].sum())
    assert len(waits.seen) >= 2 and "_local_scalar_dense" in waits.seen


@pytest.mark.cuda
def test_an_update_does_not_wait_on_a_gpu():
    process, net, _ = model("cuda")
    net = net.cuda()
    learner, window = Learner(net, settings(batch=BATCH)), Window(Parallel())
    for step in range(3):
        x0_BL = np.random.default_rng(step).integers(0, VOCAB, (BATCH, LENGTH))
        noised = process.prepare(x0_BL, np.arange(BATCH), step, Rng(0)).pin()
        torch.cuda.set_sync_debug_mode("error" if step else "default")  # optimizers make their state at the first
        try:
            move(process, net, learner, window, step, noised.to(torch.device("cuda")))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(window) == 3 and all(one.finite for one in window.updates())


def test_the_average_and_the_norm_are_taken_over_all_weights_at_once():
    """One call for all, not one a weight: what takes a launch each on a GPU."""
    _, _, learner = model()
    for weight in learner.parameters:
        weight.grad = torch.ones_like(weight)

    class Calls(TorchDispatchMode):
        names = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names = (*self.names, func.name())
            return func(*args, **(kwargs or {}))

    with Calls() as calls:
        learner.ema.update()
    assert [name for name in calls.names if "lerp" in name] == ["aten::_foreach_lerp_.Scalar"]
    with Calls() as calls:
        learner.clip()
    assert "aten::_foreach_norm.Scalar" in calls.names and len(calls.names) < len(learner.parameters)
