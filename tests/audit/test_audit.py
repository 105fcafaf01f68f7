"""Audits: exact targets, what is measured of samplers, what is refused, and every registered rule on small laws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform
from samplers.base import Predictor
from samplers.chain import ChainView
from samplers.exact import ExactView
from workbench.audit.base import Target
from workbench.audit.contract import check_target
from workbench.audit.measure import as_data, run_audit
from workbench.audit.section import load_audit
from workbench.audit.targets import Joint, Markov, Zipf
from workbench.audit.write import markdown
from workbench.cli.main import main
from workbench.core import index
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.rng import Rng

index.import_parts()
RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    "steps=[3]", "targets.zipf.vocab=200", "targets.zipf.length=16", "targets.zipf.texts=4",
    "targets.markov.texts=20", "targets.markov.length=6", "targets.joint.texts=100", "targets.joint.length=2",
]  # fmt: skip


@pytest.mark.parametrize("graph", [Absorbing(3), Uniform(3)], ids=["absorbing", "uniform"])
def test_a_chains_score_is_that_of_its_joint_law(graph: Absorbing | Uniform) -> None:
    """Forward-backward against the enumerated law of all texts: scores and clean laws, at two noises."""
    chain = Markov(vocab=3, length=3, texts=5, seed=1)
    joint = chain.start_V[:, None, None] * chain.step_VV[:, :, None] * chain.step_VV[None]
    noise = LogLinear() if graph.mask else Geometric()
    exact, view = ExactView(graph, noise, joint), ChainView(graph, noise, chain.start_V, chain.step_VV, 3)
    x_BL = torch.cartesian_prod(*[torch.arange(graph.states)] * 3)
    rows_R = torch.arange(x_BL.numel())
    for sigma in (0.1, 1.5):
        sigma_B = torch.full((len(x_BL),), sigma, dtype=torch.float64)
        one, other = exact.look(x_BL, sigma_B), view.look(x_BL, sigma_B)
        torch.testing.assert_close(other.clean(rows_R).exp(), one.clean(rows_R).exp(), rtol=0, atol=1e-12)
        torch.testing.assert_close(other.log_score(rows_R).exp(), one.log_score(rows_R).exp(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", Target.names())
def test_every_target_meets_its_contract(name: str) -> None:
    assert check_target(Target.lookup(name)) == []


class Shifted(Markov):
    """Says another entropy than its own."""

    def truths(self):
        return {"nats": super().truths()["nats"] + 0.5}


class Crooked(Joint):
    """Its score is that of another law."""

    def view(self, graph, noise):
        return ExactView(graph, noise, self.joint.flip(0))


@pytest.mark.parametrize("part,complaint", [(Shifted, "and said to be"), (Crooked, "by the score")])
def test_a_wrong_target_is_told(part: type[Target], complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "registered", dict(Target.registered))
    Target.register("wrong")(part)
    assert any(complaint in problem for problem in check_target(part))


def test_figures_tell_exact_texts_from_wrong_ones() -> None:
    for target in (Zipf(500, 32, 8), Markov(texts=50), Joint(texts=400)):
        exact, wrong = target.exact(Rng(1), 0), torch.zeros(target.texts, target.length, dtype=torch.long)
        assert target.figures(wrong)["tv"] > 2 * target.figures(exact)["tv"]


def test_every_shipped_audit_runs_small() -> None:
    """All built-in rules on all targets: a row each, with what it took."""
    for name in ("samplers", "uniform"):
        small = [text for text in SMALL if name == "samplers" or "zipf" not in text]
        resolved = load_audit(str(RECIPES / "audits" / f"{name}.yaml"), small)
        findings = run_audit(resolved)
        settings = resolved.node.settings
        assert len(findings.rows) == len(settings["samplers"]) * len(settings["targets"])
        assert all(row.calls > 0 and row.changed > 0 for row in findings.rows)
        assert all((row.pace is not None) == (name == "samplers") for row in findings.rows)
        json.dumps(as_data(findings))
        assert markdown(findings).count("*exact texts*") == len(settings["targets"])
        assert "by chance" in markdown(findings).splitlines()[-1]


def test_the_shipped_audit_holds_every_rule() -> None:
    named = {node.part for name in ("samplers", "uniform")
             for node in load_audit(str(RECIPES / "audits" / f"{name}.yaml")).node.walk()}  # fmt: skip
    shipped = {part for part in Predictor.registered.values() if part.__module__.startswith("samplers.")}
    assert shipped <= named


def test_a_training_recipe_and_a_name_are_audited_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resolved = load_audit(str(RECIPES / "smoke" / "uniform.yaml"), ["sampler.steps=5"])
    assert resolved.data["graph"]["type"] == "uniform" and 5 in resolved.data["steps"]
    out = tmp_path / "found"
    assert main(["audit", "remdm", *SMALL, "--out", str(out)]) == 0
    assert "| remdm | 3 |" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"audit.json", "audit.md", "zipf.svg", "zipf.png", "joint.svg"}
    assert json.loads((out / "audit.json").read_text())["rows"][0]["calls"] > 0


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="Did you mean 'remdm'"):
        load_audit("remdn")
    with pytest.raises(RecipeError, match="targets offer a ScoreView"):
        load_audit("left_to_right")
    with pytest.raises(RecipeError, match="needs a graph with a mask"):
        load_audit("remdm", ["graph=uniform"])


def test_a_plug_in_is_audited(tmp_path: Path) -> None:
    plugin = tmp_path / "slow_rule.py"
    plugin.write_text(
        "from samplers.base import Predictor\nfrom samplers.predictors.normalised import Normalised\n\n\n"
        '@Predictor.register("audited_plugin")\nclass Slow(Normalised):\n    """Another name."""\n'
    )
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"name: mine\nplugins: [{plugin}]\nsteps: [2]\nsamplers: {{a: {{type: reverse, predictor: audited_plugin}}}}\n"
        "targets: {joint: {type: joint, texts: 50, length: 2}}\n"
    )
    (row,) = run_audit(load_audit(str(recipe))).rows
    assert row.sampler == "a" and row.steps == 2 and 0 < row.calls <= 3


def test_an_audit_that_cannot_be_kept_or_shows_nothing_is_refused_first(tmp_path, capsys, monkeypatch):
    def never(*words):
        raise AssertionError("nothing is run")

    monkeypatch.setattr("workbench.audit.measure.run_audit", never)
    (tmp_path / "file").write_text("")
    assert main(["audit", "normalised", "--out", str(tmp_path / "file")]) == 1
    assert "name a folder by --out" in capsys.readouterr().err
    assert main(["audit", "normalised", "steps=[]"]) == 1
    assert "steps" in capsys.readouterr().err
    assert main(["show", "kernels", "x"]) == 1
    assert "leave out 'x'" in capsys.readouterr().err
