"""A run made again from its folder alone, and its figures held against those that the folder keeps.

What is used of the folder: the resolved recipe and the copies of plug-ins. Three things are compared: the weights (bit
by bit), the samples (text by text), and each figure. Times are of the machine and are shown without a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from workbench import experiment
from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, write_json
from workbench.core.loading import Resolved
from workbench.data.base import Progress
from workbench.environment import computes, environment
from workbench.evaluate import Tell, silent
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.opening import reopen
from workbench.publish.importing import SOURCE
from workbench.run import RunFolder, status_line
from workbench.run_text import DATA
from workbench.start import NOTE, parent_run
from workbench.train.checkpoint import STATE, list_steps

EXACTLY, WITHIN, NOT, TIMED = "exactly", "within intervals", "not", "time"
"""How a figure agrees with the one before; a time is no figure of the run but of the machine."""
FOUND = "reproduced.json"
FACTS = ("python", "platform", "cpu", "cores", "threads", "torch", "cuda", "devices")
"""What of the environment is compared fact by fact; packages and the source are compared apart."""


@dataclass(frozen=True)
class Agreement:
    """A figure before and now. ``gap``: now less before; None where one of them has no value."""

    name: str
    before: float | None
    now: float | None
    gap: float | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    ``weights`` and ``samples``: a sentence each ("" where there is nothing to compare); ``changed``: what differs in
    the environment, a sentence each; ``other_packages``: packages of other versions on which no figure depends, a
    sentence each; ``folder``: the new run, None where it was only measured anew.
    """

    run: Path
    folder: Path | None
    figures: tuple[Agreement, ...]
    weights: str
    samples: str
    changed: tuple[str, ...]
    other_packages: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether no figure disagrees."""
        return all(one.verdict != NOT for one in self.figures)

    @property
    def exact(self) -> bool:
        """Whether every figure that is no time is the same number."""
        return all(one.verdict in (EXACTLY, TIMED) for one in self.figures)

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        paths = {"run": str(self.run), "folder": str(self.folder) if self.folder else None}
        return asdict(self) | paths | {"agrees": self.agrees, "exact": self.exact}


def reproduce(
    path: Path | str,
    root: Path | str,
    cache: Path | str | None = None,
    measure_only: bool = False,
    packing: Progress | None = None,
    tell: Tell = silent,
) -> Reproduction:
    """Train and measure a run again under ``root``, or only measure it again, and compare.

    Begun before under the same ``root``, it goes on from there.

    Raises:
        WorkbenchError: the run keeps no figures, is not trained to its end, was not trained here (imported weights), or
            its recipe means something else in this version.
    """
    run, resolved = reopen(path)
    kept = _kept(run)
    if measure_only:
        now, folder = experiment.examine(run, resolved, cache, tell, packing), None
    else:
        folder = _again(run, resolved, Path(root), cache, packing, tell)
        now = _kept(folder)
    before, here = _json(run.env), environment()
    made = Reproduction(
        run=run.path,
        folder=folder.path if folder is not None else None,
        figures=tuple(compared(kept, now)),
        weights=_weights(run, folder) if folder is not None else "",
        samples=_samples(kept.samples, now.samples),
        changed=(*changes(before, here), *_text_changes(run, kept, now)),
        other_packages=tuple(_packages(before, here, computing=False)),
    )
    if folder is not None:
        write_json(folder.path / FOUND, made.as_data())
    return made


def compared(before: Results, now: Results) -> Iterator[Agreement]:
    """Figure by figure: the same number; else within the interval of the other; else not."""
    for one in before.values:
        yield _agreement(one, now.value(one.name))


def _agreement(before: Value, now: Value | None) -> Agreement:
    if now is None:
        return Agreement(before.name, before.value, None, None, NOT, "is not measured any more")
    a, b = before.value, now.value
    if a is None or b is None:
        same = a is None and b is None
        why = now.error or before.error or "no value"
        return Agreement(before.name, a, b, None, EXACTLY if same else NOT, why)
    found = (before.name, a, b, b - a)
    if "s" in before.unit.split("/"):
        return Agreement(*found, TIMED, "of the machine, not of the run")
    if a == b:
        return Agreement(*found, EXACTLY)
    if _holds(before, b) or _holds(now, a):
        return Agreement(*found, WITHIN)
    bare = before.low is None or before.high is None
    return Agreement(*found, NOT, "it has no interval" if bare else "outside of both 95 % intervals")


def _holds(one: Value, number: float) -> bool:
    return one.low is not None and one.high is not None and one.low <= number <= one.high


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two environments, a sentence each; of packages, those on which figures depend."""
    for fact in FACTS:
        old, new = before.get(fact), now.get(fact)
        if old is not None and new is not None and old != new:
            yield f"{fact}: {_plain(old)}, now {_plain(new)}"
    yield from _packages(before, now, computing=True)
    old, new = (_mapping(one.get("git")) for one in (before, now))
    if old and old.get("commit") != new.get("commit"):
        yield f"commit: {old.get('commit') or 'none'}, now {new.get('commit') or 'none'}"
    elif old and old.get("diff") != new.get("diff"):
        yield "uncommitted changes of the source are other ones"


