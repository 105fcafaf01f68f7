"""What a page is to a browser, a screen reader and a pair of colour-blind eyes; and what two runs' figures say."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.browser import CHROMIUM, Browser
from workbench.metrics.value import Units, Value
from workbench.report.collect import collect
from workbench.report.curves import Group, all_plots, alone, together
from workbench.report.differences import beside
from workbench.report.grid_page import groups_of
from workbench.report.html import notes_of, number_in
from workbench.report.write import write_report

sys.path.insert(0, str(Path(__file__).parent))
from folders import make_run, results

EVIL = "<script>window.struck = 1</script><img src=x onerror='window.struck = 1'> as text"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page of three runs; one has a sample and a name that would act if they could."""
    named = (("b", "0b"), (EVIL, "0a"))
    runs = [make_run(tmp_path, name, "diffusion", digest * 8, samples=[EVIL]) for name, digest in named]
    runs.append(make_run(tmp_path, "a", "autoregressive", "0c" * 8, samples=[EVIL]))
    return write_report(runs, tmp_path / "report").html


def test_the_policy_lets_the_pages_own_script_run_and_no_other(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["script-src"] == f"'sha256-{digest}'" and rules["default-src"] == "'none'"


def test_a_screen_reader_finds_its_way(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<table") == text.count("<caption>") > 4
    assert not re.findall(r"<th(?![^>]*scope=)[\s>]", text)
    assert not re.findall(r'<svg role="img"(?! aria-label=)', text)
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("★ ≤ 1.643 ± 0.030", "1.643"), ("87.4 %", "87.4"), ("12,300", "12300"), ("3.42 M", "3420000"),
        ("34.7 k", "34700"), ("−0.158 not shown", "-0.158"), ("+0.43 better", "0.43"), ("1.2e-05", "1.2e-05"),
        ("–", ""), ("failed", ""),
    ],
)  # fmt: skip
def test_cells_sort_by_the_number_in_them(text: str, number: str) -> None:
    assert number_in(text) == number


def test_repetitions_are_averaged_where_they_were_logged() -> None:
    x, y = together([(np.array([1.0, 2, 4]), np.array([1.0, 2, 3])), (np.array([1.0, 4, 8]), np.array([3.0, 5, 7]))])
    assert x.tolist() == [1, 4] and y.tolist() == [[1, 3], [3, 5]]
    x, y = together([(np.array([0.0, 2]), np.array([0.0, 2])), (np.array([1.0, 3]), np.array([1.0, 3]))])
    assert (x[0], x[-1]) == (1, 2), "by the clock: where both were running"
    assert np.allclose(y, x)


def test_an_arm_is_one_line_in_a_band(tmp_path: Path) -> None:
    runs = collect([make_run(tmp_path, f"r{i}", digest=f"{i}" * 16) for i in range(3)])
    drawn, apart = all_plots([Group("arm", tuple(runs))]), all_plots(alone(runs))
    assert [plot.name for plot in drawn] == [plot.name for plot in apart]
    assert all("bands: from the least to the greatest" in plot.caption for plot in drawn)
    assert not any("bands" in plot.caption for plot in apart)
    assert all("PolyCollection" in plot.svg or "FillBetween" in plot.svg for plot in drawn)


def test_arms_of_one_training_share_its_line(tmp_path: Path) -> None:
    from workbench.report.arms import Arm

    one, two = collect([make_run(tmp_path, f"r{i}", digest=f"{i}" * 16) for i in range(2)])
    arms = [Arm(name, {}, False, {("0",): one, ("1",): two}) for name in ("few", "many")]
    arms += [Arm("none", {}, False, {}), Arm("other", {}, False, {("0",): two})]
    assert [(group.label, group.runs) for group in groups_of(arms)] == [
        ("few and 1 more of the same training", (one, two)),
        ("other", (two,)),
    ]


def test_figures_of_two_runs_are_compared_in_pairs(tmp_path: Path) -> None:
    a, b = collect([make_run(tmp_path, name, digest=digest * 16) for name, digest in (("a", "1"), ("b", "2"))])
    rng = np.random.default_rng(0)
    units = rng.normal(2, 1, 200)

    def with_bits(run, shift):
        values = tuple(float(u) + shift for u in units)
        bits = Value("bits_per_byte", float(units.mean()) + shift, better="lower", se=0.07, units=Units("k", values))
        speed = Value("sample_tokens_per_second", 100.0 + shift, unit="tokens/s")
        return replace(run, results=replace(results("diffusion", "x"), values=[bits, speed, Value("same", 1.0)]))

    table = beside([with_bits(a, 0.0), with_bits(b, 0.01)])
    assert [column.key for column in table.columns] == ["bits_per_byte"], "times are no difference of runs"
    (row,) = table.rows
    assert row.label == "b" and row.cells[0].text == "+0.010 worse", "in pairs a hundredth shows; apart it would not"
    assert "200 common units" in row.cells[0].detail
    assert "Hover" in notes_of(table) and not any("Hover" in note for note in table.notes)
    assert beside([a]).rows == beside([replace(a, results=None), b]).rows == ()


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_in_a_browser(page: Path, tmp_path: Path) -> None:
    names = "Array.from(document.querySelector('table').tBodies[0].rows, (row) => row.cells[0].innerText.trim())"
    with Browser() as browser:
        for width in (1280, 390):
            browser.open(page, width)
            assert browser.complaints() == []
            assert browser.value("window.struck") is None, "what a model wrote does not act"
            assert browser.value("document.documentElement.scrollWidth <= innerWidth"), f"wider than {width}"
            empty = "Array.from(document.querySelectorAll('figure svg')).filter((s) => s.getBBox().width < 100).length"
            assert browser.value(empty) == 0
        before = browser.value(names)
        assert before[:1] == ["b"] and before[-1] == "held-out text"
        heading = "document.querySelector('thead th:nth-child(2)')"
        orders = []
        for state in ("ascending", "descending", None):
            browser.value(f"{heading}.querySelector('button').click()")
            assert browser.value(f"{heading}.getAttribute('aria-sort')") == state
            orders.append(browser.value(names))
        assert orders[0][0] == "a", "the least first"
        assert orders[1][-2] == "a" and orders[1][-1] == "held-out text", "real text stays below"
        assert orders[2] == before
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        browser.open(page, 1280)
        browser.call("Emulation.setEmulatedMedia", media="print")
        browser.shot(tmp_path / "print.png")
        assert (tmp_path / "print.png").stat().st_size > 50_000
