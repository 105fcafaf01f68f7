"""What was measured as a record (JSON) and a page (Markdown)."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from workbench import __version__
from workbench.bench.base import COMMON, Meter
from workbench.bench.run import Measured
from workbench.environment import source_state

FORMS = {
    "seconds": "{:.4g}", "ratio": "{:.2f}×", "memory": "{:.2f}", "peak_mb": "{:,.0f}", "tokens_per_second": "{:,.0f}",
}  # fmt: skip
HEADS = {
    "peak_mb": "peak MB", "memory": "of its memory", "tokens_per_second": "tokens/s",
    "text_mb_per_second": "MB of text/s",
}  # fmt: skip


def record(measured: Sequence[Measured], meter: Meter, rounds: int, command: str) -> dict[str, Any]:
    """All that was measured, with the conditions that it depends on: date, machine, versions, settings, command."""
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
        "benchmarks": {
            one.task.name: {
                "settings": one.task.data,
                "yardstick": one.task.made.yardstick,
                "rows": one.rows,
                "absent": one.absent,
                "notes": list(one.task.made.notes(one.rows)) if one.rows else [],
            }
            for one in measured
        },
    }


def markdown(record: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """A page: conditions, then a table a benchmark."""
    lines = [
        "# Benchmarks",
        "",
        f"{record['date']}, {record['machine']}, {record['threads']} threads, torch {record['torch']}, "
        f"{record['precision']} where the machine chooses; medians of {record['rounds']} rounds, each way and case in "
        f"a process of its own, in turn. Command: `{record['command']}`.",
    ]
    for one in measured:
        lines += ["", f"## {one.task.name}", *prose(one), "", *grid(one.rows, one.task.made.yardstick)]
        if notes := record["benchmarks"][one.task.name]["notes"]:
            lines += ["", *notes]
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
    names = ["case", "way", "seconds", "ratio", *own, "peak_mb", "memory", "wanted"]
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    heads = [HEADS.get(name, f"to {yardstick}" if name == "ratio" else name.replace("_", " ")) for name in names]
    lines = [_line(heads), _line(["---", "---", *["--:"] * (len(names) - 2)])]
    return lines + [_line([cell(name, row) for name in names]) for row in rows]


def cell(name: str, row: Mapping[str, Any]) -> str:
    """A figure in words."""
    value = row.get(name)
    if value is None:
        return ""
    if name == "wanted":
        return f"{value}{': met' if row['met'] else ': not met'}"
    return FORMS.get(name, "{:.4g}").format(value) if isinstance(value, float) else str(value)


def keep(record: Mapping[str, Any], page: str, measured: Sequence[Measured], folder: Path) -> list[Path]:
    """Write the record, the page and the figures of benchmarks that draw some; what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"bench-{record['device']}" if len(measured) != 1 else f"{measured[0].task.name}-{record['device']}"
    data, text = folder / f"{stem}.json", folder / f"{stem}.md"
    data.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text.write_text(page, encoding="utf-8")
    before = set(folder.iterdir())
    for one in measured:
        if one.rows:
            one.task.made.draw(one.rows, folder, f"{one.task.name}-{record['device']}")
    return [data, text, *sorted(set(folder.iterdir()) - before)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
