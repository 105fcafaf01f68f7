"""Trained runs, ready to use: from the folder alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench import assemble
from workbench.assemble import Model
from workbench.core.errors import WorkbenchError
from workbench.core.loading import Resolved
from workbench.data.section import Prepared
from workbench.evaluate import Examiner, cost_of
from workbench.metrics.asking import Answered, Asking
from workbench.recipe import load
from workbench.run import RunFolder
from workbench.shards import Shards
from workbench.train.checkpoint import load_weights
from workbench.train.log import read_log
from workbench.train.machine import choose_device, choose_precision, settle

KEPT_FOR = ("backbone", "process")
"""What of a recipe moves a likelihood, beside the weights: the shards of another are not taken up."""


def reopen(path: Path | str, overrides: Iterable[str] = ()) -> tuple[RunFolder, Resolved]:
    """A run and its recipe, from the folder alone; ``overrides`` as in training (``sampler.steps=32``).

    Raises:
        RunError: no run is there.
        WorkbenchError: its recipe is gone, damaged, or no longer resolves (the package has changed).
    """
    run = RunFolder(Path(path))
    if not run.resolved.is_file():
        raise WorkbenchError(f"{run.path} has lost its resolved.yaml; train the recipe again")
    return run, load(run.resolved, overrides)


@dataclass(frozen=True)
class Opened:
    """A trained run, ready to use: weights loaded (the averaged ones), in evaluation mode, on its device.

    ``trained_on``: the machine that wrote them, "" where that is not known.
    """

    run: RunFolder
    resolved: Resolved
    model: Model
    device: torch.device
    precision: str
    step: int
    trained_on: str = ""

    def examiner(self, data: Prepared | None = None) -> Examiner:
        """Evidence about it on prepared data (without data: samples only)."""
        return Examiner(
            self.model,
            data,
            assemble.data_of(self.resolved).corpus,
            assemble.sampler(self.resolved),
            assemble.streams(self.resolved).child("final"),
            self.device,
            self.precision,
            cost_of(read_log(self.run.log), self.model, f"{self.device}, {self.precision}", self.trained_on),
            self._asked,
            Shards(self.run.shards, self.model.shell, {name: self.resolved.data[name] for name in KEPT_FOR}),
            assemble.train_settings(self.resolved).replay,
        )

    def _asked(self, asking: Asking) -> Mapping[str, Answered]:
        from workbench.tasks.asking import answered  # it knows opened runs, and takes seconds to import

        return answered(self, asking)


def open_trained(path: Path | str, which: str = "last", overrides: Iterable[str] = ()) -> Opened:
    """Load a run's weights. ``which``: "last", "best" or a step; ``overrides``: settings that leave weights alone.

    Raises:
        WorkbenchError: the run has no usable checkpoint, or no tokenizer.
    """
    return load_trained(*reopen(path, overrides), which)


def load_trained(run: RunFolder, resolved: Resolved, which: str = "last") -> Opened:
    """The same with a recipe at hand, which may differ from the run's in what comes after training.

    Raises:
        WorkbenchError: the run has no usable checkpoint, or no tokenizer.
    """
    settings = assemble.train_settings(resolved)
    settle(settings.threads)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)[0]
    model = assemble.model(resolved, assemble.kept_tokenizer(resolved, run.path))
    found = load_weights(model.backbone, run.ckpt, which=which)
    for problem in found.passed:
        print(f"{run.path.name}: {problem}; the weights of step {found.step} are used", file=sys.stderr)
    model.process.place(device)
    model.shell.to(device).eval().requires_grad_(False)
    trained_on = str(found.state.get("machine", {}).get("name", ""))
    return Opened(run, resolved, model, device, precision, found.step, trained_on)
