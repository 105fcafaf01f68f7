"""Errors a user can act on: each names the place and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LONGEST, MOST = 1000, 50
"""Characters of a problem, and problems, that a message shows: what can be read on a terminal."""


class WorkbenchError(Exception):
    """An error whose message is written for the user; the command line prints it without a traceback.

    ``exit_code``: what the command line ends with.
    """

    exit_code: int = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where (a dotted YAML path) and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        """``path: message``, a long one cut."""
        return f"{self.path or 'recipe':.300}: {self.message:.{LONGEST}}{' …' * (len(self.message) > LONGEST)}"


class RecipeError(WorkbenchError):
    """All problems of a recipe at once."""

    def __init__(self, problems: Iterable[Problem], source: str = "") -> None:
        """Keep ``problems`` in order (the message shows the first); ``source`` is the file they were found in."""
        self.problems = tuple(problems)
        self.source = source
        head = f"{source}:\n" if source else ""
        more = [f"  … and {len(self.problems) - MOST} problems more"] if len(self.problems) > MOST else []
        super().__init__(head + "\n".join([*(f"  {problem}" for problem in self.problems[:MOST]), *more]))


class UnknownPart(WorkbenchError):
    """A name that no part of the asked kind carries."""


class PartDefinitionError(TypeError):
    """A part's class cannot serve as its own schema (``*args``, missing annotation, name taken)."""


def in_words(error: BaseException) -> str:
    """An error in words for a user; "" for one that is no user's matter but a fault of the program."""
    if isinstance(error, WorkbenchError):
        return str(error)
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename is not None else ""
        why = error.strerror or str(error)
        return f"{file}{why} (is there space, and may it be read and written?)"
    # torch says it in a RuntimeError: of its own type on a GPU, in words on a CPU
    said = ("can't allocate memory", "out of memory", "can't start new thread")
    if isinstance(error, MemoryError) or any(words in str(error) for words in said):
        what = (str(error) or "Python has none left").splitlines()[0]
        return f"out of memory ({what:.200}): take a smaller batch or network"
    return ""
