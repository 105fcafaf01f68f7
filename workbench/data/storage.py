"""The cache: where it lies, what addresses are made of, and a lock that dies with its owner."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.core import files
from workbench.core.errors import WorkbenchError

CACHE = "WORKBENCH_CACHE"
"""Environment variable that moves the cache of tokenizers and packed tokens."""


class DataError(WorkbenchError):
    """Text, a tokenizer or packed tokens that cannot be used as they are: says where and what to do."""


def cache_folder(given: str | Path | None = None) -> Path:
    """Where packed tokens are kept: ``given``, else $WORKBENCH_CACHE, else ``cache/`` here (beside
    ``runs/``)."""
    return Path(given or os.environ.get(CACHE) or "cache").expanduser()


def fingerprint(data: Mapping[str, Any]) -> str:
    """32 hex digits that stand for plain data, whatever the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        DataError: it is not JSON; the message names the file.
    """
    try:
        return files.read_json(path)
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it, it will be made again") from error


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[str], None] | None = None, poll: float = 0.2) -> Iterator[None]:
    """Hold ``folder`` for one writer; wait while another lives.

    The lock is the kernel's (``flock`` on ``folder/lock``), so a killed owner's lock is free at once and two
    takers of a stale lock cannot both win. The file's text only says who holds it (pid, host) and is what
    ``waiting(owner)`` is told while we wait.

    Raises:
        DataError: the file system has no locks, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be written ({error}); set {CACHE} to another folder") from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting is not None:
                    waiting(os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process")
                time.sleep(poll)
            except OSError as error:
                raise DataError(
                    f"the file system of {folder} has no locks ({error}); set {CACHE} to a folder on a local disk"
                ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
