"""``workbench audit``: a sampler on texts whose law is known, with the exact score in place of a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.core.errors import WorkbenchError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("what", help="an audit's recipe, a training recipe, or a sampler or predictor by name")
    parser.add_argument("override", nargs="*", help="settings to change, as in steps=[16,64] or sampler.steps=32")
    parser.add_argument("--out", type=Path, help="folder for audit.json, audit.md and figures (default: audits/NAME)")


def run(args: argparse.Namespace) -> int:
    """Run, print the tables, write the files."""
    import torch

    from workbench.audit.measure import run_audit
    from workbench.audit.section import load_audit
    from workbench.audit.write import markdown, write

    resolved = load_audit(args.what, args.override)
    folder = args.out or Path("audits") / resolved.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # before any work is lost
        raise WorkbenchError(f"{folder} cannot be made ({error.strerror}); name a folder by --out") from error
    with torch.no_grad():
        findings = run_audit(resolved, print)
    print()
    print(markdown(findings))
    print()
    for path in write(findings, folder):
        print(path)
    return 0
