"""Walk through a document as its reader would: write its files, run its commands in order, say how long each took.

``python -m tests.walk docs/tutorial.md`` does it at full size in a fresh folder and prints a table of seconds; tests do
it with tiny recipes in place of the quickstart's, in one process.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml

from tests.documents import ROOT, split, typed, workbench_words

LINKED = ("docs", "tests", "workbench", "backbones", "graphs", "samplers", "setup.py", "pyproject.toml", "README.md")
NOT_RUN = ("make", ".", "source", "tensorboard", "python")
"""What a walk leaves to its reader: the installation, what does not end by itself, other programs."""
TINY = {
    "quickstart/sedd.yaml": {"backbone": {"dim": 16, "depth": 1, "heads": 2, "cond_dim": 8, "neighbours": 1}},
    "quickstart/gpt2.yaml": {"backbone": {"dim": 16, "depth": 1, "heads": 2}},
}
"""Recipes that a test makes tiny, and how."""
TINY_TRAIN = {"steps": 4, "batch": 4, "log_every": 2, "threads": 1, "device": "cpu", "precision": "fp32"}
TINY_FINAL = {"blocks": 4, "draws": 1, "samples": 4, "batch": 4}

Run = Callable[[list[str], Path], tuple[int, str]]


@dataclass(frozen=True)
class Step:
    """One command of a document: its line, its words as typed, exit status (None: not run), output, seconds."""

    line: int
    words: str
    status: int | None
    output: str
    seconds: float


def walk(document: Path, folder: Path, run: Run, changes: Mapping[str, str] = MappingProxyType({})) -> Iterator[Step]:
    """The document's commands, each run in ``folder`` when the one before it is done; a Python block counts as one.

    Files that the document shows are written where they are shown, not before; ``changes``: words replaced in them.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for block in split(document)[0]:
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            text = block.text
            for before, after in changes.items():
                text = text.replace(before, after)
            (folder / block.title).write_text(text)
            continue
        if block.language == "python":
            began = time.monotonic()
            exec(compile("\n" * (block.line - 1) + block.text, str(document), "exec"), names)
            yield Step(block.line, "(Python)", 0, "", time.monotonic() - began)
        for line, words in typed(block):
            asked, began = workbench_words(words), time.monotonic()
            if asked is None:
                assert words[0] in NOT_RUN, f"{document.name}:{line}: a walk does not know {words[0]}"
                yield Step(line, " ".join(words), None, "", 0.0)
                continue
            status, output = run(_spread(asked, folder), folder)
            yield Step(line, " ".join(words), status, output, time.monotonic() - began)


def in_this_process(words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command of the workbench here, as its entry point does; (exit status, standard output)."""
    from workbench.cli.main import main

    before, out = os.getcwd(), io.StringIO()
    os.chdir(folder)
    try:
        with redirect_stdout(out):
            status = main(words)
    finally:
        os.chdir(before)
    return status, out.getvalue()


def in_its_own(words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command of the workbench as a reader does; its output is shown as it comes."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "workbench", *words], cwd=folder, env=env, check=False).returncode, ""


def clone(folder: Path) -> Path:
    """A folder that looks like a fresh clone and may be written into."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*LINKED, "recipes"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def tiny_clone(folder: Path, corpus: str) -> Path:
    """The same with recipes whose quickstart takes a second; ``corpus``: a file of paragraphs."""
    clone(folder)
    (folder / "recipes").unlink()
    for file in (ROOT / "recipes").rglob("*.yaml"):
        there = folder / "recipes" / file.relative_to(ROOT / "recipes")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(file.read_bytes())
    for name, changes in TINY.items():
        there = folder / "recipes" / name
        whole = there.with_name(f"whole-{there.name}")
        there.rename(whole)
        small = {
            "extends": whole.name,
            "data": {
                "corpus": {"type": "text", "paths": [corpus], "separator": "\n\n"},
                "tokenizer": "bytes",
                "length": 32,
            },
            "train": TINY_TRAIN,
            "evaluations": {"valid": None, "final": TINY_FINAL},
            **changes,
        }
        there.write_text(yaml.safe_dump(small))
    return folder


def _spread(words: list[str], folder: Path) -> list[str]:
    """Patterns of files as a shell spreads them."""
    found = []
    for word in words:
        hits = sorted(glob.glob(word, root_dir=folder)) if "*" in word and "=" not in word else []
        found += hits or [word]
    return found


def main() -> int:
    """Walk at full size; a table of what each step took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("document", type=Path)
    parser.add_argument("--folder", type=Path, help="where (default: a new folder, which is kept)")
    args = parser.parse_args()
    folder = clone(args.folder or Path(tempfile.mkdtemp(prefix="walk-")))
    print(f"in {folder}\n")
    steps = []
    for step in walk(args.document.resolve(), folder, in_its_own):
        steps.append(step)
        if step.status:
            print(f"{args.document}:{step.line}: {step.words}: exit status {step.status}", file=sys.stderr)
            break
    cores = len(os.sched_getaffinity(0))
    print(f"\n{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, {cores} cores\n")
    print("| line | step | seconds |\n|--:|---|--:|")
    for step in steps:
        print(f"| {step.line} | `{step.words}` | {'not run' if step.status is None else f'{step.seconds:.0f}'} |")
    print(f"| | *together* | {sum(step.seconds for step in steps):.0f} |")
    return steps[-1].status or 0 if steps else 1


if __name__ == "__main__":
    sys.exit(main())
