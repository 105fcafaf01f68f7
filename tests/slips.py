"""The gallery of errors, kept true: each ``$`` line of its text blocks is typed again.

``python -m tests.slips`` writes what the commands say now into docs/errors.md; tests compare.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from tests.documents import ROOT, write_files
from tests.walk import clone

GALLERY = ROOT / "docs" / "errors.md"
ANSWERED = re.compile(r"^```text\n((?:(?!```).*\n)*)```$", re.MULTILINE)
WIDE = re.compile(r"^ *─+ *$")


def answer(command: str, folder: Path) -> str:
    """What a command prints in a folder, long lists cut, the folder's own path left out."""
    from workbench.cli.main import main
    from workbench.core.plugins import isolated

    before, out = os.getcwd(), io.StringIO()
    os.chdir(folder)
    try:
        with isolated(), redirect_stdout(out), redirect_stderr(out), suppress(SystemExit):  # argparse ends so
            main(shlex.split(command)[1:])
    finally:
        os.chdir(before)
    lines = [line.rstrip() for line in out.getvalue().replace(f"{folder}/", "").splitlines()]
    return cut("\n".join(line for line in lines if line and not WIDE.match(line)))


def cut(text: str) -> str:
    """Lists of what is known grow with every part, and hashes move with recipes: they are left out."""
    text = re.sub(r"\b(Known|What would fit|Graphs that fit): [^.\n]*\.", r"\1: …", text)
    text = re.sub(r"(: one of )[^)\n]*\)", r"\1…)", text)
    return re.sub(r"\b[0-9a-f]{16}\b", "…", text)


def answered(document: str, folder: Path) -> str:
    """The document with the answers that its commands give now."""

    def block(found: re.Match[str]) -> str:
        commands = [line for line in found[1].splitlines() if line.startswith("$ ")]
        said = [f"{line}\n{answer(line[2:], folder)}\n" for line in commands]
        return f"```text\n{''.join(said)}```"

    return ANSWERED.sub(block, document)


def gallery(folder: Path) -> str:
    """The gallery as it must be now."""
    clone(folder)
    write_files(GALLERY, folder)
    return answered(GALLERY.read_text(encoding="utf-8"), folder.resolve())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        text = gallery(Path(place) / "clone")
    GALLERY.write_text(text, encoding="utf-8")
