"""Detokenisers: from the spaced-out forms of language-modelling sets back to text as it is written.

The rules are those of SEDD's and MDLM's evaluation (for WikiText Megatron-LM's), in their order: figures are only
comparable on the same text. One of Megatron's, meant for years after an apostrophe, matches nothing, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Rule = tuple[str | re.Pattern[str], str]


def replaced(text: str, rules: Sequence[Rule]) -> str:
    """``text`` after all rules, one after the other."""
    for what, by in rules:
        text = text.replace(what, by) if isinstance(what, str) else what.sub(by, text)
    return text


def _close(left: str, right: str) -> Sequence[Rule]:
    """Spaces within a pair of marks, away."""
    inner = f"[^{re.escape(right)}]"
    return [(re.compile(rf"{re.escape(left)}\s*({inner}*?)\s*{re.escape(right)}"), rf"{left}\1{right}")]


def _tight(left: str, right: str) -> Sequence[Rule]:
    """One space on both sides within a pair of marks, away."""
    outside = "".join(re.escape(mark) for mark in dict.fromkeys((left, right)))
    return [(re.compile(rf"{re.escape(left)} ([^{outside}]+) {re.escape(right)}"), rf"{left}\1{right}")]


WIKITEXT: Sequence[Rule] = [
    ("s '", "s'"),
    *[(f" @{mark}@ ", mark) for mark in "-,."],
    *[(f" {mark} ", f"{mark} ") for mark in ":;.!?,"],
    *_close("(", ")"), *_close("[", "]"), *_close("{", "}"), *_close('"', '"'), *_close("'", "'"),
    ("= = = =", "===="), ("= = =", "==="), ("= =", "=="),
    (" ° ", "°"), (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s"),
]  # fmt: skip
PTB: Sequence[Rule] = [
    (" 's", "'s"), ("s ' ", "s' "), (" n't", "n't"), (" \n ", "\n"), ("\\/", "/"),
    *[(" N ", " 1 ")] * 10,
    ("$ 1", "$1"), ("# 1", "#1"), ("<unk>", "?"),
]  # fmt: skip
LM1B: Sequence[Rule] = [
    ("http : / / ", "http://"), ("https : / / ", "https://"),
    (re.compile(r" '(\w+)"), r"'\1"), (re.compile(r" (\w+) \. "), r" \1. "), (re.compile(r" (\w+) \.$"), r" \1."),
    (" ? ", "? "), (re.compile(r" \?$"), "?"), (" ! ", "! "), (re.compile(r" !$"), "!"),
    *[(f" {mark} ", f"{mark} ") for mark in ",:;"],
    (" / ", "/"),
    *_tight('"', '"'), *_tight("'", "'"), *_tight("(", ")"), *_tight("[", "]"),
    ("$ ", "$"), ("£ ", "£"),
]  # fmt: skip


def wikitext(text: str) -> str:
    """A line of WikiText."""
    return replaced(text, WIKITEXT)


def ptb(text: str) -> str:
    """A sentence of the Penn Treebank in Mikolov's form."""
    return replaced(text, PTB)


def lm1b(text: str) -> str:
    """A sentence of the One Billion Word Benchmark."""
    return replaced(text, LM1B)


def lambada(text: str) -> str:
    """A passage of LAMBADA: straight quotes, a line's break before it."""
    return "\n" + text.replace("“", '"').replace("”", '"').strip()
