"""``workbench check``: all problems of recipes in one go, what good ones cost, and the contracts of
plug-ins."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.cli.places import plug_in
from workbench.cli.tables import amount, print_figures, print_json
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.reading import is_yaml

LONGEST, MOST = 1 << 24, 1 << 16
"""The longest sequence and the most processes that are costed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("override", nargs="*", metavar="FILE", help="recipes, and settings to change in all of them")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plug-in file to load first")
    parser.add_argument(
        "--contract", action="append", default=[], metavar="PLUGIN.py", help="run the contract checks on its parts"
    )
    parser.add_argument(
        "--lengths", type=_lengths, default=[], metavar="L,L,…", help="also the cost at these lengths, as in 256,1024"
    )
    parser.add_argument(
        "--processes", type=_counts, default=[], metavar="N,N,…",
        help="also what each of N processes holds and computes",
    )
    parser.add_argument("--json", action="store_true", help="print data for another program")


def run(args: argparse.Namespace) -> int:
    """Check everything named; 0 when nothing is wrong, 1 when something is, 2 when nothing was named."""
    files = _files(args.override)
    changes = [word for word in args.override if word not in files]
    if not files and not args.contract:
        error = WorkbenchError("name recipes to check, or a plug-in: --contract my_gru.py")
        error.exit_code = 2
        raise error
    plug_in(args.plugin)
    recipes = [_recipe(file, changes, args.lengths, args.processes) for file in files]
    contracts = [found for file in args.contract for found in _contract(file)]
    bad = sum(bool(found["problems"]) for found in (*recipes, *contracts))
    if args.json:
        print_json({"recipes": recipes, "contracts": contracts})
        return 1 if bad else 0
    _print_recipes(recipes)
    for found in contracts:
        verdict = "fails its contract" if found["problems"] else "keeps its contract"
        if found["problems"] is None:
            verdict = "registered; there are no contract checks for this kind"
        print(f"{found['part'] or found['file']}: {verdict}")
        for problem in found["problems"] or ():
            print(f"  {problem}")
    return 1 if bad else 0


def _files(words: list[str]) -> list[str]:
    """The words that name recipes. Beside a recipe, a word that neither is nor looks like a file is a setting whose
    value was left out or stands apart, as in ``train.steps 100``: what reads settings says how they are written."""
    named = [word for word in words if Path(word).is_file() or ("=" not in word and (is_yaml(word) or "/" in word))]
    return named or [word for word in words if "=" not in word]


def _lengths(text: str) -> list[int]:
    return _numbers(text, LONGEST, "lengths as in 256,1024")


def _counts(text: str) -> list[int]:
    return _numbers(text, MOST, "numbers of processes as in 1,8")


def _numbers(text: str, most: int, what: str) -> list[int]:
    """Positive integers with commas between them."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1 or max(found) > most:
        raise argparse.ArgumentTypeError(f"needs {what}; found {text!r}")
    return found


def _recipe(file: str, changes: list[str], lengths: list[int], processes: list[int]) -> dict[str, Any]:
    from workbench.check import at_lengths, at_processes, estimate
    from workbench.core.plugins import isolated
    from workbench.recipe import load

    found: dict[str, Any] = {"file": file, "problems": []}
    try:
        with isolated():
            resolved = load(file, changes)
            found |= {"name": resolved.name, "hash": resolved.hash} | asdict(estimate(resolved))
            if lengths:
                found["lengths"] = [asdict(one) for one in at_lengths(resolved, lengths)]
            if processes:
                shares = at_processes(resolved, processes)
                found["shares"] = [{**asdict(one), "setting": str(one.setting), "total": one.total} for one in shares]
            return found
    except RecipeError as error:
        found["problems"] = [{"path": problem.path, "message": problem.message} for problem in error.problems]
    except WorkbenchError as error:
        found["problems"] = [{"path": "", "message": str(error)}]
    return found


def _contract(file: str) -> list[dict[str, Any]]:
    """The verdict on each part of a plug-in file."""
    from workbench.check import contract_problems
    from workbench.core.index import import_parts
    from workbench.core.plugins import load_plugin

    import_parts()
    try:
        parts = load_plugin(Path(file)).parts()
    except WorkbenchError as error:
        return [{"file": file, "part": "", "problems": [str(error)]}]
    if not parts:
        return [{"file": file, "part": "", "problems": ["registers no part: no class stands under @Kind.register"]}]
    return [
        {"file": file, "part": f"{part.kind} {part.type_name}", "problems": problems}
        for part, problems in contract_problems(parts)
    ]


def _print_recipes(recipes: list[dict[str, Any]]) -> None:
    good = [found for found in recipes if not found["problems"]]
    if good:
        rows = [
            (
                found["file"],
                found["hash"],
                amount(found["parameters"]),
                amount(found["non_embedding"]),
                amount(found["flops_per_token"]),
                amount(found["training_flops"]),
                amount(found["tokens_per_step"]) + (f" × {found['copies']}" if found["copies"] > 1 else ""),
                f"{amount(found['training_bytes'])}B ({found['setting']})",
                f"{found['vocab']}{' (assumed: the text decides)' if found['vocab_assumed'] else ''}",
            )
            for found in good
        ]
        columns = (
            "recipe", "hash", "parameters", "non-embedding", "FLOPs/token", "in training", "tokens/step",
            "training memory", "vocab",
        )  # fmt: skip
        print_figures(columns, rows)
    rows = [
        (
            found["file"],
            str(one["length"]),
            amount(one["flops_per_token"]),
            amount(one["activation_bytes"]) + "B",
            "–" if one["state_bytes"] is None else amount(one["state_bytes"]) + "B",
        )
        for found in good
        for one in found.get("lengths", ())
    ]
    if rows:
        print_figures(("recipe", "length", "FLOPs/token", "activations/token", "cache of a sequence"), rows)
    for found in good:
        _print_shares(found)
    for found in recipes:
        if found["problems"]:
            print(f"{found['file']}: {len(found['problems'])} problem{'s' * (len(found['problems']) > 1)}")
            for problem in found["problems"]:
                print(f"  {problem['path'] or 'recipe'}: {problem['message']}")


def _print_shares(found: dict[str, Any]) -> None:
    """What each of several processes holds and computes, by how they share."""
    rows = [
        (
            f"{one['parallel']} × {one['processes']}",
            str(one["sequences"]),
            *(amount(value) + "B" for value in one["held"].values()),
            *(amount(one[name]) + "B" for name in ("activations", "logits", "work", "total")),
            amount(one["flops"]),
        )
        for one in found.get("shares", ())
    ]
    if rows:
        columns = (
            "processes", "sequences", "parameters", "gradients", "optimizer", "average", "gathered", "activations",
            "logits", "backward", "all", "FLOPs/update",
        )  # fmt: skip
        where = found["shares"][0]["setting"]
        print_figures(columns, rows, f"{found['file']}: each process at its fullest ({where})")
