"""Where commands keep runs and packed text, and which plug-ins they load."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_places(parser: argparse.ArgumentParser) -> None:
    """``--runs`` and ``--cache``."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders (default: runs)")
    parser.add_argument(
        "--cache", type=Path, default=None, help="folder of packed text (default: $WORKBENCH_CACHE, else cache)"
    )


def plug_in(files: Iterable[str]) -> None:
    """Load plug-in files named on the command line: their parts can then be named in settings.

    Raises:
        WorkbenchError: a file is absent, or raises.
    """
    from workbench.core.plugins import load_plugin

    for file in files:
        load_plugin(file)
