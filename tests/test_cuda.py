"""On a GPU: smoke recipes come to the host's curve and figures by updates that never wait, and benchmarks run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.smoke import RECIPES, smoke_run
from tests.waits import waiting_is_an_error
from workbench.bench.base import Meter
from workbench.bench.run import chosen, here, measure
from workbench.core import index
from workbench.run import RunFolder
from workbench.train.loop import Trainer

pytestmark = pytest.mark.cuda
NAMES = sorted(file.stem for file in (RECIPES / "smoke").glob("*.yaml") if file.stem != "base")
CLOSE = 0.02
"""Share by which float32 of two devices may differ after these few updates."""


def figures(run: RunFolder) -> dict[str, float]:
    values = json.loads(run.results.read_text())["values"]
    return {one["name"]: one["value"] for one in values if one["name"] in ("bits_per_byte", "unigram_bits_per_byte")}


def losses(run: RunFolder) -> list[float]:
    lines = [json.loads(line)["values"] for line in run.log.read_text().splitlines()]
    return [line["train/loss_nats_per_token"] for line in lines if "train/loss_nats_per_token" in line]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_comes_to_what_it_comes_to_on_the_host(name: str, smoke, tmp_path: Path, monkeypatch) -> None:
    update, done = Trainer._update, []

    def strict(self: Trainer, step: int, micros) -> None:  # type: ignore[no-untyped-def]
        done.append(step)  # optimizers make their state, and kernels are chosen, at the first
        with waiting_is_an_error() if len(done) > 1 else contextlib.nullcontext():
            update(self, step, micros)

    host = smoke(name)
    monkeypatch.setattr(Trainer, "_update", strict)
    run = smoke_run(name, tmp_path, tmp_path / "cache", ["train.device=cuda"])
    assert done
    assert losses(run) == pytest.approx(losses(host), rel=CLOSE)
    assert len(figures(run)) == 2 and len(losses(run)) > 3
    assert figures(run) == pytest.approx(figures(host), rel=CLOSE)


@pytest.mark.parametrize(
    "name", [entry.name for entry in index.scan().parts if entry.kind == "benchmark" and entry.module]
)
def test_every_way_of_a_benchmark_runs_at_toy_size(name: str) -> None:
    (task,) = chosen([name], quick=True)
    found = measure(task, Meter("cuda", 1, "bf16"), 1, one=here)
    assert found.rows or any(words in str(found.absent) for words in ("CPU", "GPU for each"))
    told = {str(one) for one in found.absent}
    assert all("not installed" in one or "is not here" in one or "CPU" in one for one in told), told
