"""What a process of FSDP gathers: in which type, how much at once, and the same numbers (`tests/test_worlds.py`)."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from backbones.base import Backbone
from workbench import experiment
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.index import import_parts
from workbench.core.spec import build, resolve
from workbench.processes.base import Loss, Shell
from workbench.recipe import load
from workbench.train.fsdp import Fsdp
from workbench.train.parallel import Parallel

fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg", reason="torch without its fake processes")
SEDD = Path(__file__).parents[2] / "recipes/smoke/sedd.yaml"
WORLD, RANK = 64, 1
LOW = {"param_dtype": "bfloat16"}


@pytest.fixture
def many():
    """One of 64 processes whose others send nothing: shapes, types and memory are right, numbers are not."""
    dist.init_process_group("fake", rank=RANK, world_size=WORLD, store=fake.FakeStore())
    yield Parallel(RANK, WORLD, RANK)
    dist.destroy_process_group()


def network(**settings):
    import_parts()
    node, _ = resolve(Backbone, {"type": "transformer", "dim": 128, "depth": 5, "heads": 4, "cond_dim": 8, **settings})
    return build(node, {"states": 600, "outputs": 599, "length": 4})


def features(net, x_BL):
    return Loss(net.head(net(x_BL, torch.ones(1))).square().sum())


def step(shared, low, last=True):
    """A micro-batch of one short sequence, beside which parameters are everything."""
    with shared.quiet(last), torch.autocast("cpu", torch.bfloat16, enabled=low):
        loss = shared.model(features, torch.zeros(1, 4, dtype=torch.long))
    loss.nats.backward()


class Peak(TorchDispatchMode):
    """The most bytes that tensors hold at once."""

    def __init__(self):
        super().__init__()
        self.live, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter((args, kwargs, out)):
            if type(tensor) in (torch.Tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                self.live.setdefault(storage._cdata, storage)
        self.live = {at: one for at, one in self.live.items() if torch._C._storage_Use_Count(at) > 1}
        self.most = max(self.most, sum(one.nbytes() for one in self.live.values()))
        return out


@pytest.mark.parametrize("settings", [{}, LOW, {"free": False}, {"free": False, "exchange": "once", **LOW}])
def test_memory_is_what_was_predicted(many, settings):
    sharing, net, low = Fsdp(**settings), network(), settings.get("param_dtype") == "bfloat16"
    said = sharing.gathered(net, WORLD)
    rows = 4 * sum(sharing.rows(len(p), WORLD) * (p.numel() // len(p)) for p in net.parameters())
    shared = sharing.wrap(Shell(net), torch.device("cpu"), many)
    del net
    for _ in range(2):
        step(shared, low)
    gc.collect()
    for parameter in shared.shell.parameters():
        parameter.grad = None
    with Peak() as peak:
        step(shared, low, last=False)
        step(shared, low)
    measured = peak.most - 2 * rows  # parameters and gradients stay
    assert 0.9 * said < measured < 1.1 * said, (said, measured)


def test_autocast_keeps_a_cast_of_each_weight_that_comes_in_float32(many):
    """From the forward to the backward pass, which bfloat16 parameters spare: docs/scale.md counts it."""
    net = network()
    casts = 2 * sum(net.get_parameter(name).numel() for name in net.products())
    peaks = []
    for settings, low in (({}, False), ({}, True), (LOW, True)):
        shared = Fsdp(**settings).wrap(Shell(network()), torch.device("cpu"), many)
        step(shared, low)
        with Peak() as peak:
            step(shared, low)
        peaks.append(peak.most)
    assert peaks[2] < peaks[0] and 0.6 * casts < peaks[1] - peaks[0] < 1.1 * casts


class Sent(TorchDispatchMode):
    """Bytes of whole parameters and gradients that collectives gather and sum."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.bytes += max(one.nbytes for one in tree_iter(args) if isinstance(one, torch.Tensor))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("once", [False, True])
def test_traffic_is_what_the_plan_says(many, dtype, once):
    """docs/scale.md: blocks gathered once or twice a micro-batch, the rest once, gradients summed in float32."""
    sharing = Fsdp(param_dtype=dtype, **({"free": False, "exchange": "once"} if once else {}))
    net = network(dim=256)  # rows that 64 divides: others are filled up
    groups, rest = sharing.groups(net)
    blocks, others = sum(p.numel() for own in groups.values() for p in own), sum(p.numel() for p in rest)
    shared = sharing.wrap(Shell(net), torch.device("cpu"), many)
    step(shared, True)
    with Sent() as sent:
        step(shared, True, last=False)
        step(shared, True)
    width, gathers, sums = (4 if dtype == "float32" else 2), (1 if once else 2), (1 if once else 2)
    due = 2 * (gathers * width * blocks + 4 * others) + sums * 4 * (blocks + others)
    assert due <= sent.bytes < 1.1 * due, (due, sent.bytes)


def test_blocks_come_in_bfloat16_but_for_what_is_float32(many):
    shared = Fsdp(**LOW).wrap(Shell(network()), torch.device("cpu"), many)
    seen = {}

    def look(block, inputs):
        seen.update({name: parameter.dtype for name, parameter in block.named_parameters()})

    shared.shell.net.blocks[0].mixer.register_forward_pre_hook(lambda *_: look(shared.shell.net.blocks[0], None))
    step(shared, True)
    low = {name for name, dtype in seen.items() if dtype == torch.bfloat16}
    assert low == {f"{name}.weight" for name in ("mixer.qkv", "mixer.out", "mlp.inner", "mlp.outer")} | {
        "mlp.inner.bias",
        "mlp.outer.bias",
    }
    assert {seen[name] for name in seen.keys() - low} == {torch.float32}
    held = {parameter.dtype for parameter in shared.shell.parameters()}
    assert held == {p.grad.dtype for p in shared.shell.parameters() if p.grad is not None} == {torch.float32}


def test_float32_products_are_refused_before_an_update():
    Fsdp(**LOW).require(2, "bf16", "as the recipe says")
    Fsdp(**LOW).require(1, "fp32", "alone nothing is gathered")
    with pytest.raises(WorkbenchError, match=r"products are fp32 here \(no instructions\); set train.precision: bf16"):
        Fsdp(**LOW).require(2, "fp32", "no instructions")
    Fsdp().require(2, "fp32", "")
    sharing = "train.parallel={type: fsdp, param_dtype: bfloat16}"
    with pytest.raises(RecipeError, match=r"bfloat16 is for products in bf16, and train\.precision is fp32") as caught:
        load(SEDD, [sharing, "train.precision=fp32"])
    assert [problem.path for problem in caught.value.problems] == ["train.parallel.param_dtype"]
    assert load(SEDD, [sharing, "train.precision=bf16"]).hash == load(SEDD, ["train.precision=bf16"]).hash


def test_they_are_refused_before_the_text_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "join", lambda device: Parallel(0, 2))
    monkeypatch.setattr(experiment, "choose_precision", lambda wish, device: ("fp32", "no instructions"))
    monkeypatch.setattr(experiment.assemble, "prepare", lambda *args: pytest.fail("text is packed"))
    resolved = load(SEDD, ["train.parallel={type: fsdp, param_dtype: bfloat16}", "train.device=cpu"])
    with pytest.raises(WorkbenchError, match="products are fp32 here"):
        experiment.train(experiment.create(resolved, tmp_path), resolved, tmp_path)
