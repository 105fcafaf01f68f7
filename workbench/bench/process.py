"""One of the processes of benchmark `processes`: a run's updates by its own trainer, timed; started by torchrun."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from workbench import assemble, experiment
from workbench.core.files import write_json
from workbench.core.loading import Resolved
from workbench.opening import reopen
from workbench.profiling.session import replaced
from workbench.run import RunFolder
from workbench.train.loop import Trainer
from workbench.train.machine import memory_mb, peak_resident_mb
from workbench.train.parallel import Parallel, join, leave


def main(words: str) -> None:
    """Train the run that is named as JSON; what this process found goes into a file of its own."""
    asked = json.loads(words)
    run, resolved = reopen(asked["run"])
    parallel = join(resolved.data["train"]["device"])
    try:
        found = timed(run, resolved, parallel, asked["warm"])
        write_json(Path(asked["found"]) / f"{parallel.rank}.json", found)
    finally:
        leave()


def timed(run: RunFolder, resolved: Resolved, parallel: Parallel, warm: int) -> dict[str, float]:
    """``seconds`` of an update, from the end of update ``warm`` to the end of the last, all processes meeting at both;
    ``peak_mb`` of this process: of all tensors on CUDA, else the growth of its resident set since before the trainer.

    The weights are not kept: those of a large network are tens of gigabytes.
    """
    data = assemble.prepare(resolved)
    before = memory_mb(torch.device("cpu"))
    trainer = experiment.trainer(run, resolved, data, parallel, quiet=True)
    ends: list[float] = []
    inner = trainer._update

    def update(*args: Any) -> None:
        inner(*args)
        if trainer.step in (warm, trainer.settings.steps):
            ends.append(met(trainer))

    with ExitStack() as stack:
        stack.enter_context(replaced(trainer, "_update", update))
        stack.enter_context(replaced(trainer, "_save", lambda: None))
        trainer.fit()
    on_cuda = trainer.device.type == "cuda"
    peak = memory_mb(trainer.device) if on_cuda else peak_resident_mb() - before
    return {"seconds": (ends[1] - ends[0]) / (trainer.settings.steps - warm), "peak_mb": peak}


def met(trainer: Trainer) -> float:
    """The time once the devices of all processes have done what they were given."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    trainer.parallel.wait()
    return time.perf_counter()


if __name__ == "__main__":
    main(sys.argv[1])
