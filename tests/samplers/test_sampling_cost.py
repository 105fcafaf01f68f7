"""What a step of sampling may cost: no tensor above one chunk × vocabulary, no network call that nobody reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform
from samplers.base import Canvas, Law, Predictor, State
from samplers.draw import BLOCK, drive
from samplers.predictors.analytic import Analytic
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse
from samplers.times import Uniform as Grid
from workbench.core import index
from workbench.core.build import build
from workbench.core.rng import Rng
from workbench.core.spec import resolve
from workbench.processes.base import Shell
from workbench.processes.readouts import Plain, Scaled
from workbench.processes.views import DenoiserView

index.import_parts()
VOCAB, LENGTH, BATCH, CHUNK, DIM = 2000, 32, 4, 8, 8
"""The head is no larger than a chunk's outputs, all rows' are 16 times that: one tensor of all rows would show."""


class Largest(TorchDispatchMode):
    """The largest result of any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.by = 0, ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_iter(out):
            if isinstance(leaf, Tensor) and leaf.numel() > self.seen:
                self.seen, self.by = leaf.numel(), str(func)
        return out


def view_of(name: str) -> DenoiserView:
    """A small network of random weights as a score."""
    torch.manual_seed(0)
    graph = Absorbing(VOCAB) if name == "absorbing" else Uniform(VOCAB)
    net = Transformer(graph.states, graph.states, LENGTH, dim=DIM, depth=1, heads=1, cond_dim=4, dropout=0.0)
    net.eval().requires_grad_(False)
    torch.nn.init.normal_(net.head.weight, std=0.1)
    noise, readout = (LogLinear(), Scaled(VOCAB)) if graph.mask else (Geometric(), Plain())
    view = DenoiserView(Shell(net), graph, noise, readout, LENGTH, graph.states)
    view.chunk = CHUNK
    return view


def sampler_of(name: str, steps: int) -> Reverse:
    """A walk that uses the rule of that name: as its predictor, or after one if it is a corrector."""
    kind = Predictor.lookup(name)
    node, problems = resolve(Predictor, {"type": name, **kind.example()})
    assert node is not None and not problems
    rule = build(node)
    if rule.corrects:
        return Reverse(Normalised(), Grid(), steps, correctors=(rule,))
    return Reverse(rule, Grid(), steps)


CASES = [
    (name, graph)
    for name in Predictor.names()
    for graph in ("absorbing", "uniform")
    if graph == "absorbing" or Predictor.lookup(name).graphs == "any"
]
MOST = CHUNK * -(-(VOCAB + 1) // BLOCK) * BLOCK
"""One chunk × the states, padded to whole blocks as the inverse CDF does."""


@pytest.mark.parametrize("name,graph", CASES)
def test_no_tensor_is_larger_than_one_chunk_of_the_vocabulary(name: str, graph: str) -> None:
    view = view_of(graph)
    with Largest() as mode:
        sampler_of(name, 3).draw(view, Canvas.blank(BATCH, LENGTH), Rng(0))
    assert mode.seen <= MOST, mode.by


def test_a_larger_one_would_be_seen() -> None:
    view = view_of("absorbing")
    view.chunk *= 2
    with Largest() as mode:
        sampler_of("normalised", 3).draw(view, Canvas.blank(BATCH, LENGTH), Rng(0))
    assert mode.seen > MOST


@pytest.mark.parametrize("name", [name for name in Predictor.names() if Predictor.lookup(name).blind])
def test_a_blind_walk_asks_nothing_where_nothing_moves(name: str) -> None:
    view, calls, idle = view_of("absorbing"), [0], []

    def heard(state: State, law: Law, moved: int) -> None:
        calls.append(view.calls)
        to_R = torch.full_like(law.rows_R, -1) if law.to_R is None else law.to_R
        if moved == 0 or bool((to_R >= 0).all()):
            idle.append(calls[-1] - calls[-2])

    sampler = sampler_of(name, 256)
    with torch.no_grad():
        drive(sampler.walk(view, sampler.begin(view, Canvas.blank(1, LENGTH), Rng(3))), Rng(3), view, heard)
    assert sum(idle) == 0 and calls[-1] > 0
    if name != "first_hitting":  # which has no step without a token, and a last one with nothing left
        assert len(idle) > 100


def test_thinning_asks_nothing_where_nothing_is_proposed() -> None:
    view = view_of("absorbing")
    drawn = Reverse(Analytic(thin=1.5), Grid(), 256).draw(view, Canvas.blank(1, LENGTH), Rng(3))
    assert 0 < drawn.calls < 1.5 * LENGTH
