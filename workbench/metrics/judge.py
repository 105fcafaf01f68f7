"""Judges: language models of their own that read texts, drawn and real alike.

A judge tells, of every passage, the nats of its tokens and the state behind its last one (the feature of MAUVE), both
from one pass: a passage that two metrics, two evaluations or two cells of one process ask about is read once. Nothing
here needs torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.core.errors import WorkbenchError
from workbench.core.part import Part

KEPT = 16_384
"""Readings that a process keeps (some 6 kB each for 1,024 tokens and 576 states); the oldest are dropped."""


class JudgeError(WorkbenchError):
    """A judge that cannot be had, or a passage that it cannot read."""


@dataclass(frozen=True)
class Passage:
    """A text to be read: only its own tokens count, what is ``given`` stands before them.

    ``ids`` and ``given_ids``: the same as token ids of the tokenizer with digest ``tokenizer``, where known; a judge
    of that tokenizer reads them, another encodes the text anew (``given`` and ``text`` each by itself).
    """

    text: str
    given: str = ""
    ids: tuple[int, ...] = ()
    given_ids: tuple[int, ...] = ()
    tokenizer: str = ""

    @property
    def key(self) -> bytes:
        """Content digest."""
        return hashlib.blake2b(repr(self).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Reading:
    """What a judge says of a passage: ``nats`` float32 of each token that counts, ``bytes`` of the text that these
    tokens stand for, ``state`` float32 [D] behind the last token."""

    nats: npt.NDArray[np.float32]
    bytes: int
    state: npt.NDArray[np.float32]


class Judge(Part, ABC, kind="judge"):
    """A language model that reads texts."""

    @abstractmethod
    def identity(self) -> str:
        """Who judges: name, hash of its weights, every setting that moves a figure. Loads what it must to know.

        Raises:
            JudgeError: the judge is not on this machine, with the remedy.
        """

    @abstractmethod
    def reread(self, passages: Sequence[Passage]) -> list[Reading]:
        """Read passages, in any batches; the readings in the order of the passages.

        Raises:
            JudgeError: it cannot be loaded, or a passage's given part leaves no room.
        """

    def digest(self) -> str:
        """12 hex digits of its identity: figures by judges of other digests are not to be compared (`Value.by`).

        Raises:
            JudgeError: as `identity`.
        """
        return hashlib.sha256(self.identity().encode()).hexdigest()[:12]

    def read(self, passages: Sequence[Passage]) -> list[Reading]:
        """The readings of passages, each from memory where it was read before by the same judge."""
        judge = self.identity()
        keys = [(judge, passage.key) for passage in passages]
        unknown = {key: passage for key, passage in zip(keys, passages, strict=True) if key not in _READINGS}
        fresh = dict(zip(unknown, self.reread(list(unknown.values())), strict=True)) if unknown else {}
        found = [fresh[key] if key in fresh else _READINGS[key] for key in keys]
        _READINGS.update(fresh)
        while len(_READINGS) > KEPT:
            _READINGS.popitem(last=False)
        return found


_READINGS: OrderedDict[tuple[str, bytes], Reading] = OrderedDict()


def require(*packages: str, what: str) -> None:
    """Check that optional packages (import names, or ``import name=name to install``) are there.

    Raises:
        JudgeError: which are not, with the command that brings them.
    """
    names = [package.partition("=") for package in packages]
    absent = [install or name for name, _, install in names if importlib.util.find_spec(name) is None]
    if absent:
        raise JudgeError(
            f"{what} needs {', '.join(absent)}, not installed here: `pip install {' '.join(absent)}` "
            "(all of them: `pip install \"sedd-workbench[eval]\"`)"
        )
