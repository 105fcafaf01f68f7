"""The model card: README.md of an exported folder, as the Hugging Face hub shows it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backbones.cost import Parameters
from backbones.weights.base import Layout
from backbones.weights.native import RECIPE
from workbench.core.loading import Resolved
from workbench.core.part import settings, summary
from workbench.core.tree import dump_yaml
from workbench.metrics.results import Results
from workbench.metrics.value import Value


def card(
    resolved: Resolved,
    layout: Layout,
    size: Parameters,
    step: int,
    averaged: bool,
    results: Results | None,
    origin: Mapping[str, Any],
) -> str:
    """Markdown: what it is, how to load it, its figures, its recipe.

    ``results``: figures of these very weights, if there are any; ``origin``: the note of an import.
    """
    data = resolved.data
    backbone, process, tokens = data["backbone"], data["process"], data["data"]["tokenizer"]
    parts = [process[part]["type"] for part in ("graph", "noise", "readout") if part in process]
    on = f" ({', '.join(parts)})" if parts else ""
    which = "averaged over training" if averaged and data["train"]["ema"] else "of the last update"
    lines = [
        "---",
        "library_name: sedd-workbench",
        "pipeline_tag: text-generation",
        "tags: [text-diffusion, score-entropy]",
        "---",
        f"# {resolved.name}",
        f"A `{backbone['type']}` of {size.total:,} parameters ({size.non_embedding:,} without embeddings and head), "
        f"process `{process['type']}`{on}, on blocks of {data['data']['length']} tokens of tokenizer "
        f"`{tokens['type']}`. Weights after {step:,} updates, {which}, in layout `{layout.type_name}`: "
        f"{summary(type(layout))}",
        "",
        *_origin(origin),
        "## Use",
        "```bash",
        import_words(resolved, layout, "FOLDER"),
        "workbench sample runs/NAME-HASH --count 4",
        "```",
        "Where there is a folder `tokenizer/`, the tokenizer was learned and lies there; `plugins/` holds code:",
        "read it before you `--trust` it.",
        "",
        *_figures(results),
        "## Recipe",
        "```yaml",
        dump_yaml(resolved.portable()).rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def import_words(resolved: Resolved, layout: Layout, folder: str) -> str:
    """The command that imports an exported folder, with what its config does not hold."""
    words = ["workbench", "import", shlex.quote(folder)]
    tokenizer = resolved.node.find("data.tokenizer")
    if RECIPE not in layout.config(resolved.portable(), 1, 0) and tokenizer is not None:
        schema = settings(tokenizer.part)
        told = {name: value for name, value in tokenizer.settings.items() if value != schema[name].default}
        kind = tokenizer.part.type_name
        words.append(shlex.quote(f"data.tokenizer={json.dumps({'type': kind, **told}) if told else kind}"))
        words.append(f"--layout {layout.type_name}")
    return " ".join([*words, *(["--trust"] if resolved.plugins else [])])


def _origin(origin: Mapping[str, Any]) -> Iterator[str]:
    if origin:
        source, revision = str(origin.get("source")), origin.get("revision")
        # a path of this machine says nothing to a reader elsewhere
        where = f"{source} at {revision}" if revision else Path(source).name
        yield f"The weights were not trained here: they were imported from {where}."
        yield ""


def _figures(results: Results | None) -> Iterator[str]:
    if results is None:
        return
    yield "## Figures"
    yield "| figure | value | ± | of real text |"
    yield "|---|--:|--:|--:|"
    for value in results.values:
        if value.value is not None:
            unit = f", {value.unit}" if value.unit else ""
            yield f"| {value.name}{unit} | {_number(value)} | {_short(value.se)} | {_short(value.real)} |"
    yield ""
    yield f"Measured {results.provenance.get('date')} on {results.provenance.get('device')}. ≤: a bound."
    yield ""


def _number(value: Value) -> str:
    relation = "" if value.relation == "=" else f"{value.relation} "
    return relation + _short(value.value)


def _short(number: float | None) -> str:
    return "–" if number is None else f"{number:.4g}"
