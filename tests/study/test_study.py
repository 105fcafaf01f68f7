"""Studies: claims against figures whose answer is known, files with slips, one small study run whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.grid.files import SMOKE
from tests.grid.made_up import arm, run
from workbench.cli.main import main
from workbench.core.errors import RecipeError
from workbench.metrics.value import Units, Value
from workbench.report.contrasts import Term, contrast, student_tail
from workbench.study.base import Verdict, together
from workbench.study.comparisons import Alike, LiesAbove, LiesBelow, NotAbove, NotBelow
from workbench.study.lines import BelowLine
from workbench.study.matching import DearerToMatch
from workbench.study.plan import PlannedStudy, planned
from workbench.study.trends import Falls, Rises, Wider


def value(number, se=0.1, name="x", better="lower", relation="="):
    return Value(name, number, number - 2 * se, number + 2 * se, better, n=20, se=se, relation=relation)


def arms(figures, se=0.1, **others):
    """Arms by label with figure ``x``; ``others``: further figures by name, one number an arm."""
    made = []
    for at, (label, number) in enumerate(figures.items()):
        more = {name: value(numbers[at], 0.01, name) for name, numbers in others.items()}
        made.append(arm(label, [run(label, x=value(number, se), **more)], baseline=label == "baseline"))
    return made


def answers(part, figures, se=0.1, **settings):
    return part(["x"], [label for label in figures if label != "baseline"], **settings)(arms(figures, se)).answer


def test_one_sided_claims_hold_fail_or_stay_open():
    assert answers(LiesBelow, {"baseline": 10.0, "a": 9.0}) == "holds"
    assert answers(LiesBelow, {"baseline": 10.0, "a": 11.0}) == "does not hold"
    assert answers(LiesBelow, {"baseline": 10.0, "a": 9.8}) == "open"
    assert answers(LiesAbove, {"baseline": 10.0, "a": 11.0}) == "holds"
    assert answers(LiesAbove, {"baseline": 10.0, "a": 11.0}, within=0.2) == "does not hold"  # a tenth only


def test_no_worse_needs_its_margin():
    assert answers(NotAbove, {"baseline": 10.0, "a": 10.1}, within=0.05) == "holds"
    assert answers(NotAbove, {"baseline": 10.0, "a": 10.1}) == "open"
    assert answers(NotAbove, {"baseline": 10.0, "a": 11.0}, within=0.05) == "does not hold"
    assert answers(NotBelow, {"baseline": 10.0, "a": 9.9}, within=0.05) == "holds"


def test_alike_is_shown_not_assumed():
    assert answers(Alike, {"baseline": 10.0, "a": 10.1}, within=0.05) == "holds"
    assert answers(Alike, {"baseline": 10.0, "a": 10.1}, se=1.0, within=0.05) == "open"  # none seen is no proof
    assert answers(Alike, {"baseline": 10.0, "a": 11.0}, within=0.05) == "does not hold"


def test_all_arms_must_hold_or_one_is_enough():
    mixed = {"baseline": 10.0, "a": 9.0, "b": 11.0}
    assert answers(LiesBelow, mixed) == "does not hold"
    assert answers(LiesBelow, mixed, any=True) == "holds"
    assert answers(LiesBelow, {"baseline": 10.0, "a": 11.0, "b": 11.0}, any=True) == "does not hold"


def test_many_looks_are_adjusted_for():
    """Of forty arms that do not differ, the lowest is not taken for lower: the rate of false claims stays at 2.5 %."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        figures = {"baseline": 10.0, **{f"a{i}": 10.0 + 0.1 * rng.normal() for i in range(40)}}
        made = arms(figures, se=0.1)
        made[0] = arm("baseline", [run("baseline", x=value(10.0, 1e-9))], True)
        wrong += LiesBelow(["x"], [one.label for one in made[1:]], any=True)(made).answer == "holds"
    assert wrong <= 12  # 5 expected, binomial


def test_ratios_are_of_figures():
    found = LiesBelow(["x"], ["a"], ratio=True)(arms({"baseline": 10.0, "a": 4.0}))
    assert found.answer == "holds" and "× 0.4" in found.measured
    assert answers(LiesBelow, {"baseline": 10.0, "a": 9.0}, ratio=True, within=0.2) == "does not hold"


def test_bounds_are_told():
    bound = arm("a", [run("a", x=value(9.0, relation="≤"))])
    assert "of bounds" in LiesBelow(["x"], ["a"])([*arms({"baseline": 10.0}), bound]).measured


