"""What a report says in words: its title, its summary, where its figures come from. Plain text, not yet
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.report.collect import Run
from workbench.report.tables import gain, percent

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""What no page and no terminal should be sent: control characters, halves of pairs, reversals of direction.
"""
PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "pydantic")


def visible(text: object) -> str:
    """Text in which what would act instead of being seen is the replacement character."""
    return CONTROLS.sub("\ufffd", str(text).replace("\r\n", "\n"))


def made(date: str) -> str:
    """The last sentence of every page."""
    return f"Made {date} from what the run folders hold; nothing was trained or evaluated anew."


def title(runs: Sequence[Run]) -> str:
    """One line."""
    labels = [run.label for run in runs]
    if len(labels) > 3:
        return f"{len(labels)} runs compared"
    *first, last = labels or ["No runs"]
    return f"{', '.join(first)} and {last}" if len(first) > 1 else " beside ".join([*first, last])


def summary(runs: Sequence[Run]) -> str:
    """One paragraph: what was measured on what, and the main figure of each run."""
    if not runs:
        return "There is nothing to report on."
    sentences = [text for text in (_measured_on(runs), *(_figure(run) for run in runs)) if text]
    waiting = [run.label for run in runs if run.results is None]
    if waiting:
        sentences.append(f"Not evaluated yet: {', '.join(waiting)}.")
    return " ".join(sentences)


def _measured_on(runs: Sequence[Run]) -> str:
    protocols = set()
    for run in runs:
        value = run.results and run.results.value("bits_per_byte")
        if value and value.extra.get("blocks"):
            blocks, tokens = int(value.extra["blocks"]), int(value.extra["tokens"])
            protocols.add((blocks, tokens // max(1, blocks), int(value.extra.get("bytes", 0))))
    if len(protocols) != 1:
        return "The runs were evaluated on different held-out blocks." if protocols else ""
    ((blocks, length, size),) = protocols
    return f"Evaluated on {blocks:,} held-out blocks of {length:,} tokens ({size:,} bytes)."


def _figure(run: Run) -> str:
    value = run.results and run.results.value("bits_per_byte")
    if not value or value.value is None:
        return ""
    bound = value.relation == "≤"
    error = f" ± {value.se:.3f}" if value.se is not None else ""
    text = f"{run.label} reaches {'at most ' if bound else ''}{value.value:.3f}{error} bits per byte"
    share = gain(run)
    if share is not None and share.value is not None:
        side = "below" if share.value >= 0 else "above"
        text += f", {'at least ' if bound and share.value >= 0 else ''}{percent(abs(share.value))} {side} its unigram"
    return text + "."


def provenance(run: Run) -> list[tuple[str, str]]:
    """Where a run's figures come from: (what, text)."""
    git = _mapping(run.env.get("git"))
    commit = str(git.get("commit") or "")
    versions = _mapping(run.env.get("packages"))
    known = _mapping(run.results.provenance) if run.results else {}
    machine = [str(run.env[key]) for key in ("cpu", "platform") if run.env.get(key)]
    threads = run.env.get("threads")
    facts = [
        ("folder", str(run.path)),
        ("recipe", run.hash),
        ("status", run.state),
        ("seed", str(run.settings.get("seed", ""))),
        ("commit", commit + (" with uncommitted changes" if commit and git.get("dirty") else "")),
        ("packages", ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions)),
        ("machine", ", ".join([*machine, *([f"{threads} threads"] if threads else [])])),
        ("trained", str(run.env.get("time", ""))),
        ("evaluation", ", ".join(f"{key} {value}" for key, value in known.items() if _plain(value))),
    ]
    return [(name, text) for name, text in facts if text] + [("remark", text) for text in run.remarks]


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
