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
from workbench.core.errors import WorkbenchError
from workbench.data.base import Tokenizer
from workbench.experiment import Opened, open_trained

GAP = re.compile(r" ?(_{2,})")
"""A gap of a template, with the space before it, which byte-level tokens carry themselves."""


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
    strays = [text for text in overrides if not text.startswith("sampler.")]
    if strays:
        raise WorkbenchError(f"sampling changes sampler settings only, as in sampler.steps=32; not {strays[0]!r}")
    if sum(given is not None and given != [] for given in (prefix, infill, list(fixed))) > 1:
        raise WorkbenchError("give one of --prefix, --infill and --fix")
    opened = open_trained(path, which, overrides)
    tokenizer, block = opened.model.tokenizer, opened.model.length
    if infill is not None:
        tokens = gapped(infill, tokenizer)
        tokens += [-1] * ((length or len(tokens)) - len(tokens))
    else:
        tokens = [-1] * (length or block)
        for position, text in [(0, prefix)] if prefix is not None else [_placed(one) for one in fixed]:
            ids = tokenizer.encode(text).tolist()
            if position + len(ids) > len(tokens):
                raise WorkbenchError(
                    f"{text!r} is {len(ids)} tokens: from position {position} it ends beyond {len(tokens)}"
                )
            tokens[position : position + len(ids)] = ids
    if not 0 < len(tokens) <= block:
        raise WorkbenchError(f"{len(tokens)} tokens to write on; this run was trained on blocks of 1 to {block}")
    return opened, Template(tuple(tokens))


def gapped(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of a template, -1 for each ``_`` of a gap.

    Where the tokenizer's tokens carry the space before a word, the space before a gap belongs to the gap.
    """
    carries = len(tokenizer.encode(" the")) == len(tokenizer.encode("the"))
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
    examiner = opened.examiner()
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


def _placed(text: str) -> tuple[int, str]:
    position, colon, words = text.partition(":")
    if not colon or not position.strip().isdigit():
        raise WorkbenchError(f"--fix takes POSITION:TEXT, as in 40:'the people'; not {text!r}")
    return int(position), words
