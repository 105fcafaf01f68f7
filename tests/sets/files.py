"""Small made-up files of evaluation sets, and where the real ones lie for those who have them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("WORKBENCH_EVAL_DATA", Path(__file__).parents[2] / "shared/data"))
"""Real files of evaluation sets; never part of the repository."""
WIKI = [
    " ", " = First Thing = ", " ", " A line , with a @-@ sign and 1 @,@ 000 words . ", " ", " = = A section = = ", " ",
    " Another line of the first . ", " ", " = Second Thing = ", " ", " Its only line . ", " ",
]  # fmt: skip
PASSAGES = ["“Who is there?” he said.\n\nNobody spoke.", "It was late, and the lamp was out.", "She read on."]


def real(name: str) -> Path:
    """A real file, or the test is skipped."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"needs {path} (WORKBENCH_EVAL_DATA names the folder)")
    return path


def wiki(folder: Path, name: str = "wiki.test.raw") -> Path:
    """Thirteen lines of two articles."""
    path = folder / name
    path.write_text("\n".join(WIKI) + "\n")
    return path


def passages(folder: Path, name: str = "lambada_test.jsonl") -> Path:
    """Three passages as lines of JSON."""
    path = folder / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    return path
