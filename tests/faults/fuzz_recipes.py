"""Damaged recipes and grids, and YAML that means harm."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.faults.junk import WORDS, damaged, junk, torn
from workbench.check import estimate
from workbench.core.plugins import isolated
from workbench.core.tree import load_tree
from workbench.grid.cells import plan
from workbench.recipe import load

Case = tuple[str, Callable[[], object]]
RECIPES = Path(__file__).parents[2] / "recipes"
GRID = {
    "name": "g",
    "base": str(RECIPES / "smoke" / "sedd.yaml"),
    "baseline": str(RECIPES / "smoke" / "gpt2.yaml"),
    "axes": {"graph": {"a": {"process.graph": "absorbing"}, "u": {"process.graph": "uniform"}}, "seed": [0, 1]},
    "set": {"train.steps": 3},
    "zip": [["graph", "seed"]],
    "only": {"seed": {"graph": ["a"]}},
    "skip": [{"graph": "u", "seed": 1}],
    "fair": {"parameters": 0.9, "tokens": "equal"},
    "report": {"over": ["seed"], "columns": ["bits_per_byte"], "frontiers": [{"x": "a", "y": "b", "along": "graph"}]},
}


def damaged_recipes(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Shipped recipes with one to four things wrong, as data or as bytes; one in twenty that resolve is costed too."""
    files = [file for file in sorted(RECIPES.rglob("*.yaml")) if "grids" not in file.parts]
    trees = [load_tree(file) for file in files]
    named = [tree for tree in trees if "name" in tree]
    for number in range(count):
        tree = rng.choice(named)
        text = _text(tree, rng)
        changes = [f"{rng.choice(WORDS)}={json.dumps(junk(rng))}" for _ in range(rng.choice([0, 0, 0, 1, 2]))]
        file = folder / "r.yaml"
        yield f"recipe {number} ({tree['name']})", reads(file, text, changes, cost=rng.random() < 0.05)


def damaged_grids(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """A grid with one to four things wrong."""
    for number in range(count):
        yield f"grid {number}", plans(folder / "g.yaml", _text(GRID, rng))


def _text(tree: Any, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 4])):
        tree = damaged(tree, rng) if isinstance(tree, dict) else tree
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")
    return torn(text, rng) if rng.random() < 0.25 else text


def reads(file: Path, text: bytes, changes: list[str] = (), cost: bool = False) -> Callable[[], object]:  # type: ignore[assignment]
    def act() -> None:
        file.write_bytes(text)
        with isolated():
            resolved = load(file, changes)
            if cost:
                estimate(resolved)

    return act


def plans(file: Path, text: bytes) -> Callable[[], object]:
    def act() -> None:
        file.write_bytes(text)
        with isolated():
            plan(file)

    return act


def hostile_yaml(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Bombs, tags, depth, numbers, doubles, paths: each alone, in a recipe, in a grid, as an override; then mixed."""
    canary = folder / "canary"
    pieces = [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [{','.join('*' + m for _ in range(10))}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a {b: *a}\n",
        "? &x [*x]\n: y\n",
        "a: &a\n  <<: *a\n",
        "a: &a [*a]\n",
        f"a: !!python/object/apply:os.system ['touch {canary}']\n",
        "a: !!python/name:os.system ''\n",
        "!!map {a: 1}\n",
        "a: !!binary aGk=\n",
        "a: !<tag:yaml.org,2002:python/object/new:os.system> [x]\n",
        "%TAG ! tag:x\n--- !y\n",
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "a:\n" + "".join(" " * n + "a:\n" for n in range(1, 1200)),
        "a: " + "9" * 100_000 + "\n",
        "a: 0x" + "f" * 100_000 + "\n",
        "a: " + "1_" * 20_000 + "1\n",
        "a: 1e" + "9" * 5000,
        "seed: .nan\n",
        "seed: -.inf\n",
        "seed: 1e309\n",
        "train: {steps: .inf}\n",
        "seed: 99999999999999999999999\n",
        "a: 1\na: 2\n",
        "train: {steps: 1}\ntrain: {steps: 2}\n",
        "1: a\n'1': b\n",
        "null: a\n~: b\n",
        "? [a]\n: b\n",
        "name: ../../../escape\n",
        "name: /tmp/escape\n",
        "name: 'a/../b'\n",
        "name: '..'\n",
        "name: 'x\\0y'\n",
        "extends: ../../../../../../etc/passwd\n",
        "extends: /etc/passwd.yaml\n",
        "extends: r.yaml\n",
        "extends: [a]\n",
        'extends: "\\0.yaml"\n',
        "plugins: [/etc/passwd]\n",
        "plugins: ['../../x.py']\n",
        'plugins: ["\\0.py"]\n',
        "start: {run: ../../..}\n",
        "start: {recipe: /etc/passwd}\n",
        'start: {recipe: "\\0"}\n',
        'start: {run: "\\0"}\n',
        "data: {corpus: {type: text, paths: [/dev/zero]}}\n",
        'data: {corpus: {type: text, paths: ["\\0"]}}\n',
        "\x00",
        "\ufeff\ufeffa: 1",
        "a: \x07\n",
        "a: \x85b\n",
        "\t\ta: 1\n",
        "---\n---\n",
        "--- a\n... b\n",
        "a: |\n" + "x" * 900_000,
        "a: '" + "x" * 900_000 + "'\n",
        "#" * 900_000,
        "\n" * 900_000,
        "a: b: c\n",
        "*undefined",
        "a: *undefined\n",
        "&a\n",
        "name: " + "x" * 100_000 + "\n",
        "x: {" + ",".join(f"k{i}: {i}" for i in range(20_000)) + "}\n",
        "backbone: {" + ",".join(f"k{i}: {i}" for i in range(5000)) + "}\n",
        "evaluations: {? {a: b} : c}\n",
        "axes: {a: [" + ",".join(map(str, range(9000))) + "], b: [" + ",".join(map(str, range(9000))) + "]}\n",
        'axes: {a: {"../../x": {train.steps: 1}}}\n',
        'axes: {a: {x: {"a[99999999]": 1}}}\n',
        "axes: {a: {x: {extends: ../../etc/passwd}}}\n",
        "axes: {a: {x: {extends: 7}}}\n",
        'axes: {a: {x: {extends: "\\0"}}}\n',
    ]
    head = f"extends: {RECIPES.name}.yaml\n"
    (folder / f"{RECIPES.name}.yaml").write_text(yaml.safe_dump(load_tree(RECIPES / "smoke" / "sedd.yaml")))
    grid = yaml.safe_dump(GRID)
    for number in range(count):
        piece = pieces[number % len(pieces)] if number < 4 * len(pieces) else rng.choice(pieces) + rng.choice(pieces)
        way = number // len(pieces) % 4 if number < 4 * len(pieces) else rng.randrange(4)
        raw = piece.encode("utf-8", "surrogatepass")
        label = f"yaml {number}: {piece[:40]!r} in way {way}"
        if way == 0:
            yield label, reads(folder / "r.yaml", raw)
        elif way == 1:
            yield label, reads(folder / "r.yaml", head.encode() + raw)
        elif way == 2:
            yield label, plans(folder / "g.yaml", grid.encode() + raw)
        else:
            path = rng.choice(
                ["train.steps", "name", "backbone", "sampler.shapers", "data.corpus.paths", "a.b.c", piece]
            )
            yield label, reads(folder / "r.yaml", head.encode(), [f"{path}={piece[:200_000]}"])
