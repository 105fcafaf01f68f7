"""The reverse sampler: what it asks of the network, what it keeps, what it refuses."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.noise import LogLinear
from samplers.base import Canvas, Predictor, Sampler, ScoreView, View
from samplers.draw import drive
from samplers.exact import ExactNextToken, ExactView, IidView, zipf
from samplers.predictors.analytic import Analytic
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse, turns
from samplers.times import Cosine, Uniform
from tests.samplers.toys import Remask, TwoLooks, law_and_view, reverse
from workbench.core.errors import WorkbenchError
from workbench.core.part import Part, Section
from workbench.core.rng import Rng
from workbench.core.spec import Node, build, misfits, resolve


def test_a_blind_rule_asks_nothing_where_nothing_moves() -> None:
    """One call a law in which a row moves, none in the others; the sighted rule asks at every law."""
    view = IidView(Absorbing(50), LogLinear(), zipf(50), length=8)
    blind = reverse("normalised", 200).draw(view, Canvas.blank(1, 8), Rng(0))
    assert blind.calls == sum(rows > 0 for rows in blind.trace["moved"]) <= 8
    assert sum(blind.trace["moved"]) == 8
    sighted = reverse("analytic", 200).draw(view, Canvas.blank(1, 8), Rng(0))
    assert sighted.calls >= 100
    assert torch.equal(blind.tokens_BL, sighted.tokens_BL)  # same numbers, same law


def test_a_canvas_without_free_positions_asks_nothing() -> None:
    for name in ("absorbing", "uniform"):
        for rule in ("analytic", "normalised", "euler"):
            _, view = law_and_view(name, 2)
            canvas = Canvas(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1).long())
            samples = reverse(rule, 4).draw(view, canvas, Rng(0))
            assert samples.calls == 0 and samples.tokens_BL.tolist() == [[1, 2]]


@pytest.mark.parametrize("name", ["absorbing", "uniform", "ring"])
@pytest.mark.parametrize("rule", ["analytic", "normalised", "euler"])
def test_fixed_tokens_never_change(name: str, rule: str) -> None:
    """At no law, wherever they stand."""
    _, view = law_and_view(name, 3)
    canvas = Canvas.blank(60, 3)
    generator = torch.Generator().manual_seed(0)
    canvas.fixed_BL[:] = torch.rand(60, 3, generator=generator) < 0.5
    canvas.x_BL[:] = torch.randint(0, view.vocab, (60, 3), generator=generator)
    sampler = reverse(rule, 5)
    seen = []
    drive(sampler.walk(view, sampler.begin(view, canvas, Rng(1))), Rng(1), view, lambda s, law, n: seen.append(s.x_BL))
    assert len(seen) == 6
    assert all(torch.equal(x_BL[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL]) for x_BL in seen)


def test_the_cleanup_drops_the_mask_and_may_be_left_out() -> None:
    _, view = law_and_view("absorbing", 3)
    canvas = Canvas.blank(200, 3)
    kept = Reverse(Analytic(), Uniform(0.5), 4, cleanup=False).draw(view, canvas, Rng(0))
    assert int((kept.tokens_BL == view.vocab).sum()) > 100
    assert len(kept.trace["moved"]) == 4
    cleaned = Reverse(Analytic(), Uniform(0.5), 4).draw(view, canvas, Rng(0))
    assert int(cleaned.tokens_BL.max()) < view.vocab and len(cleaned.trace["moved"]) == 5


def test_the_plan_names_every_law() -> None:
    rule, corrector, cleanup = TwoLooks(), Remask(), Normalised()
    plan = turns(rule, [1.0, 0.5, 0.1], (corrector,), cleanup)
    assert [(turn.rule, turn.stage, turn.t, turn.s) for turn in plan] == [
        (rule, 0, 1.0, 0.5),
        (rule, 1, 1.0, 0.5),
        (corrector, 0, 0.5, 0.5),
        (rule, 0, 0.5, 0.1),
        (rule, 1, 0.5, 0.1),
        (corrector, 0, 0.1, 0.1),
        (cleanup, 0, 0.1, 0.0),
    ]


def test_progress_and_trace() -> None:
    _, view = law_and_view("uniform", 2)
    heard: list[float] = []
    samples = reverse("euler", 4).draw(view, Canvas.blank(5, 2), Rng(0), heard.append)
    assert heard == [0.2, 0.4, 0.6000000000000001, 0.8, 1.0] or heard == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert len(samples.trace["clipped"]) == 5 and max(samples.trace["clipped"]) > 0  # Euler over-steps at 4 steps
    assert samples.calls == 5 and samples.seconds > 0


def test_a_canvas_that_does_not_fit_is_refused() -> None:
    _, view = law_and_view("absorbing", 2)
    with pytest.raises(WorkbenchError, match="the canvas has 3 positions, the model 2"):
        reverse("analytic", 2).draw(view, Canvas.blank(1, 3), Rng(0))
    canvas = Canvas.blank(1, 2)
    canvas.fixed_BL[0, 0], canvas.x_BL[0, 0] = True, view.vocab
    with pytest.raises(WorkbenchError, match="outside the vocabulary"):
        reverse("analytic", 2).draw(view, canvas, Rng(0))


def test_an_exact_view_needs_a_positive_law() -> None:
    with pytest.raises(WorkbenchError, match="positive"):
        ExactView(Absorbing(2), LogLinear(), torch.tensor([0.0, 1.0]))


def test_grids() -> None:
    uniform, cosine = Uniform().grid(4, LogLinear()), Cosine().grid(4, LogLinear())
    torch.testing.assert_close(uniform, torch.linspace(1, 1e-5, 5, dtype=torch.float64))
    steps = cosine[:-1] - cosine[1:]
    assert bool((steps[1:] > steps[:-1]).all()) and float(cosine[-1]) == pytest.approx(1e-5)


# --- fit, while resolving -----------------------------------------------------------------------------------------


class ToyProcess(Part, kind="toy_process"):
    offers: ClassVar[type[View]] = ScoreView

    def __init__(self, graph: Graph) -> None:
        self.graph = graph


class ToyRecipe(Section):
    def __init__(self, process: ToyProcess, sampler: Sampler) -> None: ...


ToyProcess.register("toy")(ToyProcess)


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more predictors on the list: one that needs a mask, one that takes no shapers."""

    class Blunt(Analytic):
        shapes = "none"

    monkeypatch.setattr(Predictor, "registered", dict(Predictor.registered))
    Predictor.register("toy_remask")(Remask)
    Predictor.register("toy_blunt")(Blunt)


