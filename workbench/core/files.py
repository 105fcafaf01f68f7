"""Files that are either whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

PIECE = 1 << 20


def sync_file(path: Path) -> None:
    """Flush what a file (or a folder's list of names) holds to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Replace a file by ``text`` in one step: a reader, or a crash, finds the old text or the new one.

    ``sync`` = False leaves the flushing to the system: whole after a crash of the program, not of the
    machine.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            if sync:
                os.fsync(out.fileno())
        os.replace(draft, path)
    except OSError as error:  # a full disk does not say which file it would not take
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    if sync:
        sync_file(path.parent)


def write_json(path: Path, data: Any, sync: bool = True) -> None:
    """Replace a file by ``data`` as indented JSON, in one step. NaN and infinities are refused
    (ValueError)."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n", sync)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is no JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested past all use") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while piece := source.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
