"""Running an audit: every sampler on every target at every step count, beside exact texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from graphs.base import Graph, Noise
from samplers.base import Sampler, Samples
from samplers.race import race_weights
from workbench.audit.base import Target, floor
from workbench.audit.targets import Zipf
from workbench.core.build import build
from workbench.core.loading import Resolved
from workbench.core.node import Node
from workbench.core.rng import Rng


@dataclass(frozen=True)
class Row:
    """One sampler on one target: ``figures`` of its texts, ``calls`` and ``seconds`` they took, ``changed`` positions a
    text, ``pace``: the largest distance of the masked share from the schedule's (None where nothing is masked)."""

    target: str
    sampler: str
    steps: int
    calls: int
    seconds: float
    changed: float
    figures: dict[str, float]
    pace: float | None = None


@dataclass(frozen=True)
class Findings:
    """An audit's rows. ``exact``: per target and figure (mean, deviation) of exact texts; ``truths``: closed forms;
    ``float32``: per target and step count, nats that a float32 race draws by its closed form."""

    name: str
    graph: str
    rows: list[Row] = field(default_factory=list)
    exact: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    truths: dict[str, dict[str, float]] = field(default_factory=dict)
    float32: dict[str, dict[int, float]] = field(default_factory=dict)


def run_audit(resolved: Resolved, tell: Callable[[str], None] = lambda text: None) -> Findings:
    """Everything, in order. ``tell`` hears each row as it is done."""
    settings = resolved.node.settings
    rng, noise = Rng(int(settings["seed"])), build(settings["noise"])
    findings = Findings(str(settings["name"]), settings["graph"].part.type_name)
    for target_name, target_node in settings["targets"].items():
        target: Target = build(target_node)
        graph: Graph = build(settings["graph"], {"vocab": target.vocab})
        findings.exact[target_name] = floor(target, rng.child("exact"))
        findings.truths[target_name] = dict(target.truths())
        if isinstance(target, Zipf) and graph.blind:
            findings.float32[target_name] = {
                steps: closed_form(target, graph, noise, steps) for steps in settings["steps"]
            }
        for name, node in settings["samplers"].items():
            for steps in _steps(node, settings["steps"]):
                row = _row(target_name, target, name, node, steps, graph, noise, rng)
                findings.rows.append(row)
                nats = row.figures["nats"]
                tell(f"{target_name:<8} {name:<20} {steps:>5} steps {row.seconds:7.1f} s   {nats:.3f} nats")
    return findings


def _steps(node: Node, steps: list[int]) -> list[int]:
    """The step counts to try; a sampler without that setting has but its own pace."""
    return steps if "steps" in node.settings else steps[:1]


def _row(
    target_name: str, target: Target, name: str, node: Node, steps: int, graph: Graph, noise: Noise, rng: Rng
) -> Row:
    if "steps" in node.settings:
        node = replace(node, settings={**node.settings, "steps": steps})
    sampler: Sampler = build(node)
    canvas = target.canvas()
    samples = sampler.draw(target.view(graph, noise), canvas, rng.child(f"{name}/{steps}"))
    changed = sum(samples.trace.get("moved", ())) / target.texts
    free = int((~canvas.fixed_BL).sum())
    pace = _pace(samples, noise, free) if graph.mask else None
    figures = {key: round(value, 6) for key, value in target.figures(samples.tokens_BL).items()}
    return Row(target_name, name, steps, samples.calls, round(samples.seconds, 3), changed, figures, pace)


def _pace(samples: Samples, noise: Noise, free: int) -> float | None:
    """max over steps of |masked share − (1 − e^-σ(s))/(1 − e^-σ(1))|; None where the sampler keeps no such trace."""
    live, times = samples.trace.get("live"), samples.trace.get("times")
    if not live or not times:
        return None
    s = torch.tensor(times, dtype=torch.float64)
    due = torch.where(s > 0, torch.expm1(-noise.total(s)) / torch.expm1(-noise.total(torch.ones_like(s))), 0.0)
    last = torch.cat([s[1:] != s[:-1], torch.ones(1, dtype=torch.bool)])  # after a step's stages and correctors
    return round(float((torch.tensor(live).double() / free - due).abs()[last].max()), 6)


def closed_form(target: Zipf, graph: Graph, noise: Noise, steps: int) -> float:
    """Nats a token of a float32 race's texts on independent positions, by the race's closed form at every step."""
    t = torch.linspace(1, 1e-5, steps + 1, dtype=torch.float64)
    sigma = noise.total(t)
    masked, law_V = 1.0, torch.zeros_like(target.p_V)
    for leave in graph.leave(sigma[:-1], sigma[1:]).tolist():
        odds_V = race_weights(target.p_V, min(leave, 1 - 1e-12))
        share_V = odds_V / (1 + odds_V.sum())
        law_V += masked * share_V
        masked *= 1 - float(share_V.sum())
    law_V += masked * target.p_V
    return float(-(law_V * target.p_V.log()).sum())


def as_data(findings: Findings) -> dict[str, Any]:
    """Plain data."""
    return {**vars(findings), "rows": [vars(row) for row in findings.rows]}
