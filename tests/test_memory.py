"""What `check` says a training will hold is what it holds: saved tensors to the byte, whole updates within a tenth."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.smoke import RECIPES
from workbench import assemble, experiment
from workbench.activations import Setting, kept, saving
from workbench.check import at_processes
from workbench.core.loading import Resolved
from workbench.recipe import load, unwatched
from workbench.sketch import sketch
from workbench.train.learner import compile_blocks, compiled_graphs
from workbench.train.loop import Trainer
from workbench.train.recompute import recompute_blocks

SMOKE = ["sedd", "mamba2", "hybrid", "hollow", "gpt2", "blocks", "uniform"]
NEAR = 0.1
"""Share by which a whole update may differ."""


def saved_bytes(recipe: Resolved, batch: int, setting: Setting, every: int = 0) -> int:
    """What autograd holds of a real forward pass, parameters apart."""
    made = sketch(recipe)
    net = made.make().to(setting.device).train()
    recompute_blocks(net, every)
    if setting.compiled:
        compile_blocks(net)
    x_BL = torch.zeros(batch, made.length, dtype=torch.long, device=setting.device)
    sigma_B = torch.ones(batch, device=setting.device)
    with torch.autocast(setting.device, torch.bfloat16, enabled=setting.low), saving() as saved:
        h_BLD = net(x_BL, sigma_B)
        own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
        sizes = {one.storage.data_ptr(): one.storage.nbytes() for one in saved}
    del h_BLD
    return sum(size for place, size in sizes.items() if place not in own)


def predicted(recipe: Resolved, batch: int, setting: Setting, every: int = 0) -> int:
    made = sketch(recipe)
    return kept(made.make, batch, made.length, setting, every).between


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", [*SMOKE, "../quickstart/sedd-mamba"])
def test_what_autograd_keeps_is_told_to_the_byte(name: str, low: bool) -> None:
    recipe, setting = load(RECIPES / "smoke" / f"{name}.yaml"), Setting("cpu", low)
    for batch in (1, 5):
        assert predicted(recipe, batch, setting) == saved_bytes(recipe, batch, setting)


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
def test_blocks_that_are_computed_again_keep_their_inputs(low: bool) -> None:
    recipe, setting = load(RECIPES / "smoke" / "sedd.yaml", ["backbone.depth=3"]), Setting("cpu", low)
    made = sketch(recipe)
    for every in (1, 2):
        now = predicted(recipe, 2, setting, every) - saved_bytes(recipe, 2, setting, every)
        assert now > 0 if low else now == 0  # autocast's casts of those blocks, which autograd does not hold
    whole, again = (kept(made.make, 2, made.length, setting, every) for every in (0, 1))
    assert again.between < whole.between and again.beyond > whole.beyond


def test_compiled_blocks_keep_what_the_compiler_keeps() -> None:
    recipe = load(RECIPES / "smoke" / "sedd.yaml", ["backbone.depth=1"])
    setting = Setting("cpu", low=False, compiled=True)
    torch._dynamo.reset()
    real = saved_bytes(recipe, 2, setting)
    assert predicted(recipe, 2, setting) == pytest.approx(real, rel=0.01)  # some of its buffers end at round places
    assert real < predicted(recipe, 2, Setting("cpu"))


TABLE = torch.ones(64, 8)


class OfItsOwn(torch.nn.Module):
    """A network with a table that was there before it, and one of numpy's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = torch.nn.Embedding(10, 8), torch.nn.Linear(8, 8)
        self.register_buffer("scale", torch.from_numpy(np.ones(8, dtype=np.float32)))

    def forward(self, x_BL: torch.Tensor, sigma_B: torch.Tensor) -> torch.Tensor:
        return self.linear(self.embed(x_BL) + TABLE[: x_BL.shape[1]]) * self.scale


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tables_of_a_network_are_taken_as_they_are(device: str) -> None:
    inputs, products, indices = 2 * 16 * 8 * 4, 2 * 16 * 8 * 4, 2 * 16 * 8
    found = kept(OfItsOwn, 2, 16, Setting(device)).between
    assert indices + inputs <= found <= indices + inputs + products + 64 * 8 * 4 + 8 * 4


@functools.cache
def remembered(length: int, device: torch.device) -> torch.Tensor:
    return torch.ones(length, 8, device=device)


