"""A run's folder: one recipe, by content hash; everything that was done with it.

``runs/<name>-<hash8>/{resolved.yaml, env.json, plugins/, log.jsonl, tb/, ckpt/, results.json, status}``.
One process writes it at a time; the lock is the kernel's and ends with its holder, however that dies.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, write_json, write_text
from workbench.core.reading import is_yaml
from workbench.core.secrets import plain_without_secrets
from workbench.environment import environment
from workbench.metrics.results import Results, ResultsError

STATES = ("created", "training", "trained", "evaluated", "failed", "interrupted")
"""What a run can be in; ``died`` is read, never written: training or created, by a process that is no more."""
FINISHED = ("trained", "evaluated")
SHORT = 8
LISTED = 5
"""How many runs a message names."""


class RunError(WorkbenchError):
    """A run folder that is absent, another recipe's, or in use."""


class InUse(RunError):
    """Another process is writing here."""


class RunFolder:
    """The files of a run. Cheap to make; nothing is locked before ``locked``.

    ``made``: whether `create` has just made its folder.
    """

    made = False

    def __init__(self, path: Path) -> None:
        """Open an existing run.

        Raises:
            RunError: there is no run here.
        """
        self.path = Path(path)
        facts = self.read_status()
        self.name: str = facts["name"]
        self.hash: str = facts["hash"]
        self.resolved = self.path / "resolved.yaml"
        self.env = self.path / "env.json"
        self.plugins = self.path / "plugins"
        self.log = self.path / "log.jsonl"
        self.tb = self.path / "tb"
        self.ckpt = self.path / "ckpt"
        self.results = self.path / "results.json"
        self.measured = self.path / "measured"
        self.shards = self.path / "shards"
        self.status = self.path / "status"

    @classmethod
    def create(
        cls,
        name: str,
        digest: str,
        root: Path | str = "runs",
        resolved: str = "",
        plugins: Iterable[Path] = (),
    ) -> RunFolder:
        """Make a run's folder, or open the one that this recipe already has.

        ``digest``: the recipe's hash; ``resolved``: its YAML text; ``plugins``: files that it was read with, which
        are copied. The environment is written down anew: it is that of the newest session that trains.

        Raises:
            RunError: the folder is another recipe's (same name, same first digits of the hash).
        """
        path = Path(root) / f"{slug(name)}-{digest[:SHORT]}"
        made = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path} cannot be made ({error.strerror}); choose another folder by --runs") from error
        if not (path / "status").exists():
            write_json(path / "status", {"schema": 1, "name": name, "hash": digest, "state": "created", **_writer()})
        run = cls(path)
        run.made = made
        if run.hash != digest:
            raise RunError(f"{path} is a run of another recipe (hash {run.hash}, here {digest}); rename the recipe")
        if resolved:
            write_text(run.resolved, resolved)
        if not run.finished:  # a finished run keeps the environment that it was trained in
            write_json(run.env, environment())
        for source in plugins:
            run.plugins.mkdir(exist_ok=True)
            shutil.copy2(source, run.plugins / Path(source).name)
        return run

    def read_status(self) -> dict[str, Any]:
        """The status as written: schema, name, hash, state, step, steps, pid, host, time, error, …

        Raises:
            RunError: there is none, or it cannot be read.
        """
        try:
            facts = read_json(self.path / "status")
            for name in ("name", "hash", "state"):
                if not isinstance(facts[name], str):
                    raise TypeError(f"{name} is no text: {facts[name]!r:.80}")
            steps = {name: int(facts[name] or 0) for name in ("step", "steps") if name in facts}
            return {**facts, **steps}  # what sorts runs, or tells how far they are, need not ask again
        except (FileNotFoundError, NotADirectoryError):
            begun = (self.path / "resolved.yaml").is_file()
            lost = "; train its recipe again: what it holds is kept, and the file is made anew" * begun
            raise RunError(f"{self.path} is no run folder (it has no status file){lost or self._meant()}") from None
        except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
            raise RunError(
                f"{self.path / 'status'} cannot be read ({error}); remove that file and train the recipe again: "
                "what the run holds is kept"
            ) from error

    def _meant(self) -> str:
        """What somebody wanted who names a recipe, the folder of all runs, or a run by a part of its name."""
        if is_yaml(self.path) and self.path.is_file():
            return f"; it is a recipe, train it first: workbench train {self.path}"
        inside = [str(status.parent) for status in sorted(self.path.glob("*/status"))]
        if inside:
            more = f" and {len(inside) - LISTED} more" * (len(inside) > LISTED)
            return f"; it holds runs, name one of them: {', '.join(inside[:LISTED])}{more}"
        if self.path.exists():
            return ""
        places = {place.resolve(): place for place in (Path("runs"), self.path.parent)}  # the latter's name, if alike
        known = [status.parent for place in places.values() for status in sorted(place.glob("*/status"))]
        begun = [path for path in known if path.name.startswith(self.path.name)]
        names = [path.name for path in known]
        near = [known[names.index(name)] for name in difflib.get_close_matches(self.path.name, names, n=3)]
        meant = " or ".join(str(path) for path in (begun or near)[:LISTED])
        return f"; did you mean {meant}?" if meant else ""

    @property
    def state(self) -> str:
        """One of ``STATES``, or "died" where a session ended without a word."""
        facts = self.read_status()
        if facts["state"] == "training" and facts.get("host") == socket.gethostname() and not self.in_use():
            return "died"
        return str(facts["state"])

    @property
    def finished(self) -> bool:
        """Whether training has come to its end."""
        return self.read_status()["state"] in FINISHED

    def mark(self, state: str, **facts: Any) -> None:
        """Write the status: ``state`` and what is known; facts stated before (steps, reason) stay until restated.

        An error stays only as long as the state it came with.

        Raises:
            ValueError: no such state.
        """
        if state not in STATES:
            raise ValueError(f"no run state {state!r}; known: {', '.join(STATES)}")
        before = self.read_status()
        before.pop("error", None)
        facts = plain_without_secrets(facts)  # an error tells what a library said, addresses with passwords too
        write_json(self.status, {**before, "state": state, **_writer(), **facts}, sync=state != "training")

    @contextmanager
    def locked(self) -> Iterator[RunFolder]:
        """Be the only writer. A dead writer's lock is free: the kernel let go of it (on one machine, or NFS ≥ 4).

        Raises:
            InUse: another process is writing; says which.
        """
        with only_writer(self.path / "lock", self.path):
            yield self

    def holds(self, figures: Path, measured: str) -> bool:
        """Whether a file of figures is of the last checkpoint, by the sampler and evaluations of hash ``measured``."""
        return self._measured(figures) == measured

    def own(self) -> str | None:
        """The hash of the sampler and evaluations that the run's own figures are by; None where none are whole."""
        return self._measured(self.results)

    def _measured(self, figures: Path) -> str | None:
        """The same of any file of figures of the last checkpoint."""
        try:
            found = Results.from_data(read_json(figures), str(figures))
            step, measured = found.provenance["step"], found.provenance["measured"]
            return measured if found.values and step == self.read_status().get("step") else None
        except (OSError, ValueError, KeyError, TypeError, ResultsError):
            return None  # a damaged file is no figures, however much of it can be read

    def figures(self, measured: str) -> Path | None:
        """The file of its figures by those, None where they are still due.

        Beside the recipe's own results.json a run keeps the figures of other samplers and evaluations (cells of grids)
        as ``measured/<hash>.json``.
        """
        kept = (self.results, self.measured / f"{measured}.json")
        return next((path for path in kept if self.finished and self.holds(path, measured)), None)

    def keep(self, results: Results) -> None:
        """Make these the run's own figures. Those of the same weights that stood there, by another sampler or other
        evaluations, stay beside them (`figures`)."""
        before = self.own()
        if before not in (None, results.provenance.get("measured")):
            self.measured.mkdir(exist_ok=True)
            write_json(self.measured / f"{before}.json", read_json(self.results))
        write_json(self.results, results.as_data())

    def in_use(self) -> bool:
        """Whether some process holds the lock."""
        return is_held(self.path / "lock")


