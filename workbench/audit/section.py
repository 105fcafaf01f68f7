"""What an audit is made of; read from its own recipe, from a training recipe, or made for a part by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from graphs.base import Graph, Noise
from samplers.base import Predictor, Sampler, ScoreView
from workbench.audit.base import Target
from workbench.core import index
from workbench.core.bounds import Count
from workbench.core.errors import Problem, WorkbenchError
from workbench.core.loading import Resolved, load_as, resolve_as
from workbench.core.node import Node
from workbench.core.part import Maker, Section, did_you_mean
from workbench.core.tree import load_tree, override
from workbench.recipe import load

TARGETS = {"zipf": {"type": "zipf"}, "markov": {"type": "markov"}, "joint": {"type": "joint"}}
PREFIX = {"prefix": {"type": "joint", "given": 1}}
STEPS = [4, 16, 64]


class Audit(Section):
    """An audit.

    Settings:
        name: how it is called
        graph: the forward process, made for each target's vocabulary
        noise: its schedule; the graph's usual one where left out
        samplers: what is audited, by name
        targets: texts of known law, by name
        steps: step counts that each sampler is tried with
        seed: of all that is drawn
        plugins: files with parts of your own
    """

    usual: ClassVar[dict[str, Any]] = {"graph": {"type": "absorbing"}}

    def __init__(
        self,
        name: str,
        graph: Maker[Graph],
        noise: Noise,
        samplers: dict[str, Sampler],
        targets: dict[str, Target],
        steps: Annotated[list[Count], MinLen(1)] = (4, 16, 64),  # type: ignore[assignment]
        seed: int = 0,
        plugins: list[str] = (),  # type: ignore[assignment]
    ) -> None:
        """Keep the parts."""
        self.name, self.graph, self.noise = name, graph, noise
        self.samplers, self.targets, self.steps, self.seed = samplers, targets, steps, seed

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Samplers that do not read scores."""
        yield from super().misfits(node, root)
        for child in node.settings["samplers"].values():
            part: Any = child.part
            if not issubclass(ScoreView, part.needs):
                yield Problem(
                    child.path,
                    f"targets offer a ScoreView, and sampler {part.type_name!r} needs a {part.needs.__name__}: audit a "
                    "sampler of scores, such as `reverse`",
                )


def load_audit(what: str, overrides: Sequence[str] = ()) -> Resolved:
    """An audit from its recipe, or of a training recipe's sampler, or of a predictor or sampler by its name.

    Raises:
        RecipeError: with every problem of the recipe.
        WorkbenchError: there is no such file or part.
    """
    path = Path(what)
    if path.is_file():
        if "samplers" in load_tree(path):
            return load_as(Audit, path, overrides)
        resolved = load(path, overrides)
        data, (graph, noise) = resolved.data, (resolved.node.under("process", kind) for kind in ("graph", "noise"))
        if graph is None or noise is None:
            raise WorkbenchError(f"{what}: its process has no graph, and targets are audited by scores")
        own = {"plugins": data.get("plugins") or [], "graph": graph.as_data(), "noise": noise.as_data()}
        steps = sorted({*STEPS, int(data["sampler"].get("steps", STEPS[0]))})
        return resolve_as(Audit, _tree(path.stem, data["sampler"]) | own | {"steps": steps}, path)
    index.import_parts()
    named: Mapping[str, Any] = {
        **{name: {"type": "reverse", "predictor": {"type": name}} for name in Predictor.registered},
        **{name: {"type": name} for name in Sampler.registered},
    }
    if what not in named:
        raise WorkbenchError(f"{what!r} is no recipe and no sampler or predictor.{did_you_mean(what, named)}")
    return resolve_as(Audit, override(_tree(what, named[what]), overrides))


def _tree(name: str, sampler: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "samplers": {name.replace("-", "_"): dict(sampler)}, "targets": TARGETS | PREFIX}
