"""Damage by a seeded generator: of data, of text, of bytes."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

from tests.core.damage import spots

WORDS = (
    "",
    " ",
    "null",
    "~",
    "true",
    "-1",
    "0",
    "1e400",
    "nan",
    ".inf",
    "0x10",
    "1_000",
    "1:30",
    "010",
    "on",
    "*",
    "&a",
    "!!int",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "a/b",
    "a\\b",
    "C:\\x",
    "~root",
    "$HOME",
    "${x}",
    "{{x}}",
    "%s",
    "\x00",
    "\u202e",
    "é",
    "\U0001f600",
    "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
    "x" * 5000,
    "<script>alert(1)</script>",
    "[red]",
    "__import__('os').system('touch canary')",
    "a.b",
    "a[0]",
    "type",
    "absorbing",
    "transformer",
    "gpt2",
    "euler",
    "name: x",
    "- x",
    "\n",
    "\t",
    "'",
    '"',
    "#",
)
NUMBERS = (
    0,
    -0.0,
    1,
    -1,
    2,
    3,
    7,
    1e-12,
    1e-300,
    5e-324,
    0.5,
    1.0,
    1.5,
    1e9,
    1e18,
    1e300,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(2**63),
    math.inf,
    -math.inf,
    math.nan,
)


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Something that probably does not belong there."""
    kind = rng.randrange(9 if depth < 3 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind <= 2:
        return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.uniform(-10, 10)
    if kind <= 4:
        return rng.choice(WORDS)
    if kind <= 6:
        return [junk(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 3, 30]))]
    keys = [rng.choice([*WORDS[:12], "type", "a", "steps", "dim"]) for _ in range(rng.randrange(4))]
    return {key: junk(rng, depth + 1) for key in keys} | ({"type": rng.choice(WORDS)} if kind == 8 else {})


def damaged(data: Any, rng: random.Random) -> Any:
    """A copy with one thing replaced, dropped, renamed, added, or taken from elsewhere in it."""
    data = copy.deepcopy(data)
    path = rng.choice(list(spots(data)))
    if not path:
        return junk(rng)
    holder = data
    for step in path[:-1]:
        holder = holder[step]
    key, action = path[-1], rng.randrange(6)
    if action <= 1:
        holder[key] = junk(rng)
    elif action == 2:
        del holder[key]
    elif action == 3:
        there: Any = data
        for step in rng.choice(list(spots(data))):
            there = there[step]
        holder[key] = copy.deepcopy(there)
    elif isinstance(holder, list):
        holder.insert(key, junk(rng))
    elif action == 4:
        holder[rng.choice([str(key)[:-1], f"{key}x", str(key).upper(), *WORDS[:6]])] = holder.pop(key)
    else:
        holder[rng.choice(["type", "vocab", "steps", "", "a.b", "extends", "plugins", "start"])] = junk(rng)
    return data


def torn(content: bytes, rng: random.Random) -> bytes:
    """Bytes with bits turned over, cut off, doubled, blanked, swapped, or junk put in."""
    if not content:
        return rng.randbytes(rng.randrange(1, 40))
    place = rng.randrange(len(content))
    end = min(len(content), place + rng.choice([1, 2, 8, 64, 4096]))
    how = rng.randrange(9)
    if how <= 2:
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 20])):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if how == 3:
        return content[:place]
    if how == 4:
        return content[:place] + content[end:]
    if how == 5:
        return content[:end] + content[place:]
    if how == 6:
        return content[:place] + bytes(end - place) + content[end:]
    if how == 7:
        return content[:place] + rng.choice([rng.randbytes(5), *(w.encode() for w in WORDS)]) + content[place:]
    return content + rng.randbytes(rng.choice([1, 4, 400]))


def tear(file: Path, rng: random.Random) -> str:
    """Damage a file where it stands; what was done."""
    if rng.random() < 0.08:
        file.unlink()
        return f"{file.name} removed"
    before = file.read_bytes()
    after = rng.choice([b"", b"\x00" * len(before), rng.randbytes(len(before))]) if rng.random() < 0.08 else before
    while after == before:
        after = torn(before, rng)
    file.write_bytes(after)
    return f"{file.name}: {len(before)} bytes, now {len(after)}"