@contextmanager
def only_writer(lock: Path, what: Path) -> Iterator[None]:
    """Hold a lock file; ``what`` is locked by it.

    Raises:
        InUse: another process holds it; says which.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise InUse(f"{what} is in use by {holder}; wait for it, or end it") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Hold a lock file for a moment, after whoever holds it now."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_held(lock: Path) -> bool:
    """Whether some process holds a lock file."""
    try:
        handle = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def find(digest: str, root: Path | str = "runs") -> list[RunFolder]:
    """Runs of a recipe under ``root``, whatever their names: finished ones first, then the furthest."""
    found = [run for run in every(root) if run.hash == digest]
    return sorted(found, key=furthest)


def by_hash(root: Path | str = "runs") -> dict[str, RunFolder]:
    """The furthest run of every recipe under ``root``, by hash."""
    known: dict[str, RunFolder] = {}
    for run in sorted(every(root), key=furthest):
        known.setdefault(run.hash, run)
    return known


def furthest(run: RunFolder) -> tuple[bool, int, str]:
    """What runs are sorted by: finished ones first, then the furthest, then by name."""
    return not run.finished, -int(run.read_status().get("step") or 0), run.path.name


def every(root: Path | str = "runs") -> Iterator[RunFolder]:
    """All run folders under ``root``, by name; what is no run is passed over."""
    for path in sorted(Path(root).glob("*/status")):
        try:
            yield RunFolder(path.parent)
        except RunError:
            continue


def slug(name: str) -> str:
    """A name as a folder's: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def status_line(facts: Mapping[str, Any]) -> str:
    """A status in a few words: ``training 120/1000``, ``failed 40/1000: NonFinite: …``."""
    done = f" {facts.get('step', 0)}/{facts['steps']}" if "steps" in facts else ""
    error = f": {str(facts['error']).splitlines()[0]}" if facts.get("error") else ""
    return f"{facts['state']}{done}{error}"


def _writer() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "time": round(time.time(), 3)}
