"""Canvases from words: prefixes, gaps and fixed positions as tokens, and the texts drawn on them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samplers.base import Canvas
from workbench import assemble
from workbench.core.errors import WorkbenchError
from workbench.core.spec import meant
from workbench.data.base import Tokenizer
from workbench.opening import Opened, open_trained, reopen

GAP = re.compile(r" ?(_{2,})")
"""A gap of a template, with the space before it, which byte-level tokens carry themselves."""
LONGEST = 1 << 16
"""Tokens of a text by a sampler that is not bound to the length trained on."""
NUMBERS = 1 << 62
"""Sequences are numbered below this."""


@dataclass(frozen=True)
class Template:
    """Tokens [L] with -1 where the sampler is free."""

    tokens: tuple[int, ...]

    def canvas(self, count: int, first: int) -> Canvas:
        """``count`` sequences on this template, numbered from ``first``."""
        row = torch.tensor(self.tokens)
        x_BL = row.clamp_min(0).expand(count, -1).clone()
        return Canvas(x_BL, (row >= 0).expand(count, -1).clone(), torch.arange(first, first + count))


@dataclass(frozen=True)
class DrawnTexts:
    """Texts as spans (text, was it given), ids, and what they took."""

    spans: Sequence[Sequence[tuple[str, bool]]]
    ids: Sequence[Sequence[int]]
    calls: int
    seconds: float
    sampler: str

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        texts = ["".join(piece for piece, _ in spans) for spans in self.spans]
        return {
            "texts": texts,
            "ids": [list(row) for row in self.ids],
            "calls": self.calls,
            "seconds": round(self.seconds, 4),
            "sampler": self.sampler,
        }


def template(
    path: Path,
    overrides: Sequence[str],
    prefix: str | None = None,
    infill: str | None = None,
    fixed: Sequence[str] = (),
    length: int | None = None,
    which: str = "last",
) -> tuple[Opened, Template]:
    """Open a run with changed sampler settings and lay out what is given.

    Raises:
        WorkbenchError: an override that is not of the sampler, a text that does not fit, a run without weights.
    """
    strays = [text for text in overrides if not text.startswith(("sampler.", "train.replay="))]
    runs = [str(path), *(text for text in strays if (Path(text) / "status").is_file())]
    if len(runs) > 1:
        raise WorkbenchError(f"sampling takes one run at a time; these are {len(runs)}: {', '.join(runs)}")
    if strays:
        stray = strays[0]
        hint = meant(reopen(path)[1].node.settings["sampler"], stray.partition("=")[0])
        raise WorkbenchError(f"sampling changes sampler settings only, as in sampler.steps=32; not {stray!r}.{hint}")
    if sum(given is not None and given != [] for given in (prefix, infill, list(fixed))) > 1:
        raise WorkbenchError("give one of --prefix, --infill and --fix")
    pieces = [(0, prefix)] if prefix is not None else [_placed(one) for one in fixed]
    for text in (infill or "", *(piece for _, piece in pieces)):
        _require_text(text)
    opened = open_trained(path, which, overrides)
    tokenizer, block = opened.model.tokenizer, opened.model.length
    free = assemble.sampler(opened.resolved).any_length
    most = LONGEST if free else block
    if infill is not None:
        tokens = gapped(infill, tokenizer)
        if length is not None and length < len(tokens):
            raise WorkbenchError(f"--infill is {len(tokens)} tokens, more than --length {length}: leave --length out")
        tokens += [-1] * ((length or 0) - len(tokens))
    else:
        tokens = [-1] * (block if length is None else max(0, min(length, most + 1)))
    if not 0 < len(tokens) <= most:
        asked = len(tokens) if infill is not None else length
        own = f"this run was trained on blocks of {block} and writes 1 to {block}; process blocks writes longer texts"
        limit = f"this sampler writes 1 to {most}" if free else own
        raise WorkbenchError(f"{asked} tokens to write on; {limit}")
    for position, text in pieces:
        _lay(tokens, position, text, tokenizer.encode(text).tolist())
    if -1 not in tokens:
        raise WorkbenchError(
            f"all {len(tokens)} tokens are given: leave some free, by a shorter --prefix or a gap ____ in --infill"
        )
    return opened, Template(tuple(tokens))


def gapped(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of a template, -1 for each ``_`` of a gap.

    Where the tokenizer's tokens carry the space before a word, the space before a gap belongs to the gap.
    """
    carries = tokenizer.space_before
    ids: list[int] = []
    end = 0
    for gap in GAP.finditer(text):
        start = gap.start() if carries else gap.start(1)
        ids += tokenizer.encode(text[end:start]).tolist() if start > end else []
        ids += [-1] * len(gap.group(1))
        end = gap.end()
    return ids + (tokenizer.encode(text[end:]).tolist() if end < len(text) else [])


def draw_texts(opened: Opened, chosen: Template, count: int, first: int = 0, batch: int = 32) -> DrawnTexts:
    """Draw ``count`` texts. A text depends on the run's seed and its own number, not on ``batch``."""
    if count < 1 or batch < 1:
        raise WorkbenchError("--count and --batch are at least 1")
    if not 0 <= first <= NUMBERS - count:
        raise WorkbenchError(f"--first numbers sequences from 0 to {NUMBERS - 1}; not {first}")
    examiner = opened.examiner()
    with examiner.drawing():
        found = [
            examiner.draw(chosen.canvas(min(batch, count - start), first + start)) for start in range(0, count, batch)
        ]
    rows = np.concatenate([samples.tokens_BL.numpy() for samples in found])
    return DrawnTexts(
        spans=[_spans(row, chosen.tokens, opened.model.tokenizer) for row in rows.tolist()],
        ids=rows.tolist(),
        calls=sum(samples.calls for samples in found),
        seconds=sum(samples.seconds for samples in found),
        sampler=examiner.sampler.type_name,
    )


def _spans(row: Sequence[int], given: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The text in runs of given and drawn tokens."""
    edges = [0, *(i for i in range(1, len(row)) if (given[i] >= 0) != (given[i - 1] >= 0)), len(row)]
    return [
        (tokenizer.decode(row[a:b], eos="\n\n"), given[a] >= 0) for a, b in itertools.pairwise(edges)
    ]


def _lay(tokens: list[int], position: int, text: str, ids: Sequence[int]) -> None:
    """Fix ``ids`` from ``position`` on."""
    if position + len(ids) > len(tokens):
        raise WorkbenchError(
            f"{text!r:.60} is {len(ids)} tokens: from position {position} it ends beyond the last, {len(tokens) - 1}"
        )
    if any(token >= 0 for token in tokens[position : position + len(ids)]):
        raise WorkbenchError(f"--fix {position}:{text} lies on tokens that another --fix gives: move one of them")
    tokens[position : position + len(ids)] = ids


def _require_text(text: str) -> None:
    """A command line's bytes that are no UTF-8 arrive as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WorkbenchError(f"{text!r:.60} is not UTF-8 at character {error.start}: type it again") from error


def _placed(text: str) -> tuple[int, str]:
    position, colon, words = text.partition(":")
    if not colon or not words or not re.fullmatch(r"\s*[0-9]{1,9}\s*", position):
        raise WorkbenchError(f"--fix takes POSITION:TEXT, as in 40:'the people'; not {text!r}")
    return int(position), words
