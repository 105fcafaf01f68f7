"""Markdown as tests read it: fenced blocks, command lines, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(```+|~~~+) *(\w*)(.*)")
TITLE = re.compile(r'\btitle="([^"]+)"')
LINK = re.compile(r"\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, the line (from 1) on which its text begins, the file that it is, if any."""

    language: str
    text: str
    line: int
    title: str = ""


def documents() -> list[Path]:
    """The README (where there is one), its neighbours and all of docs/."""
    beside = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [path for path in beside if path.is_file()] + sorted((ROOT / "docs").rglob("*.md"))


def split(path: Path) -> tuple[list[Block], str]:
    """A document's fenced blocks, and its prose without them.

    Raises:
        ValueError: a block is never closed.
    """
    blocks, prose = [], []
    open_by, language, title, lines, start = "", "", "", [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line.lstrip())
        if not open_by and fence:
            named = TITLE.search(fence[3])
            open_by, language, title, lines, start = fence[1], fence[2], named[1] if named else "", [], number + 1
        elif open_by and line.strip() == open_by:
            blocks.append(Block(language, "\n".join(lines) + "\n", start, title))
            open_by = ""
        elif open_by:
            lines.append(line)
        else:
            prose.append(line)
    if open_by:
        raise ValueError(f"{path}:{start - 1}: this block is never closed")
    return blocks, "\n".join(prose)


def commands(path: Path) -> list[tuple[int, list[str]]]:
    """(line, words) of every command in a document's bash blocks: comments, prompts and environment left out."""
    return [found for block in split(path)[0] for found in typed(block)]


def typed(block: Block) -> list[tuple[int, list[str]]]:
    """(line, words) of every command of a block; none where it is no shell's."""
    found = []
    if block.language not in ("bash", "sh", "shell", "console"):
        return found
    lines = block.text.replace("\\\n", "  ").splitlines()
    for offset, line in enumerate(lines):
        for part in re.split(r" (?:&&|\|\||\|) |;\s", line.strip().removeprefix("$ ")):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words:
                found.append((block.line + offset, words))
    return found


def write_files(path: Path, folder: Path) -> list[Path]:
    """Write the files that a document shows (blocks with a title) into a folder; what was written."""
    written = []
    for block in split(path)[0]:
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)
            written.append(folder / block.title)
    return written


def workbench_words(words: list[str]) -> list[str] | None:
    """What stands behind ``workbench`` (or ``python -m workbench``, also under torchrun); None for others."""
    names = [Path(word).name for word in words]
    if names[0] == "workbench":
        return words[1:]
    if names[0] in ("python", "python3", "torchrun") and "-m" in words and words[words.index("-m") + 1] == "workbench":
        return words[words.index("-m") + 2 :]
    return None


def headings(path: Path) -> list[tuple[int, str]]:
    """(level, text) of every heading."""
    found = re.findall(r"^(#{1,6}) +(.+?) *$", split(path)[1], re.MULTILINE)
    return [(len(marks), text) for marks, text in found]


def anchor(heading: str) -> str:
    """A heading's anchor, as code hosts and the site make it alike: letters, digits and hyphens."""
    kept = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading).lower())
    return re.sub(r"[\s-]+", "-", kept).strip("-")
