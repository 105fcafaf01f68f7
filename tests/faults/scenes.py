"""Faults, each on a project that is half trained: what the fault's own session says, and that the next goes on to the
same end."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.project import TRAIN, run_of
from tests.faults.sessions import Ended, Hindrance, begin, capped, end, session, terminated
from tests.long_run import jumping

GRACE = 5.0
Act = Callable[[Path, Path], "str"]


@dataclass(frozen=True)
class Scene:
    """A fault. ``act(project, out)`` brings it about and gives what is wrong with what was said ("" nothing)."""

    name: str
    act: Act


def scenes(rng: random.Random) -> Iterator[Scene]:
    """All of them, their moments drawn by ``rng``."""
    for what, lasting in (("ENOSPC", True), ("ENOSPC", True), ("ENOSPC", False), ("EROFS", True), ("EIO", False)):
        at = rng.randrange(1, 60)
        yield Scene(f"{what} from change {at}{' on' * lasting}", _refused(Hindrance(at, what, lasting)))
    yield Scene("SIGTERM, 5 s of grace", _asked_to_end(rng.uniform(0.3, 1.5)))
    yield Scene("no memory left", _said(TRAIN, "memory", prepare=capped(8 << 20)))
    yield Scene("clocks that jump", _said(TRAIN, "", status=0, prepare=jumping))
    yield Scene("two writers", _two_writers)
    yield Scene("checkpoint with a bit turned", _bent("runs/*/ckpt/step-*/model.safetensors", "damaged"))
    yield Scene("checkpoint cut off", _bent("runs/*/ckpt/step-*/optimizer.safetensors", "damaged", cut=True))
    yield Scene("tokens with a bit turned", _bent("cache/tokens/*/train/tokens.bin", "is damaged"))
    yield Scene("numbers of tokens cut off", _bent("cache/tokens/*/*/meta.json", "is damaged", cut=True))
    yield Scene("recipe cut off", _recipe("\nname: [", "r.yaml"))
    yield Scene("plug-in that is gone", _recipe("\nplugins: [gone.py]\n", "there is no such file"))
    yield Scene("loss that is not finite", _said([*TRAIN, "train.optimizer.lr=1e38", "train.clip=0"], "finite"))
    yield Scene("judge that raises", _judge)


def _told(ended: Ended, word: str, statuses: tuple[int, ...] = (1,)) -> str:
    if not ended.in_words:
        return f"a traceback: {ended.said[-600:]}"
    if ended.status not in statuses:
        return f"status {ended.status}: {ended.said[-300:]}"
    return "" if word in ended.said else f"{word!r} is not said: {ended.said[-300:]}"


def _said(words: list[str], word: str, status: int = 1, prepare: Callable[[], object] = lambda: None) -> Act:
    return lambda project, out: _told(session(words, project, out, prepare), word, (status,))


def _refused(hindrance: Hindrance) -> Act:
    def act(project: Path, out: Path) -> str:
        ended = session(TRAIN, project, out, lambda: hindrance.install(project))
        return _told(ended, "", (0, 1))  # what is a view, or is tried again, may fail and harm nothing

    return act


def _asked_to_end(after: float) -> Act:
    def act(project: Path, out: Path) -> str:
        return _told(terminated(TRAIN, project, out, after, GRACE), "", (0, 143))

    return act


def _two_writers(project: Path, out: Path) -> str:
    began, other = time.monotonic(), out.with_suffix(".two")
    children = [begin(TRAIN, project, one) for one in (out, other)]
    one, two = (end(child, file, began) for child, file in zip(children, (out, other), strict=True))
    busy = [ended for ended in (one, two) if "is in use by process" in ended.said]
    if any(not ended.in_words for ended in (one, two)) or {one.status, two.status} - {0, 1}:
        return f"{one.said[-300:]} / {two.said[-300:]}"
    return "" if 0 in (one.status, two.status) and len(busy) <= 1 else f"{one.said[-200:]} / {two.said[-200:]}"


def _bent(pattern: str, word: str, cut: bool = False) -> Act:
    def act(project: Path, out: Path) -> str:
        file = sorted(project.glob(pattern))[-1]
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 16
        file.write_bytes(content[: len(content) // 2] if cut else content)
        return _told(session(TRAIN, project, out), word, (0,))

    return act


def _recipe(more: str, word: str) -> Act:
    def act(project: Path, out: Path) -> str:
        file = project / "r.yaml"
        before = file.read_text()
        file.write_text(before + more)
        ended = session(TRAIN, project, out)
        file.write_text(before)
        return _told(ended, word)

    return act


JUDGE = '''
from workbench.metrics.judge import Judge


@Judge.register("raising")
class Raising(Judge):
    """Raises."""

    def __init__(self) -> None:
        """Nothing."""

    def identity(self) -> str:
        raise RuntimeError("the judge is ill")

    def reread(self, passages):
        raise RuntimeError("the judge is ill")
'''


def _judge(project: Path, out: Path) -> str:
    (project / "judge.py").write_text(JUDGE)
    file = project / "r.yaml"
    before, runs = file.read_text(), set(project.glob("runs/*"))
    judged = before.replace("unigram_entropy]", "unigram_entropy, judge_perplexity], judge: raising")
    file.write_text(judged + "plugins: [judge.py]\n")
    ended = session(TRAIN, project, out)
    file.write_text(before)
    wrong = _told(ended, "", (0,))
    ill = any("the judge is ill" in results.read_text() for results in project.glob("runs/*/results.json"))
    for run in set(project.glob("runs/*")) - runs:  # a run of its own, where the plug-in counts in the hash
        shutil.rmtree(run)
    assert run_of(project) is not None
    return wrong or ("" if ill else "no cell says that the judge is ill")
