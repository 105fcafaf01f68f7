"""A checkpoint that is read: verified file by file, told apart from one that the machine will not read now."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from workbench.core.files import read_json, sha256
from workbench.train import pieces
from workbench.train.weights import CheckpointError

STATE = "state.json"
FOLDER = re.compile(r"step-(\d+)")


class Unreadable(CheckpointError):
    """The machine will not read a checkpoint now (rights, open files): that says nothing about what it holds."""


DAMAGE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What the system says of a checkpoint that has lost a file, beside an error of the disk itself."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole, verified checkpoint: its folder, its numbers, its tensors by role and name (on the CPU).

    ``passed``: what was wrong with later ones that were passed over for it.
    """

    path: Path
    state: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]
    passed: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.state["step"])


def list_steps(folder: Path) -> Iterable[int]:
    """Steps of the checkpoint folders in ``folder``."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if match := FOLDER.fullmatch(entry.name):
                yield int(match.group(1))


def read(
    folder: Path, roles: Sequence[str], cut: pieces.Cut = pieces.every_row, check: bool = True
) -> Checkpoint:
    """One checkpoint's numbers and the tensors of ``roles`` (those it has; of them the rows of ``cut``).

    Every file is checked by its hash, unless another process does (``check``).

    Raises:
        CheckpointError: a file is missing, torn or altered.
        Unreadable: the machine will not read it now.
    """
    try:
        state = read_json(folder / STATE)
        written = state.pop("digest")
        if written != digest(state):
            raise CheckpointError(f"{folder / STATE} does not match its own hash")
        if f"step-{state['step']:08d}" != folder.name:
            raise CheckpointError(f"{folder / STATE} is of step {state['step']}, not of this one")
        tensors = {}
        for role in roles:
            names = pieces.file_names(role, state["files"])
            for name in names if check else ():
                if sha256(folder / name) != state["files"][name]:
                    raise CheckpointError(f"{folder / name} does not match its hash")
            if names:
                tensors[role] = pieces.read([folder / name for name in names], cut)
        if "model" in roles and "model" not in tensors:
            raise CheckpointError(f"{folder} holds no weights")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        if isinstance(error, OSError) and not isinstance(error, DAMAGE) and error.errno != errno.EIO:
            raise Unreadable(
                f"{folder} cannot be read ({error}); nothing is wrong with it as far as one can tell: see to its "
                "rights, or to what else the machine is short of, and repeat the command"
            ) from error
        raise CheckpointError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    return Checkpoint(folder, state, tensors)


@contextlib.contextmanager
def taking_up(found: Checkpoint) -> Iterator[None]:
    """Code that reads a checkpoint's numbers: those that no trainer writes, though their hash is right, are told.

    Raises:
        CheckpointError: in place of what went wrong with them.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"{found.path} holds what no training writes ({type(error).__name__}: {error}); remove that folder, and "
            "training goes on from the checkpoint before it"
        ) from error


def digest(content: Mapping[str, Any]) -> str:
    """The hash of a state's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
