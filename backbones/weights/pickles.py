"""Torch files without running what they hold.

torch's own reader of tensors and plain containers (``weights_only``) refuses every other object. Training checkpoints
of Lightning keep their settings as objects, though: what comes from the libraries named here is read as an empty shell,
so that the weights beside it can be had; nothing of those libraries is imported or called. All else stays refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from workbench.core.errors import WorkbenchError

SETTINGS = (
    "omegaconf", "typing", "collections", "transformers", "tokenizers", "lightning", "pytorch_lightning",
)  # fmt: skip
"""Libraries whose objects stand for settings in the checkpoints of MDLM, DUO and BD3-LM."""
PLAIN = tuple(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "int", "float", "str", "bool"))
"""Types that such settings name."""


class WeightsError(WorkbenchError):
    """A file of weights that is missing, damaged, or more than weights."""


class Shell:
    """What an object of settings is read as: it takes everything and does nothing."""

    def __new__(cls, *given: Any, **named: Any) -> Shell:
        """Whatever it was made of."""
        return object.__new__(cls)

    def __init__(self, *given: Any, **named: Any) -> None:
        """Forget it."""

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


def read_torch(file: Path) -> Any:
    """What a torch file holds: tensors, plain containers, and shells where settings were objects.

    Raises:
        WeightsError: it is damaged, unpacks to more than it is, or asks for anything else to be run; nothing was.
    """
    _require_unpacked(file)
    try:
        return _load(file, ())
    except pickle.UnpicklingError as error:
        asked = _asked(file)
        shells = [name for name in asked if name.partition(".")[0] in SETTINGS or name in PLAIN]
        if asked and len(shells) == len(asked):
            return _with_shells(file, shells)
        raise WeightsError(_more_than_weights(file, str(error), sorted(set(asked) - set(shells)))) from error


def _require_unpacked(file: Path) -> None:
    """Check that an archive is as large as what it holds, as torch writes it: others may unpack without end."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, EOFError):
        return  # no archive: an old format, or damaged, which its reader says
    inside = sum(member.file_size for member in members)
    if inside > file.stat().st_size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError(f"{file} unpacks to more than it holds, or is compressed, which torch's files never are")


def _with_shells(file: Path, shells: list[str]) -> Any:
    try:
        return _load(file, shells)
    except pickle.UnpicklingError as error:
        raise WeightsError(_more_than_weights(file, str(error), shells)) from error


def _load(file: Path, shells: Iterable[str]) -> Any:
    safe: list[Any] = [(type(name.rpartition(".")[2], (Shell,), {}), name) for name in shells]
    try:
        with torch.serialization.safe_globals(safe):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a torn archive fails in whatever part of it is read first
        reason = str(error).splitlines()[0] if str(error) else ""
        raise WeightsError(f"{file} is damaged, or no torch file: {type(error).__name__}: {reason:.200}") from error


def _asked(file: Path) -> list[str]:
    """What a file asks for besides tensors, by name; read from its opcodes."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(str(file)))
    except Exception:  # an old format, whose names its reader tells
        return []


def _more_than_weights(file: Path, message: str, asked: list[str]) -> str:
    """Why a pickle is refused, with the names of what it asks for."""
    told = re.search(r"GLOBAL ([\w.]+)", message)
    names = asked or ([told[1]] if told else [])
    what = f" (it asks for {', '.join(names[:6])})" if names else ""
    return (
        f"{file} is a pickle that holds more than tensors{what}: opening it would run what it says. Nothing of it was "
        "run. Where you trust it, open it with its own code and keep the weights alone: "
        "torch.save({name: tensor …}, 'weights.pt') or safetensors.torch.save_file; then import that file"
    )
