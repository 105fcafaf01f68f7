"""Two grids beside each other: same arms matched by name, what differs told, what is the same left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.grid.files import written
from tests.grid.made_up import arm, run
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.metrics.value import Value
from workbench.report.two_grids import Side, two_grids, write_two


def bits(value, se=0.01):
    return Value("bits_per_byte", value, se=se, n=8, better="lower")


def made(label, value, **settings):
    one = run(label, bits_per_byte=bits(value), tokens_per_second=Value("tokens_per_second", value * 100, unit="1/s"))
    return arm(label, [replace(one, settings={"train": {"steps": 10, **settings}})])


FIRST = Side("early", {"a": made("a", 1.5), "b": made("b", 1.6), "c": made("c", 1.7), "d": made("d", 2.0)})
SECOND = Side("late", {"b": made("b", 1.2, steps=20), "a": made("a", 1.5), "c": made("c", 1.69, steps=20, lr=1.0)})


def test_what_differs_is_told_and_what_is_the_same_is_left_out():
    page = two_grids(FIRST, SECOND)
    assert page.title == "late beside early"
    assert "3 arms in both grids. The very same figures in both: a. In early alone: d." in page.lead
    assert [row.label for row in page.gaps.rows] == ["b", "c"]
    assert [column.key for column in page.gaps.columns] == ["bits_per_byte"], "speeds are the machine's"
    assert [row.cells[0].text for row in page.gaps.rows] == ["−0.400 better", "−0.010 not shown"]
    assert page.gaps.notes[0].startswith("late minus early")
    rows = [(row.label, *(cell.text for cell in row.cells)) for row in page.settings.rows]
    assert rows == [("train.steps", "10", "20", "all"), ("train.lr", "–", "1.0", "c")]


def test_the_page_is_one_file_and_its_words_are_escaped(tmp_path):
    first = Side("<b>", {"<i>": made("<i>", 1.0)})
    files = write_two(two_grids(first, Side("new", {"<i>": made("<i>", 1.3, steps=20)})), tmp_path / "two")
    page = files[0].read_text()
    assert "&lt;i&gt;" in page and "<i>" not in page and "<b>" not in page
    assert "Settings that differ" in page and "+0.300 worse" in files[1].read_text()


def test_grids_without_an_arm_in_common_are_refused():
    with pytest.raises(WorkbenchError, match="no arm has the same name in both grids: early has a, b, c, d; x has z"):
        two_grids(FIRST, Side("x", {"z": made("z", 1.0)}))


def test_the_command_takes_two_files_and_no_run_among_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = []
    for name, steps in (("one", 2), ("two", 3)):
        (tmp_path / name).mkdir()
        files.append(str(written(tmp_path / name, axes={"seed": [0, 1]}, set={"sampler.steps": steps})))
    assert main(["report", *files]) == 0
    assert "1 arm in both grids. Not measured in toy-" in capsys.readouterr().out, "both files are called toy"
    assert main(["report", files[0], "runs/x"]) == 1
    assert "on two (the second beside the first)" in capsys.readouterr().err
