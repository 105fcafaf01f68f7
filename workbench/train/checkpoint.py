"""Checkpoints: a folder per step, whole or absent, with one file per role and nothing pickled.

``step-00001000/{model,ema,optimizer,process}.safetensors`` (those that there is something to keep in) hold tensors by
name, ``state.json`` the numbers and the SHA-256 of each file. Processes that hold rows of tensors write those, each in
a file of its own (``model.0-of-2.safetensors``); any number of processes may read them, each the rows that it needs.
A checkpoint is written under another name, flushed, then renamed; reading checks every hash and falls back to the
newest checkpoint that is whole, setting a damaged one aside as ``*.damaged``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from workbench.core.files import read_json, sha256, sync_file, write_json
from workbench.train import pieces
from workbench.train.parallel import Parallel
from workbench.train.stored import STATE, Checkpoint, Unreadable, digest, list_steps, read
from workbench.train.weights import CheckpointError, copy_into

SCHEMA = 1
BEST = "best.json"
DRAFT = ".draft-"
HASHES = "hashes-"


class Checkpoints:
    """The checkpoints of one run. One writer, or the processes of one training; any number of readers."""

    def __init__(self, folder: Path, digest: str, keep: int = 2, parallel: Parallel | None = None) -> None:
        """``digest``: the recipe's hash, which every checkpoint carries; ``keep``: how many of the last stay.

        ``parallel``: this process among those that save and load together.
        """
        self.folder, self.digest, self.keep = folder, digest, keep
        self.parallel = parallel or Parallel()
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

        Every process calls it: each writes the rows that it holds, the first one all else.

        Raises:
            CheckpointError: the disk will not take it; the checkpoints before it stay.
        """
        draft, final = self.folder / f"{DRAFT}{step:08d}", self.path(step)
        try:
            with self._together("begun"):
                if self.parallel.lead:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self.clean()
                    draft.mkdir()
            with self._together("written"):
                hashes = self._fill(draft, roles)
            if self.parallel.lead:
                self._close(draft, step, state, hashes)
                if final.exists():
                    set_aside(final)
                os.replace(draft, final)
                sync_file(self.folder)
        except (OSError, SafetensorError) as error:
            if self.parallel.lead:
                shutil.rmtree(draft, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({error}); those before it are "
                "whole: make room, and the same command goes on from the last of them"
            ) from error
        if self.parallel.lead:
            self.prune(best)
        return final

    @contextlib.contextmanager
    def _together(self, what: str) -> Iterator[None]:
        """A stage of saving that ends when all processes have done it, and fails in all where it fails in one."""
        error: Exception | None = None
        try:
            yield
        except (OSError, SafetensorError) as failed:
            error = failed
        failures = self.parallel.any(int(error is not None))
        if error is not None:
            raise error
        if failures:
            raise OSError(f"it could not be {what} by another process")

    def _fill(self, draft: Path, roles: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
        """Write this process's files, each of them down to the disk; their hashes, which others than the first one
        leave beside them."""
        hashes = {}
        for role, tensors in roles.items():
            for name, content in pieces.files(role, tensors, self.parallel.rank, self.parallel.world):
                file = draft / name
                pieces.write(file, content)
                file.chmod(draft.stat().st_mode & 0o666)  # as the user's umask has it: safetensors writes 0600
                sync_file(file)
                hashes[name] = sha256(file)
        if hashes and not self.parallel.lead:
            write_json(draft / f"{HASHES}{self.parallel.rank}.json", hashes)
        return hashes

    def _close(self, draft: Path, step: int, state: Mapping[str, Any], files: dict[str, str]) -> None:
        """Write the numbers, and the hashes of all processes' files (``files``: the first one's)."""
        for part in sorted(draft.glob(f"{HASHES}*")):
            files |= read_json(part)
            part.unlink()
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

    def load_last(
        self, roles: Sequence[str] = ("model", "ema", "optimizer", "process"), cut: pieces.Cut = pieces.every_row
    ) -> Checkpoint | None:
        """The newest whole checkpoint, the rows of ``cut`` alone; None where there is none.

        Damaged ones are renamed to ``*.damaged`` and named in ``self.damaged`` with the reason. Every process calls it:
        the first one checks all, and the others take what it has left.

        Raises:
            CheckpointError: it is of another recipe, or there are checkpoints but every one is damaged.
            Unreadable: it cannot be read now; it stays where it is.
        """
        if self.parallel.lead:
            self.clean()
        else:
            self.parallel.wait()
        steps = self.steps()
        try:
            return self._load_last(steps, roles, cut)
        finally:
            if self.parallel.lead:
                self.parallel.wait()

    def _load_last(self, steps: Sequence[int], roles: Sequence[str], cut: pieces.Cut) -> Checkpoint | None:
        for step in reversed(steps):
            try:
                found = read(self.path(step), roles, cut, check=self.parallel.lead)
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
        except (OSError, ValueError, KeyError, TypeError) as error:
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
    if not problems and (kept := sorted(list_steps(folder))):
        steps_kept = ", ".join(map(str, kept))
        raise CheckpointError(f"{folder} has no checkpoint {which!r}; it keeps those of steps {steps_kept}")
    reason = "".join(f"\n  {problem}" for problem in problems) or f" ({which!r} was asked for)"
    raise CheckpointError(f"no usable checkpoint in {folder}{reason}\ntrain the run, or train it again in a new folder")


def weights_digest(folder: Path, step: int | None = None) -> str:
    """SHA-256 of the weights that `load_weights` takes from a run's ``ckpt`` (as written down, not hashed anew).

    ``step``: the last one's where left out.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    steps = [step] if step is not None else sorted(list_steps(folder))
    try:
        files = read_json(folder / f"step-{steps[-1]:08d}" / STATE)["files"]
        names = pieces.file_names("ema", files) or pieces.file_names("model", files)
        found = [str(files[name]) for name in sorted(names)]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise CheckpointError(f"{folder} holds no checkpoint that tells its weights' hash: {error}") from error


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint so that it is kept but never read."""
    for number in range(1000):
        aside = folder.with_name(f"{folder.name}{f'.{number}' if number else ''}.damaged")
        if not aside.exists():
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, aside)
            return aside
    raise CheckpointError(f"too many damaged copies of {folder}; remove some")
