"""Grid files made of the smoke recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SMOKE = Path(__file__).parents[2] / "recipes/smoke"


def written(folder: Path, **settings: Any) -> Path:
    """A grid's file in ``folder``, over the smallest SEDD there is."""
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({"base": str(SMOKE / "sedd.yaml"), **settings}, sort_keys=False), encoding="utf-8")
    return path


def figures(runs: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Every figure of every run, by hashes, but for times."""
    found = {}
    for path in sorted(runs.glob("*/measured/*.json")):
        values = json.loads(path.read_text())["values"]
        found[path.parent.parent.name[-8:], path.stem] = {
            value["name"]: value["value"] for value in values if "second" not in value["name"]
        }
    return found


def pids(folder: Path) -> list[int]:
    """Workers that have a cell in hand, or had one when they were killed."""
    found = []
    for claim in folder.glob("grids/*/claims/*"):
        words = claim.read_text().split()
        found += [int(words[1])] if words else []
    return found
