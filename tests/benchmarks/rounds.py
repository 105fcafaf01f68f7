"""What each round of a strategy adds: the share of attempts solved and their network calls by the end of every round.

``python tests/benchmarks/rounds.py recipes/grids/sudoku4.yaml``: a Markdown table, one row an arm of the grid that has
rounds, from figures that are there (``workbench grid`` makes them). Two arms are compared at equal calls.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.grid.cells import plan
from workbench.grid.folder import GridFolder
from workbench.grid.status import standings
from workbench.report.arms import Arm, arms_of


def rows(arms: list[Arm]) -> list[list[str]]:
    """Label, then «solved at calls» for each round."""
    found = []
    for arm in arms:
        extra = next((value.extra for run in arm.repeats.values() if run.results for value in run.results.values), {})
        rounds = sum(name.startswith("solved_after_") for name in extra)
        told = [f"{extra[f'solved_after_{r}']:.3f} at {extra[f'calls_after_{r}']:.2f}" for r in range(rounds)]
        if told:
            found.append([arm.label, *told])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--grids", type=Path, default=Path("grids"))
    args = parser.parse_args()
    planned = plan(args.grid)
    found = standings(planned, GridFolder(args.grids / planned.folder_name), args.runs)
    table = rows(arms_of(found, planned.report.over))
    width = max((len(row) for row in table), default=1)
    heads = ["solved, at calls", "first draw", *(f"{turn} more" for turn in range(1, width))][:width]
    for row in [heads, ["---"] * width, *(row + [""] * (width - len(row)) for row in table)]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
