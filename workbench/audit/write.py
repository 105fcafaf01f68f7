"""An audit as files: JSON, Markdown tables, and one figure a target (SVG and PNG)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from workbench.audit.measure import Findings, Row, as_data

WORDS = {
    "nats": "−log p, nats", "tv": "total variation", "rare": "rare tokens", "text_entropy": "entropy of a text",
}  # fmt: skip
"""Figures as headings."""
CHANCE = (
    "±: deviation over sets of as many texts, drawn by the law itself. A faithful sampler's figure is off by as much "
    "by chance; more texts (`targets.NAME.texts`) make it less."
)


def write(findings: Findings, folder: Path) -> list[Path]:
    """Write everything into ``folder``; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "audit.json", folder / "audit.md"
    data.write_text(json.dumps(as_data(findings), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(markdown(findings) + "\n", encoding="utf-8")
    return [data, page, *(path for target in findings.exact for path in _plot(findings, target, folder))]


def markdown(findings: Findings) -> str:
    """One table a target: exact texts first, with their spread, which is the noise floor."""
    return "\n\n".join([*(_table(findings, target) for target in findings.exact), CHANCE])


def _table(findings: Findings, target: str) -> str:
    exact, truths = findings.exact[target], findings.truths[target]
    names = list(exact)
    head = ["sampler", "steps", *(WORDS.get(name, name) for name in names), "pace off by", "changed", "calls", "s"]
    floors = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in exact.values()]
    lines = [
        f"**{target}**, graph {findings.graph}"
        + "".join(f"; true {WORDS.get(name, name)}: {value:.4f}" for name, value in truths.items()),
        "",
        _line(head),
        _line(["---", *["--:"] * (len(head) - 1)]),
        _line(["*exact texts*", "–", *floors, "–", "–", "–", "–"]),
    ]
    for row in findings.rows:
        if row.target == target:
            pace = "–" if row.pace is None else f"{row.pace:.3f}"
            values = [f"{row.figures[name]:.4f}" for name in names]
            cost = [pace, f"{row.changed:.1f}", str(row.calls), f"{row.seconds:.2f}"]
            lines.append(_line([row.sampler, str(row.steps), *values, *cost]))
    for steps, nats in findings.float32.get(target, {}).items():
        blank = ["–"] * (len(head) - 3)
        lines.append(_line(["*float32 race, closed form*", str(steps), f"{nats:.4f}", *blank]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plot(findings: Findings, target: str, folder: Path) -> list[Path]:
    """Nats and total variation against steps, the truth and the floor as bands."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from workbench.report.plots import STYLE, colour

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, name in zip(figure.subplots(1, 2), ("nats", "tv"), strict=True):
            mean, spread = findings.exact[target][name]
            axes.axhspan(mean - 2 * spread, mean + 2 * spread, color="#d9dce1", label="exact texts, ± 2 deviations")
            for index, (sampler, rows) in enumerate(_by_sampler(findings, target).items()):
                steps, values = [row.steps for row in rows], [row.figures[name] for row in rows]
                line = ("-", "--", ":")[index // 8 % 3]
                axes.plot(steps, values, line, color=colour(index), marker="o", ms=3, lw=1.2, label=sampler)
            if name == "nats" and target in findings.float32:
                points = findings.float32[target]
                axes.plot(list(points), list(points.values()), "k--", lw=1, label="float32 race, closed form")
            axes.set(xscale="log", xlabel="steps", ylabel=WORDS[name], title=f"{target}: {WORDS[name]}")
        figure.axes[0].legend(fontsize=6, ncols=2)
        paths = [folder / f"{target}.{kind}" for kind in ("svg", "png")]
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return paths


def _by_sampler(findings: Findings, target: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in findings.rows:
        if row.target == target:
            found.setdefault(row.sampler, []).append(row)
    return found