def faults(graph: str, **sampler: Any) -> list[str]:
    data = {"process": {"type": "toy", "graph": graph}, "sampler": {"type": "reverse", **sampler}}
    node, problems = resolve(ToyRecipe, data)
    assert node is not None and not problems, problems
    return [str(problem) for problem in misfits(node)]


SHAPED = [{"type": "nucleus", "p": 0.9}]


@pytest.mark.parametrize(
    "graph,predictor",
    [("absorbing", "euler"), ("absorbing", "analytic"), ("absorbing", "normalised"), ("uniform", "normalised")],
)
def test_shapers_fit(graph: str, predictor: str) -> None:
    assert faults(graph, predictor=predictor, shapers=SHAPED) == []


@pytest.mark.parametrize("predictor", ["euler", "analytic"])
def test_shapers_on_a_transition_law_are_refused(predictor: str) -> None:
    (fault,) = faults("uniform", predictor=predictor, shapers=SHAPED)
    assert fault.startswith(f"sampler.shapers: predictor '{predictor}' takes shapers on masked graphs only")
    assert "Predictors that fit: " in fault and "normalised" in fault.split("fit: ")[1]


def test_other_misfits(extra: None) -> None:
    (mask,) = faults("uniform", predictor="toy_remask")
    assert mask.startswith("sampler.predictor: predictor 'toy_remask' needs a graph with a mask")
    assert "absorbing" in mask.split("Graphs that fit:")[1]
    (idle,) = faults("absorbing", correctors=["euler"])
    assert "sampler.correctors[0]: predictor 'euler' does nothing at t = s" in idle and "toy_remask" in idle
    assert faults("absorbing", correctors=["toy_remask"]) == []
    (blunt,) = faults("absorbing", predictor="toy_blunt", shapers=SHAPED)
    assert "takes no shapers" in blunt and "analytic" in blunt.split("fit: ")[1]


def test_rules_that_need_a_mask_say_what_would_fit() -> None:
    for predictor in ("remdm", "first_hitting", "dndm", "trapezoidal", "ordered"):
        (fault,) = faults("uniform", predictor=predictor)
        assert f"predictor '{predictor}' needs a graph with a mask" in fault and "absorbing" in fault
    for lens in ("sigma_hat", "guidance"):
        (fault,) = faults("uniform", lenses=[lens])
        assert fault.startswith(f"sampler.lenses[0]: lens '{lens}' needs a graph with a mask")
    for corrector in ("gibbs", "forward_backward", "informed", "self_correction"):
        assert faults("uniform", correctors=[corrector]) == []
    assert faults("absorbing", predictor={"type": "ordered", "order": {"type": "blocks", "order": "p2"}}) == []


def test_a_rule_that_must_not_see_its_token_needs_a_hollow_backbone() -> None:
    from workbench.core.errors import RecipeError
    from workbench.recipe import load

    with pytest.raises(RecipeError, match=r"backbone whose sight is 'others'.*dfm, forward_backward, gibbs"):
        load("recipes/smoke/sedd.yaml", ["sampler.correctors=[informed]"])
    load("recipes/smoke/uniform.yaml", ["sampler.correctors=[informed]"])


def test_the_usual_sampler_is_sedds() -> None:
    node, problems = resolve(Sampler, {"type": "reverse"})
    assert isinstance(node, Node) and not problems
    assert node.as_data() == {
        "type": "reverse",
        "predictor": {"type": "analytic", "thin": None},
        "times": {"type": "uniform", "eps": 1e-5},
        "steps": 128,
        "shapers": [],
        "correctors": [],
        "cleanup": True,
        "lenses": [],
        "precision": "float64",
    }
    sampler = build(node)
    assert isinstance(sampler.predictor, Analytic) and sampler.shape is None


def test_views_are_what_samplers_need() -> None:
    assert issubclass(ExactView, Reverse.needs) and not issubclass(ExactNextToken, Reverse.needs)
