"""Grid files made of the smoke recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SMOKE = Path(__file__).parents[2] / "recipes/smoke"


def written(folder: Path, **settings: Any) -> Path:
    """A grid's file in ``folder``, over the smallest SEDD there is."""
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({"base": str(SMOKE / "sedd.yaml"), **settings}, sort_keys=False), encoding="utf-8")
    return path