def _packages(before: Mapping[str, Any], now: Mapping[str, Any], computing: bool) -> Iterator[str]:
    """Packages that are of another version, a sentence each: those on which figures depend, or the others."""
    old, new = (_mapping(one.get("packages")) for one in (before, now))
    for name in sorted({*old, *new}, key=str.lower) if old else ():
        if old.get(name) != new.get(name) and computes(name) == computing:
            yield f"package {name}: {old.get(name, 'absent')}, now {new.get(name, 'absent')}"


def _text_changes(run: RunFolder, before: Results, now: Results) -> Iterator[str]:
    """What differs in what the two sets of figures say of themselves: device, threads, text."""
    for name in ("step", "device", "threads"):
        old, new = before.provenance.get(name), now.provenance.get(name)
        if old is not None and old != new:
            yield f"{name} of the evaluation: {old}, now {new}"
    old, new = (_mapping(one.provenance.get("data")) for one in (before, now))
    for name in ("corpus", "tokenizer"):
        if old.get(name) != new.get(name):
            yield f"{name}: another text is read than before ({run.path / DATA} says which it was)"


def _again(
    run: RunFolder,
    resolved: Resolved,
    root: Path,
    cache: Path | str | None,
    packing: Progress | None,
    tell: Tell,
) -> RunFolder:
    """The run trained and measured under another root."""
    if (run.path / SOURCE).is_file():
        raise WorkbenchError(f"{run.path} was made of published weights and not trained here: take --measure-only")
    if not run.finished:
        raise WorkbenchError(
            f"{run.path} is not trained to its end ({status_line(run.read_status())}); go on with: "
            f"workbench train --resume {run.path}"
        )
    if resolved.hash != run.hash:
        raise WorkbenchError(
            f"{run.resolved} means another training in this version (hash {resolved.hash}, then {run.hash}): take the "
            f"version that env.json names, or --measure-only"
        )
    if root.resolve() == run.path.resolve().parent:
        raise WorkbenchError(f"{root} holds the run itself; name another folder by --to")
    root.mkdir(parents=True, exist_ok=True)
    if resolved.data.get("start") is not None:
        _bring_parent(run, resolved, root)
    threads = _facts(run).get("threads")
    if not resolved.data["train"]["threads"] and isinstance(threads, int):
        torch.set_num_threads(threads)  # the recipe leaves them to torch; the last bits depend on them
    folder = experiment.create(resolved, root)
    experiment.finish(folder, resolved, cache, True, packing, tell)
    return folder


def _bring_parent(run: RunFolder, resolved: Resolved, root: Path) -> None:
    """Have the run whose weights it begins with beside the new one: it is used as it is."""
    begun = _json(run.path / NOTE)
    parent = run.path.parent / str(begun.get("run", ""))
    if not begun or not (parent / "status").is_file():
        found = parent_run(resolved, run)
        parent = found.path if found is not None else parent
    if not (parent / "status").is_file():
        raise WorkbenchError(f"{run.path} begins with the weights of {begun.get('run')}, which is not beside it")
    place = root / parent.name
    if not place.exists():
        place.symlink_to(parent.resolve(), target_is_directory=True)


def _kept(run: RunFolder) -> Results:
    try:
        return Results.from_data(read_json(run.results), str(run.results))
    except FileNotFoundError:
        raise WorkbenchError(f"{run.path} keeps no figures to compare with: workbench eval {run.path}") from None
    except ValueError as error:
        raise WorkbenchError(f"{run.results} cannot be read ({error}); evaluate the run again") from error


def _facts(run: RunFolder) -> Mapping[str, Any]:
    """What the last checkpoint says of the machine that made it."""
    return _mapping(_state(run).get("machine"))


def _state(run: RunFolder) -> Mapping[str, Any]:
    steps = sorted(list_steps(run.ckpt))
    return _json(run.ckpt / f"step-{steps[-1]:08d}" / STATE) if steps else {}


def _weights(run: RunFolder, folder: RunFolder) -> str:
    """Whether the last checkpoints hold the same bits."""
    old, new = _state(run), _state(folder)
    if not old or not new:
        return ""
    if old.get("step") != new.get("step"):
        return f"the weights are of step {new.get('step')}, those before of step {old.get('step')}"
    pairs = [(_mapping(one.get("files")).get("model.safetensors")) for one in (old, new)]
    return "the weights are the same to the last bit" if pairs[0] == pairs[1] else "the weights differ"


def _samples(before: Sequence[str], now: Sequence[str]) -> str:
    if not before:
        return ""
    same = sum(a == b for a, b in zip(before, now, strict=False))
    return f"{same} of {len(before)} samples are the same text"


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(read_json(path))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
