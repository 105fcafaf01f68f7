"""What ``workbench grid --dry-run`` shows: cells, what they cost, how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.grid.cells import Plan
    from workbench.grid.fairness import Costed


def show_plan(planned: Plan, networks: Sequence[Costed], workers: int, as_json: bool) -> None:
    """Print it, as tables or as data."""
    from workbench.cli.tables import amount, print_figures, print_json, print_rows
    from workbench.grid.folder import described
    from workbench.train.progress import clock

    rows = [
        {
            "training": one.name,
            "cells": len(one.cells),
            "hash": one.cells[0].training.hash,
            "non_embedding": one.cost.non_embedding,
            "parameters": one.cost.parameters,
            "flops_per_token": one.cost.flops_per_token,
            "tokens": one.tokens,
            "memory": one.cost.training_bytes,
            "flops": one.cost.training_flops * one.tokens,
            "seconds": None if one.seconds is None else round(one.seconds, 3),
            "seconds_by": one.source,
            "trained": one.trained,
        }
        for one in networks
    ]
    if as_json:
        print_json({**described(planned), "trainings": rows, "expected": expected(networks, workers, planned)})
        return
    print_rows(
        ("cell", "trains", "measures"),
        [(cell.name, _trains(cell), cell.work[1][:8] if not cell.options else "chosen") for cell in planned.cells],
        f"{planned.name}: {len(planned.cells)} cells, {len(networks)} trainings",
    )
    print_figures(
        (
            "training",
            "cells",
            "time",
            "parameters",
            "non-embedding",
            "FLOPs/token",
            "tokens",
            "memory",
            "training FLOPs",
        ),
        [
            (
                row["training"],
                str(row["cells"]),
                "?" if row["seconds"] is None else clock(row["seconds"]),
                amount(row["parameters"]),
                amount(row["non_embedding"]),
                amount(row["flops_per_token"]),
                amount(row["tokens"]),
                amount(row["memory"]) + "B",
                amount(row["flops"]),
            )
            for row in rows
        ],
    )
    print(in_words(networks, workers, planned))


def expected(networks: Sequence[Costed], workers: int, planned: Plan) -> dict[str, Any]:
    """Hours of a worker, of the wall clock and their price for the trainings that are due; evaluations come on top."""
    due = [one for one in networks if not one.trained]
    hourly = max((one.grid.hourly or 0.0 for one in planned.grids), default=0.0)
    known = [one.seconds for one in due if one.seconds is not None]
    hours = sum(known) / 3600
    return {
        "trainings_due": len(due),
        "of_unknown_time": len(due) - len(known),
        "worker_hours": hours,
        "wall_clock_hours": max([hours / max(1, min(workers, len(due))), *(one / 3600 for one in known)]),
        "price": hours * hourly if hourly else None,
    }


def in_words(networks: Sequence[Costed], workers: int, planned: Plan) -> str:
    """``expected`` as lines, with who says so."""
    from workbench.train.progress import clock

    facts = expected(networks, workers, planned)
    if not facts["trainings_due"]:
        return "All is trained; evaluations may be due."
    known = facts["trainings_due"] - facts["of_unknown_time"]
    sources = list(dict.fromkeys(one.source for one in networks if not one.trained))
    lines = []
    if known:
        one, all_of_them = (clock(3600 * facts[name]) for name in ("worker_hours", "wall_clock_hours"))
        time = f"{one} of a worker, {all_of_them} with {workers}"
        price = f", at a price of {facts['price']:.2f}" if facts["price"] is not None else ""
        lines.append(
            f"Expected for {known} of {facts['trainings_due']} trainings due: {time}{price}; evaluations not counted."
        )
    if facts["of_unknown_time"]:
        lines.append(f"Of {facts['of_unknown_time']} trainings nobody knows how long they take.")
    return "\n".join([*lines, *(f"  by {source}" for source in sources[:8])])


def _trains(cell: Any) -> str:
    return f"{len(cell.options)} values" if cell.options else cell.work[0][:8]
