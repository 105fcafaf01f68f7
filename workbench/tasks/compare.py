"""Runs of lm-evaluation-harness compared item by item, from the files that ``--log_samples`` leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.metrics.paired import Paired, compare_right

NAME = r"samples_{task}_\d{{4}}-\d\d-\d\dT.*\.jsonl"
"""Of a file of items: the task, then when it was asked. Another task's name may begin with this one's."""


def items(folder: Path, task: str, metric: str = "acc") -> dict[str, float]:
    """An item's figure by the hash of its document, from the newest file of the task below ``folder``.

    Raises:
        WorkbenchError: there is no such file, it cannot be read or is empty, or it has no such figure.
    """
    name_of_file = re.compile(NAME.format(task=re.escape(task)))
    files = sorted(
        (file for file in folder.rglob("samples_*.jsonl") if name_of_file.fullmatch(file.name)),
        key=lambda file: file.name,
    )
    if not files:
        raise WorkbenchError(
            f"{folder} has no samples_{task}_<date>.jsonl: run with --log_samples --output_path {folder}"
        )
    try:
        text = files[-1].read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"{files[-1]} cannot be read ({error})") from error
    if not text:
        raise WorkbenchError(f"{files[-1]} holds no items")
    found: dict[str, float] = {}
    for number, line in enumerate(text.split("\n"), start=1):  # documents may hold other ends of lines
        try:
            record = json.loads(line)
            name, value = record["doc_hash"], float(record[metric])
        except (ValueError, KeyError, TypeError) as error:
            raise WorkbenchError(f"{files[-1]}:{number}: no item with a figure {metric!r} ({error})") from error
        if name in found:
            name += f"/{record['doc_id']}"  # the same question twice in one set
        found[name] = value
    return found


def compare(run: Path, baseline: Path, task: str, metric: str = "acc") -> Paired:
    """A run against a baseline on a task's items.

    Raises:
        WorkbenchError: they answered different items.
    """
    ours, theirs = items(run, task, metric), items(baseline, task, metric)
    if ours.keys() != theirs.keys():
        raise WorkbenchError(
            f"{run} and {baseline} share {len(ours.keys() & theirs.keys())} items of {len(ours)} and {len(theirs)} of "
            f"{task}: run both on the same data with the same --limit"
        )
    names = sorted(ours)
    ours_N, theirs_N = (np.array([found[name] > 0.5 for name in names]) for found in (ours, theirs))
    return compare_right(ours_N, theirs_N)
