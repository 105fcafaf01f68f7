"""What a study's file may say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from workbench.core.errors import Problem
from workbench.core.loading import Resolved, resolve_as
from workbench.core.node import Node
from workbench.core.part import Section, did_you_mean
from workbench.core.tree import load_tree, override
from workbench.recipe import Name, found
from workbench.study.base import Claim

MARK = "questions"
"""The setting that tells a study's file from a grid's."""
PAIR = ("candidate", "baseline")
"""The settings that name the pair."""


class Claimed(Section):
    """A published statement and how it is put to the test here.

    Settings:
        says: what was claimed, in a sentence.
        question: the question whose figures it is tested on.
        tests: forms of claims; all must hold.
        source: who claimed it, and where.
    """

    def __init__(self, says: str, question: str, tests: list[Claim], source: str = "") -> None:
        """Keep the settings."""
        self.says, self.question, self.tests, self.source = says, question, tests, source

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A claim without a test."""
        yield from super().misfits(node, root)
        if not node.settings["tests"]:
            yield Problem(f"{node.path}.tests", "a claim is put to one test at least; `workbench list claim` has them")


class Study(Section):
    """Questions about a pair of runs, each a grid, and claims that their figures bear out or refute.

    Settings:
        name: what the study is called; its file's name where left out.
        candidate: the recipe, relative to this file, or the run folder, that the questions are about.
        baseline: the one that it is compared with: row zero.
        questions: by name: a grid without ``name``; ``base`` and ``baseline`` are the pair where left out, ``asks`` is
            the question in words.
        claims: by a short name, in the order in which they are shown.
        set: a patch of every cell of every question.
        note: sentences for the head of the page: what it shows and what it does not.
    """

    usual: ClassVar[Mapping[str, Any]] = {"claims": {}}

    def __init__(
        self,
        name: Name,
        candidate: str,
        baseline: str,
        questions: Annotated[dict[str, dict[str, Any]], MinLen(1)],
        claims: dict[str, Claimed],
        set: dict[str, Any] | None = None,
        note: str = "",
    ) -> None:
        """Keep the settings."""
        self.name, self.candidate, self.baseline, self.questions = name, candidate, baseline, questions
        self.claims, self.set, self.note = claims, set or {}, note

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A claim about a question that is not asked."""
        yield from super().misfits(node, root)
        asked = node.settings["questions"]
        for name, claim in (node.settings["claims"] or {}).items():
            question = claim.settings["question"]
            if not isinstance(question, str) or question not in asked:
                message = f"there is no question {question!r}.{did_you_mean(question, asked)}"
                yield Problem(f"claims.{name}.question", message)


def is_study(path: Path | str) -> bool:
    """Whether a file is a study's."""
    return MARK in load_tree(found(Path(path)))


def load_study(path: Path | str, overrides: tuple[str, ...] = ()) -> Resolved:
    """Read a study's file; ``overrides`` are of the study (``candidate=runs/mine``, ``questions.speed=null``).

    Raises:
        RecipeError: with every problem of the file.
        WorkbenchError: it cannot be read.
    """
    place = found(Path(path))
    written = load_tree(place)
    tree = override({"name": place.stem, **written}, overrides)
    for one in PAIR:  # what the command line names lies where the user stands
        if tree.get(one) != written.get(one) and Path(str(tree.get(one))).exists():
            tree[one] = str(Path(str(tree[one])).absolute())
    asked = tree.get(MARK)
    if isinstance(asked, dict):  # a question that is taken out by an override takes its claims along
        out = {name for name, question in asked.items() if question is None}
        tree[MARK] = {name: question for name, question in asked.items() if name not in out}
        claims = tree.get("claims")
        if isinstance(claims, dict):
            kept = {name: one for name, one in claims.items() if one and _question(one) not in out}
            tree["claims"] = kept
    return resolve_as(Study, tree, place)


def _question(claim: Any) -> str | None:
    """The question that a claim names, where it does; anything else is told while resolving."""
    question = claim.get("question") if isinstance(claim, dict) else None
    return question if isinstance(question, str) else None
