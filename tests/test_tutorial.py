"""The tutorial is walked through from its first command to its last, with tiny networks and few updates."""

from __future__ import annotations

import re

import pytest

from tests.documents import ROOT, split, write_files
from tests.smoke import prose
from tests.walk import in_this_process, tiny_clone, walk
from workbench.core import places
from workbench.core.plugins import isolated

TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    prose(tmp_path)
    made = tiny_clone(tmp_path / "clone", str(tmp_path / "prose.txt"))
    monkeypatch.setattr(places, "recipes_folder", lambda: made / "recipes")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of a grid's workers
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return made


def test_the_tutorial_works_from_end_to_end(folder, capsys):
    done = {}
    with isolated():
        for step in walk(TUTORIAL, folder, in_this_process, {"steps: 300": "steps: 4"}):
            assert not step.status, f"{TUTORIAL.name}:{step.line}: {step.words}\n{step.output}\n{capsys.readouterr()}"
            done[step.words] = step.output
    assert done["make tutorial"] == ""  # not run here
    assert len(list((folder / "runs").glob("quickstart-sedd-*"))) == 1, "what comes after training trains nothing"
    assert "is trained already" in done["workbench train first.yaml sampler.steps=16"]
    assert "is trained already" in done["workbench train paced.yaml"]
    for name in ("my_conv.py", "my_pace.py", "my_nearby.py"):
        assert "keeps its contract" in done[f"workbench check --contract {name}"]
    assert "10 cells, 6 trainings" in done["workbench grid mine.yaml --dry-run"]
    assert re.search(r"\b10 done", done["workbench grid mine.yaml --status"])
    for name, arms in {"diversity": ("nearby", "temperature"), "mine": ("my_conv", "left_first")}.items():
        (page,) = (folder / "grids").glob(f"{name}-*/report.html")
        assert all(arm in page.read_text() for arm in arms)


def test_its_files_are_its_own(tmp_path):
    names = [path.name for path in write_files(TUTORIAL, tmp_path)]
    assert len(set(names)) == len(names) == sum(bool(block.title) for block in split(TUTORIAL)[0])
