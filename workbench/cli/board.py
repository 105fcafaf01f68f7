"""``workbench board``: TensorBoard on runs, a grid or a study, arms grouped, with what was set beside what came out."""

from __future__ import annotations

import argparse
import importlib.util
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.report.board import Member

EVERY = 10.0
"""Seconds between looks at logs that may have grown."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("what", nargs="+", type=Path, help="run folders, their folders, or a file of a grid or a study")
    parser.add_argument("--port", type=int, default=6006, help="where TensorBoard listens (default: %(default)s)")
    parser.add_argument("--host", default="localhost", help="on which address (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="its folder (default: board beside the runs, or in the grid's folder)")
    parser.add_argument("--no-start", action="store_true", help="make the folder, and start nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of a grid: folder of run folders")
    parser.add_argument("--grids", type=Path, default=Path("grids"), help="of a grid: folder of grids' folders")


def run(args: argparse.Namespace) -> int:
    """Make the folder, start TensorBoard on it, and show what logs gain until it is ended."""
    from workbench.core.reading import is_yaml
    from workbench.report.board import Board

    if importlib.util.find_spec("tensorboard") is None:
        raise WorkbenchError("TensorBoard is not installed: pip install tensorboard")
    if not args.no_start:
        _require_free(args.host, args.port)
    members, out = _grid(args) if is_yaml(args.what[0]) else _runs(args)
    if not members:
        raise WorkbenchError(f"{args.what[0]}: nothing has been trained yet")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(out), "--host", args.host]
    with closing(Board(out, members)) as board:
        print(f"{len(members)} runs in {out}", flush=True)
        if args.no_start:
            print(f"tensorboard --logdir '{out}'")
            return 0
        print(f"TensorBoard: http://{args.host}:{args.port}/   (end it by Ctrl-C)", flush=True)
        served = subprocess.Popen([*command, "--port", str(args.port), "--reload_interval", str(EVERY)])
        try:
            while served.poll() is None:
                try:
                    served.wait(EVERY)
                except subprocess.TimeoutExpired:
                    board.refresh()
        except KeyboardInterrupt:
            return 0
        finally:
            served.terminate()
        return int(served.returncode != 0)


def _require_free(host: str, port: int) -> None:
    """Raises ``WorkbenchError`` where the port is taken, or no such address is here."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = f"port {port} of {host} cannot be had ({error})"
            raise WorkbenchError(f"{why}: name another by --port, as in --port {port % 60000 + 1}") from error


def _runs(args: argparse.Namespace) -> tuple[Sequence[Member], Path]:
    from workbench.report.board import of_runs
    from workbench.report.collect import collect
    from workbench.run import every

    paths: list[Path] = []
    for path in args.what:
        paths += [path] if (path / "status").is_file() else [run.path for run in every(path)] or [path]
    return of_runs(collect(paths)), args.out or paths[0].parent / "board"


def _grid(args: argparse.Namespace) -> tuple[Sequence[Member], Path]:
    from dataclasses import replace

    from workbench.grid.folder import GridFolder
    from workbench.grid.status import standings
    from workbench.report.board import of_plan
    from workbench.report.collect import collect, read_results
    from workbench.study.plan import planned as plan

    if len(args.what) > 1:
        raise WorkbenchError("show one grid at a time, or run folders")
    planned = plan(args.what[0])
    folder = GridFolder.open(planned, args.grids)
    found = standings(planned, folder, args.runs)
    runs = {run.path: run for run in collect({one.run.path for one in found if one.run is not None})}
    for one in found:
        if one.run is not None and one.figures is not None:
            runs[one.figures] = replace(runs[one.run.path], results=read_results(one.figures))
    return of_plan(planned, found, runs), args.out or folder.path / "board"
