"""Checkpoints: a folder per step, whole or absent, with one file per role and nothing pickled.

``step-00001000/{model,ema,optimizer,process}.safetensors`` (those that there is something to keep in) hold tensors by
name, ``state.json`` the numbers and the SHA-256 of each file. A checkpoint is written under another name, flushed, then
renamed; reading checks every hash and falls back to the newest checkpoint that is whole, setting a damaged one aside as
``*.damaged``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, sha256, sync_file, write_json
from workbench.processes.base import named_weights

SCHEMA = 1
STATE = "state.json"
BEST = "best.json"
DRAFT = ".draft-"
FOLDER = re.compile(r"step-(\d+)")


class CheckpointError(WorkbenchError):
    """A checkpoint that is missing, damaged, or of another recipe or network."""


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


class Checkpoints:
    """The checkpoints of one run. One writer; any number of readers."""

    def __init__(self, folder: Path, digest: str, keep: int = 2) -> None:
        """``digest``: the recipe's hash, which every checkpoint carries; ``keep``: how many of the last stay."""
        self.folder, self.digest, self.keep = folder, digest, keep
        self.damaged: list[str] = []

    def steps(self) -> list[int]:
        """Steps at which a checkpoint stands, ascending (not yet verified)."""
        return sorted(list_steps(self.folder))

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(
        self, step: int, roles: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], best: int = -1
    ) -> Path:
        """Write a checkpoint in one step, then drop those no longer kept (``best`` is a step that is).

        Raises:
            CheckpointError: the disk will not take it; the checkpoints before it stay.
        """
        draft = self.folder / f"{DRAFT}{step:08d}-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.clean()
            draft.mkdir()
            self._fill(draft, step, roles, state)
            final = self.path(step)
            if final.exists():
                set_aside(final)
            os.replace(draft, final)
            sync_file(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({error}); those before it are "
                "whole: make room, and the same command goes on from the last of them"
            ) from error
        self.prune(best)
        return final

    def _fill(
        self, draft: Path, step: int, roles: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint's files, each of them down to the disk."""
        files = {}
        for role, tensors in roles.items():
            file = draft / f"{role}.safetensors"
            save_file({name: t.detach().contiguous() for name, t in tensors.items()}, file)
            file.chmod(draft.stat().st_mode & 0o666)  # as the user's umask has it: safetensors writes 0600
            sync_file(file)
            files[file.name] = sha256(file)
        content = {"schema": SCHEMA, "step": step, "hash": self.digest, "files": files, **state}
        write_json(draft / STATE, {**content, "digest": digest(content)})
        sync_file(draft)

    def mark_best(self, best: Mapping[str, Any]) -> None:
        """Tell readers which checkpoint is best: ``{"figure": …, "value": …, "step": …}``."""
        write_json(self.folder / BEST, dict(best))

    def prune(self, best: int) -> None:
        """Drop all but the last ``keep`` and the step ``best``."""
        steps = self.steps()
        spared = {*steps[-self.keep :], best}
        for step in steps:
            if step not in spared:
                # Renamed first: a half-deleted folder must not look like a checkpoint.
                doomed = self.folder / f"{DRAFT}old-{step:08d}"
                os.replace(self.path(step), doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed writer left half-written."""
        for draft in self.folder.glob(f"{DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def load_last(self, roles: Sequence[str] = ("model", "ema", "optimizer", "process")) -> Checkpoint | None:
        """The newest whole checkpoint, or None where there is none.

        Damaged ones are renamed to ``*.damaged`` and named in ``self.damaged`` with the reason.

        Raises:
            CheckpointError: it is of another recipe, or there are checkpoints but every one is damaged.
            Unreadable: it cannot be read now; it stays where it is.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                found = read(self.path(step), roles)
            except Unreadable:
                raise
            except CheckpointError as error:
                aside = set_aside(self.path(step))
                self.damaged.append(f"{error}; set aside as {aside.name}")
                continue
            if (theirs := found.state.get("hash")) != self.digest:
                raise CheckpointError(
                    f"{found.path} is of another recipe (hash {theirs!r:.40}, here {self.digest}); "
                    "train in another run folder, or undo the change of the recipe"
                )
            return found
        if steps:
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged:\n  "
                + "\n  ".join(self.damaged)
                + "\nto start again from the first step, remove that folder"
            )
        return None


def list_steps(folder: Path) -> Iterable[int]:
    """Steps of the checkpoint folders in ``folder``."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if match := FOLDER.fullmatch(entry.name):
                yield int(match.group(1))


def read(folder: Path, roles: Sequence[str]) -> Checkpoint:
    """One checkpoint's numbers and the tensors of ``roles`` (those it has), every file checked by its hash.

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
            file = folder / f"{role}.safetensors"
            if file.name not in state["files"]:
                continue
            if sha256(file) != state["files"][file.name]:
                raise CheckpointError(f"{file} does not match its hash")
            # A copy: what load_file gives may still be a window on the file.
            tensors[role] = {name: t.clone() for name, t in load_file(file).items()}
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


def load_weights(net: nn.Module, folder: Path, ema: bool = True, which: str = "last") -> Checkpoint:
    """Put a run's trained weights into ``net``: the averaged ones where there are any and ``ema`` is true.

    ``folder``: the run's ``ckpt``. ``which``: "last", "best" (by the figure that ``train.best`` names) or a step.
    For readers: nothing is renamed; where the last one is damaged, the one before it counts.

    Raises:
        CheckpointError: none is whole, there is no such one, or it is of another network.
    """
    steps = sorted(list_steps(folder), reverse=True)
    if which == "best":
        try:
            steps = [int(read_json(folder / BEST)["step"])]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder} names no best checkpoint; set train.best, or take the last one") from error
    elif which != "last":
        steps = [step for step in steps if str(step) == which]
    problems = []
    for step in steps:
        try:
            found = read(folder / f"step-{step:08d}", ("model", "ema"))
        except Unreadable:
            raise
        except CheckpointError as error:
            problems.append(str(error))
            continue
        copy_into(net, {**found.tensors["model"], **(found.tensors.get("ema", {}) if ema else {})})
        return replace(found, passed=tuple(problems))
    reason = "".join(f"\n  {problem}" for problem in problems) or f" ({which!r} was asked for)"
    raise CheckpointError(f"no usable checkpoint in {folder}{reason}\ntrain the run, or train it again in a new folder")


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


@torch.no_grad()
def copy_into(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a network in place.

    Raises:
        CheckpointError: names or shapes are not this network's.
    """
    own = named_weights(net)
    for name in sorted(own.keys() ^ tensors.keys()):
        where = "the checkpoint" if name in own else "the network"
        raise CheckpointError(f"{name} is not in {where}: the checkpoint is of another network")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{name} has shape {tuple(tensors[name].shape)} in the checkpoint, {tuple(tensor.shape)} in the network"
            )
        tensor.copy_(tensors[name])


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint so that it is kept but never read."""
    for number in range(1000):
        aside = folder.with_name(f"{folder.name}{f'.{number}' if number else ''}.damaged")
        if not aside.exists():
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, aside)
            return aside
    raise CheckpointError(f"too many damaged copies of {folder}; remove some")


def digest(content: Mapping[str, Any]) -> str:
    """The hash of a state's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all floating-point tensors are finite."""
    floating = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    if not floating:
        return True
    # The largest magnitude carries NaN and infinity along, and cannot overflow as a sum of squares can.
    return bool(torch.stack([n.float() for n in torch._foreach_norm(floating, float("inf"))]).isfinite().all())