def test_a_slope_is_that_of_least_squares():
    figures = {"a": 5.0, "b": 4.0, "c": 2.5, "d": 2.0}
    found = Falls("x", list(figures), [1, 2, 4, 8])(arms(figures))
    slope, se = np.polyfit([0, 1, 2, 3], list(figures.values()), 1)[0], 0.1 / np.sqrt(5)
    assert found.answer == "holds"
    assert f"{slope:+.3g} ({slope - 1.96 * se:+.3g}" in found.measured
    assert Rises("x", list(figures), [1, 2, 4, 8])(arms(figures)).answer == "does not hold"
    assert Rises("x", list(figures), [1, 2, 4, 8])(arms(figures, se=5.0)).answer == "open"
    assert Rises("x", ["a", "b", "gone"], [1, 2, 4])(arms(figures)).answer == "not measured"


def test_contrasts_pair_what_shares_units():
    rng = np.random.default_rng(1)
    hard = rng.normal(10, 3, 50)
    made = []
    for label, shift in (("a", 0.0), ("b", 0.3)):
        numbers = hard + shift + rng.normal(0, 0.1, 50)
        units = Units("prompts", tuple(numbers))
        made.append(arm(label, [run(label, x=Value("x", float(numbers.mean()), se=0.42, n=50, units=units))]))
    found = contrast([Term(made[1], "x", 1.0), Term(made[0], "x", -1.0)])
    assert "in pairs" in found.how and found.estimate.se < 0.05 and found.p_above() < 1e-6
    logged = contrast([Term(made[1], "x", 1.0), Term(made[0], "x", -1.0)], log=True)
    means = [one.figure("x").value for one in made]
    assert logged.estimate.value == pytest.approx(np.log(means[1] / means[0]), abs=1e-4)


def test_the_tail_is_students():
    stats = pytest.importorskip("scipy.stats")
    for t, df in ((2.0, 2), (-1.3, 5), (0.0, 9), (3.1, 30)):
        assert student_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=0.02)


def test_a_gap_may_be_wider_in_one_figure():
    made = arms({"baseline": 4.0, "a": 5.0}, y=[4.0, 4.2])
    assert Wider("x", "y", "a")(made).answer == "holds"
    assert Wider("y", "x", "a")(made).answer == "does not hold"
    assert Wider("x", "z", "a")(made).answer == "not measured"


def test_matching_costs_what_the_cheapest_match_costs():
    claim = DearerToMatch("x", "y", ["a", "b"])
    assert claim(arms({"baseline": 5.0, "a": 9.0, "b": 8.0}, y=[1.0, 0.5, 2.0])).answer == "holds"  # none matches
    found = claim(arms({"baseline": 5.0, "a": 9.0, "b": 5.0}, y=[1.0, 0.5, 3.0]))
    assert found.answer == "holds" and "cheapest match b" in found.measured and "× 3" in found.measured
    assert claim(arms({"baseline": 5.0, "a": 5.0, "b": 4.0}, y=[1.0, 0.5, 3.0])).answer == "does not hold"


def test_several_tests_hold_together():
    holds, fails, unknown = Verdict("holds", "a"), Verdict("does not hold", "b"), Verdict("not measured", "c")
    assert together([holds, holds]).answer == "holds"
    assert together([holds, unknown]).answer == "not measured"
    assert together([holds, fails, unknown]) == Verdict("does not hold", "a; b; c")


def written(folder, **changes):
    data = {
        "candidate": str(SMOKE / "sedd.yaml"),
        "baseline": str(SMOKE / "gpt2.yaml"),
        "set": {"train.steps": 4, "evaluations": {"final": {"blocks": 4, "metrics": ["bits_per_byte"]}}},
        "questions": {
            "likelihood": {"asks": "As likely? <b>", "axes": {"arm": {"sedd": {}}}, "report": {"over": []}},
            "steps": {
                "set": {"evaluations": {"final": {"samples": 4, "metrics": ["unigram_entropy", "sampling_speed"]}}},
                "axes": {"steps": {"s1": {"sampler.steps": 1}, "s2": {"sampler.steps": 2}, "s4": {"sampler.steps": 4}}},
                "report": {"over": [], "compare": []},
            },
        },
        "claims": {
            "1-likelihood": {
                "says": "As likely as the other.", "question": "likelihood",
                "tests": [{"type": "not_above", "figures": ["bits_per_byte"], "arms": ["sedd"], "within": 0.5}],
            },
            "2-entropy": {
                "says": "Falls.", "question": "steps",
                "tests": [{"type": "falls", "figure": "unigram_entropy", "arms": ["s1", "s2", "s4"], "at": [1, 2, 4]}],
            },
        },
    }  # fmt: skip
    path = folder / "toy-study.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}, sort_keys=False), encoding="utf-8")
    return path


