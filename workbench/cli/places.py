"""Where commands keep runs and packed text."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_places(parser: argparse.ArgumentParser) -> None:
    """``--runs`` and ``--cache``."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders (default: runs)")
    parser.add_argument(
        "--cache", type=Path, default=None, help="folder of packed text (default: $WORKBENCH_CACHE, else cache)"
    )