class Remembering(torch.nn.Module):
    """A network of PyTorch's own layers, rates that are numbers when it is built, and a table kept by device."""

    def __init__(self) -> None:
        super().__init__()
        rates = torch.linspace(0, 0.1, 2, device="cpu").tolist()
        self.embed = torch.nn.Embedding(10, 8)
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=rate, batch_first=True) for rate in rates
        )
        self.plain = torch.ones(8)

    def forward(self, x_BL: torch.Tensor, sigma_B: torch.Tensor) -> torch.Tensor:
        h_BLD = self.embed(x_BL) * self.plain + remembered(x_BL.shape[1], x_BL.device)
        for layer in self.layers:
            h_BLD = layer(h_BLD)
        return h_BLD


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
def test_a_network_that_remembers_is_costed_again_and_runs(low: bool) -> None:
    first, again = (kept(Remembering, 2, 16, Setting("cuda", low)) for _ in range(2))
    assert first == again and first.between > 0
    assert kept(Remembering, 2, 16, Setting("cpu", low)).between > 0
    out = Remembering()(torch.zeros(1, 16, dtype=torch.long), torch.ones(1))
    assert type(out) is torch.Tensor and isinstance(out.sum().item(), float)


def test_nothing_of_the_counting_is_left_behind() -> None:
    """A network that is trained after it was costed finds ordinary tensors, its own kernels and its own device."""
    recipe = load(RECIPES / "smoke" / "sedd.yaml", ["backbone.kernel=xformers"])  # which a CPU cannot run
    before = torch.is_autocast_enabled("cpu")
    assert kept(sketch(recipe).make, 2, 32, Setting("cuda", low=True)).between > 0
    assert kept(sketch(recipe).make, 2, 32, Setting("cpu", low=True)).between > 0
    limit, graphs = torch._dynamo.config.recompile_limit, compiled_graphs()
    kept(sketch(recipe).make, 2, 32, Setting("cuda", low=True, compiled=True))
    assert (torch._dynamo.config.recompile_limit, compiled_graphs()) == (limit, graphs)
    assert type(torch.zeros(1)) is torch.Tensor and torch.is_autocast_enabled("cpu") == before
    with pytest.raises(Exception, match="xformers"):
        saved_bytes(recipe, 1, Setting("cpu"))


@pytest.mark.cuda
@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", SMOKE)
def test_what_autograd_keeps_on_a_gpu_is_told_from_anywhere(name: str, low: bool) -> None:
    recipe, setting = load(RECIPES / "smoke" / f"{name}.yaml"), Setting("cuda", low)
    real = saved_bytes(recipe, 2, setting)
    # and the few numbers by which fused attention would draw its dropout again
    assert 0 <= real - predicted(recipe, 2, setting) <= 64 * 4


QUICK = ["train.checkpoint_every=0", "train.tensorboard=false", "train.log_every=1000000", "train.device=cuda"]
UPDATES = {
    **{name: (name, []) for name in SMOKE if name != "hybrid"},
    "hybrid": ("hybrid", ["backbone.pattern=MMA"]),  # buffers that a selective scan in PyTorch works in are not told
    "large": ("mamba2", ["train.batch=64"]),
    "accumulated": ("gpt2", ["train.accumulate=2", "train.batch=64"]),
    "again": ("gpt2", ["train.recompute=1", "backbone.depth=4", "train.batch=64"]),
    "float32": ("gpt2", ["train.precision=fp32"]),
}


class Over(Exception):
    """Enough updates were made."""


@pytest.mark.cuda
@pytest.mark.parametrize("case", UPDATES)
def test_an_update_holds_what_check_says(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, words = UPDATES[case]
    file = RECIPES / "smoke" / f"{name}.yaml"
    recipe = load(file, [*QUICK, *unwatched(load(file).data), *words])
    (said,) = (one for one in at_processes(recipe, [1]) if one.parallel == "ddp")
    data = assemble.prepare(recipe, tmp_path / "cache")
    update = Trainer._update

    def counted(self: Trainer, step: int, micros) -> None:  # type: ignore[no-untyped-def]
        update(self, step, micros)
        if step == 3:
            raise Over

    monkeypatch.setattr(Trainer, "_update", counted)
    gc.collect()
    before = torch.cuda.memory_allocated()
    trainer = experiment.trainer(experiment.create(recipe, tmp_path), recipe, data, quiet=True)
    torch.cuda.reset_peak_memory_stats()
    with pytest.raises(Over):
        trainer.fit()
    assert said.total == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=NEAR)