def test_a_study_is_the_cells_of_its_questions(tmp_path):
    found = planned(written(tmp_path))
    assert isinstance(found, PlannedStudy)
    assert [cell.name for cell in found.cells][:3] == ["likelihood: baseline", "likelihood: sedd", "steps: baseline"]
    assert len({cell.key for cell in found.cells}) == len(found.cells) == 6
    assert len({cell.resolved.hash for cell in found.cells}) == 2
    fewer = planned(tmp_path / "toy-study.yaml", ["questions.steps=null"])
    assert {cell.question for cell in fewer.cells} == {"likelihood"}
    assert list(fewer.study.claims) == ["1-likelihood"]


@pytest.mark.parametrize(
    "change, told",
    [
        (
            {"claims": {}, "questions": {"likelihood": {"axes": {"arm": {"x": {"backbone.dpth": 3}}}}}},
            "questions.likelihood.backbone",
        ),
        ({"claims": {"a": {"says": "x", "question": "likelyhood", "tests": []}}}, "Did you mean 'likelihood'"),
        ({"claims": {"a": {"says": "x", "question": "likelihood", "tests": []}}}, "one test at least"),
        (
            {"claims": {"a": {"says": "x", "question": "likelihood",
                              "tests": [{"type": "lies_below", "figures": ["x"], "arms": ["sed"]}]}}},
            "has no arm 'sed'. Did you mean 'sedd'",
        ),
        ({"claims": {}, "questions": {"likelihood": {"axis": {}}}}, "questions.likelihood.axis"),
    ],
)  # fmt: skip
def test_slips_of_a_study_are_told_with_their_place(tmp_path, change, told):
    with pytest.raises(RecipeError) as error:
        planned(written(tmp_path, **change))
    assert told in str(error.value)


def test_a_study_runs_and_ends_in_a_page_of_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path)
    assert main(["grid", str(path), "--workers", "1"]) == 0
    (folder,) = (tmp_path / "grids").iterdir()
    claims = json.loads((folder / "claims.json").read_text())
    assert [one["claim"] for one in claims] == ["1-likelihood", "2-entropy"]
    assert {one["answer"] for one in claims} <= {"holds", "does not hold", "open"}
    page = (folder / "report.html").read_text()
    assert "As likely? &lt;b&gt;" in page and "<b>" not in page.split("<h2>As likely?")[1][:20]
    assert page.index(">Claims<") < page.index("As likely?") < page.index(">Provenance<")
    assert {"likelihood.csv", "steps.csv", "steps.tex", "report.md"} <= {file.name for file in folder.iterdir()}
    before = (folder / "claims.json").read_text()
    assert main(["report", str(path)]) == 0  # from files alone
    assert (folder / "claims.json").read_text() == before
    assert "1-likelihood" in capsys.readouterr().out
    assert main(["board", str(path), "--no-start", "--out", "board"]) == 0
    shown = {file.parent.relative_to("board").as_posix() for file in Path("board").rglob("events*")}
    assert {"00 likelihood/01 sedd/0", "01 steps/03 s4/0", "layout"} <= shown
    other = tmp_path / "other.yaml"
    other.write_text(path.read_text().replace("samples: 4", "samples: 3"), encoding="utf-8")
    assert main(["report", str(path), str(other)]) == 0
    told = capsys.readouterr().out
    assert "6 arms in both grids. The very same figures in both: likelihood: baseline, likelihood: sedd." in told
    assert "Not measured in other: steps: baseline, steps: s1" in told


def test_below_a_line_is_at_the_same_place():
    made = arms({"baseline": 100.0, "b": 400.0, "a": 100.0, "c": 300.0, "d": 9.0}, se=1.0, y=[4.0, 5.0, 4.5, 4.5, 6.0])
    claim = BelowLine("x", "y", ["baseline", "b"], ["a"])
    found = claim(made)
    assert found.answer == "holds" and "the line 200 there: × 0.5" in found.measured  # √(100 · 400)
    assert BelowLine("x", "y", ["b", "baseline"], ["c"])(made).answer == "does not hold"
    assert BelowLine("x", "y", ["baseline", "b"], ["a", "c"])(made).answer == "does not hold"
    assert BelowLine("x", "y", ["baseline", "b"], ["d"])(made).answer == "open"  # beyond the line's ends
