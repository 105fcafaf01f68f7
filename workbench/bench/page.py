"""What was measured as a record (JSON) and a page (Markdown)."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from workbench import __version__
from workbench.bench.base import COMMON, Meter
from workbench.bench.run import TO, Measured
from workbench.core.errors import WorkbenchError
from workbench.core.files import write_json, write_text
from workbench.environment import source_state

FORMS = {
    "seconds": "{:.4g}", "ratio": "{:.2f}×", "memory": "{:.2f}", "peak_mb": "{:,.0f}", "tokens_per_second": "{:,.0f}",
    "predicted_mb": "{:,.0f}", "of_matmul": "{:.1%}",
}  # fmt: skip
HEADS = {
    "peak_mb": "peak MB", "tokens_per_second": "tokens/s", "text_mb_per_second": "MB of text/s",
    "predicted_mb": "predicted MB", "of_matmul": "of the matmul rate",
}  # fmt: skip


class Pages:
    """The files of benchmarks in a folder: record (JSON) and page (Markdown), whole after each benchmark, figures."""

    def __init__(self, folder: Path, names: Sequence[str], told: Mapping[str, Any]) -> None:
        """Make the folder, for the benchmarks ``names`` measured under conditions ``told``.

        Raises:
            WorkbenchError: nothing can be written there; it is said before anything is measured.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise WorkbenchError(
                f"--out {folder} cannot be written ({error.strerror}); name a folder that can be"
            ) from error
        stem = f"{names[0] if len(names) == 1 else 'bench'}-{told['device']}"
        self.folder, self.names, self.told = folder, names, told
        self.files = [folder / f"{stem}.json", folder / f"{stem}.md"]
        self.measured: list[Measured] = []

    def add(self, one: Measured) -> None:
        """Keep what was measured, then what the benchmark says of it and draws; where these fail the page says so."""
        self.measured.append(one)
        self._write()
        if one.rows:
            before = set(self.folder.iterdir())
            one.notes.extend(remarks(one, self.folder, f"{one.task.name}-{self.told['device']}"))
            self.files += sorted(set(self.folder.iterdir()) - before)
            self._write()

    def _write(self) -> None:
        data = record(self.measured, self.names, self.told)
        write_json(self.files[0], data)
        write_text(self.files[1], markdown(data, self.measured))


def remarks(one: Measured, folder: Path, stem: str) -> list[str]:
    """A benchmark's notes, its figures drawn into a folder; what of this fails says so in its place."""
    made, notes = one.task.made, list[str]()
    try:
        notes += map(str, made.notes(one.rows))
    except Exception as error:  # a benchmark may be anybody's: the others' hours are not lost by it
        notes.append(f"The notes failed: {_in_a_line(error)}.")
    try:
        made.draw(one.rows, folder, stem)
    except Exception as error:
        notes.append(f"The figures failed: {_in_a_line(error)}.")
    return notes


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.300}"


def conditions(meter: Meter, rounds: int, command: str) -> dict[str, Any]:
    """What figures depend on beside the settings: date, machine, versions, command."""
    source = source_state(Path(__file__).resolve().parent)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": meter.processor(),
        "device": meter.device,
        "threads": meter.threads or torch.get_num_threads(),
        "precision": meter.precision,
        "torch": torch.__version__,
        "workbench": __version__,
        "commit": source.get("commit", ""),
        "dirty": source.get("dirty", False),
        "rounds": rounds,
        "command": command,
    }


def record(measured: Sequence[Measured], names: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """All that was measured, under the conditions ``told``, with settings; ``waiting``: those of ``names`` that were
    not yet."""
    found = {
        one.task.name: {
            "settings": one.task.data,
            "yardstick": one.task.made.yardstick,
            "rows": one.rows,
            "absent": one.absent,
            "notes": one.notes,
        }
        for one in measured
    }
    return {**told, "waiting": [name for name in names if name not in found], "benchmarks": found}


def markdown(record: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """A page: conditions, then a table a benchmark."""
    lines = [
        "# Benchmarks",
        "",
        f"{record['date']}, {record['machine']}, {record['threads']} threads, torch {record['torch']}, "
        f"{record['precision']} where the machine chooses; medians of {record['rounds']} rounds, each way and case in "
        f"a process of its own, in turn. Ratios are to the way that their column names; what is wanted is beside the "
        f"first of these where it names none. Command: `{record['command']}`.",
    ]
    if record["waiting"]:
        lines += ["", f"Not measured yet: {', '.join(record['waiting'])}."]
    for one in measured:
        lines += ["", f"## {one.task.name}", *prose(one), "", *grid(one.rows, one.task.made.yardstick)]
        if one.notes:
            lines += ["", *one.notes]
        if one.absent:
            lines += ["", *(f"- not measured: {row['case']}, {row['way']}: {row['why']}" for row in one.absent)]
    return "\n".join(lines) + "\n"


def prose(one: Measured) -> list[str]:
    """What the benchmark is, and its settings."""
    text = (inspect.getdoc(type(one.task.made)) or "").partition("Settings:")[0].strip()
    settings = ", ".join(f"{name} {value}" for name, value in one.task.data.items() if name != "type")
    return [*text.splitlines(), "", f"Settings: {settings}."]


def grid(rows: Sequence[Mapping[str, Any]], yardstick: str) -> list[str]:
    """The table of a benchmark; columns that nothing fills are left out."""
    if not rows:
        return ["Nothing could be measured here."]
    own = dict.fromkeys(name for row in rows for name in row if name not in COMMON)
    others = sorted(own, key=lambda name: not name.startswith(TO))  # ratios stand together
    names = ["case", "way", "seconds", "ratio", *others, "peak_mb", "memory", "wanted"]
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    told = {**HEADS, "ratio": f"{TO}{yardstick}", "memory": f"of the memory of {yardstick}"}
    heads = [told.get(name, name.replace("_", " ")) for name in names]
    lines = [_line(heads), _line(["---", "---", *["--:"] * (len(names) - 2)])]
    return lines + [_line([cell(name, row) for name in names]) for row in rows]


def cell(name: str, row: Mapping[str, Any]) -> str:
    """A figure in words."""
    value = row.get(name)
    if value is None:
        return ""
    if name == "wanted":
        return f"{value}: {verdict(row)}"
    form = FORMS["ratio"] if name.startswith(TO) else FORMS.get(name, "{:.4g}")
    return form.format(value) if isinstance(value, float) else str(value)


def verdict(row: Mapping[str, Any]) -> str:
    """Whether what is wanted of a row was met, and what was found where not."""
    return "met" if row["met"] else f"not met ({row['missed']})"


def verdicts(one: Measured, device: str) -> list[str]:
    """A line for all that is wanted of each way and case on ``device``: met, not met or not measured."""
    lines = [
        f"{one.task.name}, {row['case']}, {row['way']}: {row['wanted']}: {verdict(row)}"
        for row in one.rows
        if "wanted" in row
    ]
    for row in one.absent:
        goals = one.task.goals(row["case"], row["way"], device)
        lines += [
            f"{one.task.name}, {row['case']}, {row['way']}: {goal.in_words()}: not measured ({row['why']})"
            for goal in goals
        ]
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
