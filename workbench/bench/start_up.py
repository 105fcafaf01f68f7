"""From the command line to help, and to the first update of a recipe."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.core.bounds import Count

HELP = "workbench --help"


@Benchmark.register("start_up")
class StartUp(Benchmark):
    """Seconds until ``workbench --help`` is printed, and until a recipe whose text is packed has made one update.

    Each is a process of its own, from its start to its end. *bare* is what no program of this kind gets below: the
    interpreter, and the interpreter that has imported torch.

    Settings:
        recipe: the recipe whose first update is timed; null for none
        repeats: processes timed
    """

    ways = ("bare", "workbench")
    goals = (Goal("workbench", seconds=0.5, case=HELP), Goal("workbench", seconds=10.0, case="first update"))

    def __init__(self, recipe: str | None = "quickstart/sedd.yaml", repeats: Count = 3) -> None:
        """Keep the settings."""
        self.recipe, self.repeats = recipe, repeats

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Help alone."""
        return {"recipe": None, "repeats": 1}

    def cases(self, way: str) -> Sequence[str]:
        """Help, and a first update."""
        return [HELP, *([f"first update of {self.recipe}"] if self.recipe else [])]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds from start to end of a process; the first one, which warms caches, does not count."""
        python = [sys.executable]
        if way == "bare":
            return {"seconds": self._run([*python, "-c", "pass" if case == HELP else "import torch"], meter)}
        command = [*python, "-m", "workbench"]
        if case == HELP:
            return {"seconds": self._run([*command, "--help"], meter)}
        from workbench import assemble
        from workbench.recipe import load, unwatched

        resolved = load(str(self.recipe))
        try:
            assemble.prepare(resolved)
        except Exception as error:  # no text here: a package or a file is absent
            raise Absent(f"the text of {self.recipe} cannot be prepared: {error}") from error
        with tempfile.TemporaryDirectory() as folder:
            numbers = itertools.count()

            def fresh() -> list[str]:
                words = ["train.steps=1", *unwatched(resolved.data), f"train.device={meter.device}"]
                words.append(f"seed={next(numbers)}")  # another seed: another run
                return [*command, "train", str(resolved.source), *words, "--no-eval", "--runs", folder]

            return {"seconds": self._run(fresh, meter)}

    def _run(self, command: Any, meter: Meter) -> float:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

        def call() -> None:
            words = command() if callable(command) else command
            done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=Path.cwd())
            if done.returncode:
                raise Absent(f"{' '.join(words[1:4])} … failed: {done.stderr.strip()[-300:]}")

        return meter.seconds(call, self.repeats)
