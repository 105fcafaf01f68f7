"""Profiling sessions: some updates of a recipe by its own trainer, or some texts by its own sampler."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from samplers.base import Canvas
from workbench import assemble, experiment
from workbench.core.loading import Resolved
from workbench.evaluate import Examiner
from workbench.profiling import regions
from workbench.profiling.table import Table, tabulate
from workbench.recipe import load, unwatched
from workbench.train.loop import Trainer
from workbench.train.machine import MEBI, choose_device, choose_precision, settle

UPDATE, TEXTS = "update", "texts"
QUIET = ("train.checkpoint_every=0", "train.tensorboard=false", "train.log_every=1000000")
"""What `shortened` leaves out besides evaluations: what stands around updates every so often."""


def profile_training(
    resolved: Resolved, steps: int, warm: int, out: Path | None = None, cache: Path | None = None
) -> Table:
    """``steps`` updates after ``warm`` that do not count, by the recipe's own trainer in a folder that is thrown away.

    ``out``: folder for the trace. Evaluations, checkpoints and logs are left out.

    Raises:
        WorkbenchError: the recipe cannot be trained here.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        short = shortened(resolved, warm + steps, Path(folder))
        data = assemble.prepare(short, cache)
        run = experiment.create(short, Path(folder) / "runs")
        trainer = experiment.trainer(run, short, data, quiet=True)
        watch = Watch(trainer, warm)
        stack.enter_context(watch.watching())
        trainer.fit()
        table = watch.table(steps, out)
    table.facts |= {**watch.facts(), **stored_mb(trainer)}
    return table


def shortened(resolved: Resolved, updates: int, folder: Path, overrides: Sequence[str] = ()) -> Resolved:
    """The recipe for so many updates, without evaluations, logs and checkpoints on the way, and with ``overrides``.

    It goes through a file in ``folder`` as any recipe: everything is resolved and checked again.
    """
    from workbench.core.tree import dump_yaml

    file = folder / "shortened.yaml"
    file.write_text(dump_yaml(resolved.data), encoding="utf-8")
    return load(file, [*QUIET, *unwatched(resolved.data), f"train.steps={updates}", *overrides])


class Watch:
    """A trainer seen by the profiler from its update number ``warm`` on."""

    def __init__(self, trainer: Trainer, warm: int) -> None:
        """Nothing is seen before ``watching``."""
        self.trainer, self.warm = trainer, warm
        self.on_device = trainer.device.type == "cuda"
        self.profiler = profiler(self.on_device)
        self.updates: list[tuple[float, float]] = []
        self.prepared: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Regions and clocks are in place while inside."""
        trainer, learner = self.trainer, self.trainer.learner
        inner, prepare = trainer._update, trainer._prepare

        def update(*args: Any) -> None:
            if trainer.step == self.warm:
                self._wait()
                self.profiler.start()
            began = time.perf_counter()
            with record_function(regions.PREFIX + UPDATE):
                inner(*args)
            last = trainer.step == trainer.settings.steps
            if last:
                self._wait()
            self.updates.append((began, time.perf_counter()))
            if last:
                self.profiler.stop()

        def prepared(step: int) -> Any:
            began = time.perf_counter()
            made = prepare(step)
            self.prepared.append(time.perf_counter() - began)
            return made

        with ExitStack() as stack:
            stack.enter_context(regions.network(trainer.shell.net, trainer.settings.compile))  # type: ignore[arg-type]
            stack.enter_context(regions.around(learner, "clip", "clipping"))
            stack.enter_context(regions.around(learner.ema, "update", "average of the weights"))
            stack.enter_context(regions.around(trainer.process, "advance", "process"))
            stack.enter_context(regions.around(trainer.window, "last", "reading the loss"))
            stack.enter_context(replaced(trainer, "_update", update))
            stack.enter_context(replaced(trainer, "_prepare", prepared))
            yield

    def table(self, steps: int, out: Path | None) -> Table:
        """What was seen, a step; the trace into ``out``."""
        table = tabulate(self.profiler.events(), UPDATE, steps, self.on_device)  # type: ignore[arg-type]
        keep_trace(self.profiler, out, "training")
        return table

    def facts(self) -> dict[str, float]:
        """Wall clock of an update, the host's waiting for its batch and the device's work included; of that waiting
        (a device may still be at work meanwhile); of a batch's making (in a thread where prefetched).

        Single updates are not timed: on a device the host only hands out their work.
        """
        seen = self.updates[self.warm :]
        gaps = [then[0] - now[1] for now, then in itertools.pairwise(seen)]
        return {
            "update_ms": 1e3 * (seen[-1][1] - seen[0][0]) / len(seen),
            "waiting_ms": 1e3 * sum(gaps) / len(seen),
            "preparing_ms": 1e3 * statistics.median(self.prepared),
        }

    def _wait(self) -> None:
        """Until the device has done what it was given."""
        if self.on_device:
            torch.cuda.synchronize()


def stored_mb(trainer: Trainer) -> dict[str, float]:
    """Memory of what stays from update to update, MB."""
    learner = trainer.learner
    moments = [value for one in learner.optimizers for state in one.state.values() for value in state.values()]
    sizes = {
        "weights_mb": list(learner.parameters),
        "optimizer_mb": [value for value in moments if isinstance(value, torch.Tensor)],
        "average_mb": list(learner.ema.tensors().values()),
    }
    return {name: sum(one.nbytes for one in tensors) / MEBI for name, tensors in sizes.items()}


def profile_sampling(
    resolved: Resolved, count: int, warm: int, out: Path | None = None, cache: Path | None = None
) -> Table:
    """A batch of ``count`` texts by the recipe's sampler, after ``warm`` that do not count, from fresh weights."""
    settings = assemble.train_settings(resolved)
    settle(settings.threads)
    device = choose_device(settings.device)
    data = assemble.prepare(resolved, cache)
    model = assemble.model(resolved, data.tokenizer)
    # a head that begins at 0 proposes nothing that weights in training would: give its scores some spread
    if not bool(model.backbone.head.weight.any()):
        nn.init.normal_(model.backbone.head.weight, std=0.02)
    model.process.place(device)
    model.shell.to(device).eval().requires_grad_(False)
    corpus, rng = assemble.data_of(resolved).corpus, assemble.streams(resolved)
    precision = choose_precision(settings.precision, device)[0]
    examiner = Examiner(model, None, corpus, assemble.sampler(resolved), rng, device, precision)
    return profile_drawing(examiner, count, warm, out)


def profile_drawing(examiner: Examiner, count: int, warm: int, out: Path | None = None) -> Table:
    """A batch of texts by an examiner's sampler."""
    model, sampler = examiner.model, examiner.sampler
    on_device = examiner.device.type == "cuda"
    canvas = Canvas.blank(count, model.length)
    for _ in range(warm):
        examiner.draw(canvas)
    seen = profiler(on_device)
    names = {"_head": "head", "features": regions.BACKBONE, "_commit": regions.BACKBONE, "_reach": "bounds of sums"}
    with ExitStack() as stack:
        stack.enter_context(regions.network(model.backbone))
        stack.enter_context(regions.around(model.shell, "forward", regions.by_function(names, "network")))
        if "draws" in vars(sampler):
            stack.enter_context(replaced(sampler, "draws", _named(vars(sampler)["draws"], "drawing")))
        stack.enter_context(seen)
        began = time.perf_counter()
        with record_function(regions.PREFIX + TEXTS):
            drawn = examiner.draw(canvas)
        if on_device:
            torch.cuda.synchronize()
        took = time.perf_counter() - began
    table = tabulate(seen.events(), TEXTS, 1, on_device)  # type: ignore[arg-type]
    keep_trace(seen, out, "sampling")
    tokens = count * model.length
    table.facts |= {"seconds": took, "network_calls": float(drawn.calls), "tokens_per_second_profiled": tokens / took}
    return table


def profiler(on_device: bool) -> profile:
    """A profiler of host and device with memory."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    return profile(activities=activities, profile_memory=True)


def keep_trace(seen: profile, out: Path | None, name: str) -> None:
    """Write a trace that Perfetto, chrome://tracing and TensorBoard's profiler plug-in open."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        seen.export_chrome_trace(str(out / f"{name}.pt.trace.json"))


def _named(function: Callable[..., Any], region: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(regions.PREFIX + region):
            return function(*args, **kwargs)

    return call


@contextmanager
def replaced(owner: object, name: str, value: Any) -> Iterator[None]:
    """An attribute of an object is another while inside; one that is the class's shows again after."""
    own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
