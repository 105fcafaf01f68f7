"""Runs and grids as Python: what a notebook shows, and the notebook of the docs run cell by cell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.grid.files import written
from workbench.api import Figures, Grid, Run, Texts
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.metrics.value import Value

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
EVIL = "<script>alert(1)</script>"


def test_importing_the_package_imports_no_parts():
    code = "import sys, workbench; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    code += "; from workbench import Run, Grid; assert Run.__module__ == 'workbench.api'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
    with pytest.raises(ImportError, match="Runn"):
        from workbench import Runn  # noqa: F401


def test_figures_are_a_mapping():
    figures = Figures([Value("a", 1.0, 0.5, 1.5, unit=EVIL), Value("b", None, error="why"), Value("a", 9.0)])
    assert dict(figures) == {"a": 1.0, "b": None} and figures.of("b").error == "why"
    assert figures.rows()[0] == {"figure": "a", "value": 1.0, "low": 0.5, "high": 1.5, "unit": EVIL, "real": None}
    assert repr(figures) == "a: 1\nb: –"
    assert EVIL not in figures._repr_html_() and "&lt;script&gt;" in figures._repr_html_()


def test_texts_show_what_was_given():
    texts = Texts([[("The", True), (EVIL, False)]])
    assert texts[0] == f"The{EVIL}" and len(texts) == 1
    assert "<u>The</u>&lt;script&gt;" in texts._repr_html_()


def test_a_run_of_the_smoke_recipes(smoke):
    run = Run(smoke("sedd").path)
    assert run.settings["backbone"]["dim"] == 32 and run.results["bits_per_byte"] > 0
    assert len(run.samples) == 4 and run.log[-1]["step"] == 30
    shown = run.plot(Run(smoke("gpt2").path))
    assert shown.labels == ["smoke-sedd", "smoke-gpt2"] and shown._repr_html_().count('role="img"') == len(shown.panels)
    assert "body" not in shown._repr_html_().partition("</style>")[0], "the notebook keeps its own looks"
    assert [row[""] for row in run.beside(Run(smoke("gpt2").path)).rows()][:2] == ["smoke-sedd", "smoke-gpt2"]


def test_a_run_that_was_not_evaluated_says_so(smoke, tmp_path):
    path = shutil.copytree(smoke("sedd").path, tmp_path / "run")
    (path / "results.json").unlink()
    with pytest.raises(WorkbenchError, match="workbench eval"):
        _ = Run(path).results


def test_a_grid(tmp_path):
    axes = {"steps": {"few": {"sampler.steps": 2}, "many": {"sampler.steps": 4}}, "seed": [0, 1]}
    file = written(tmp_path, axes=axes, set={"train.steps": 6, "evaluations.valid": None})
    runs, grids = tmp_path / "runs", tmp_path / "grids"
    assert main(["grid", str(file), "--workers", "1", "--runs", str(runs), "--grids", str(grids)]) == 0
    for grid in (Grid(file, runs=runs, grids=grids), Grid(next(grids.iterdir()), runs=runs)):
        assert "4 done" in repr(grid)
        assert {label: len(found) for label, found in grid.runs.items()} == {"few": 2, "many": 2}
        assert [row[""] for row in grid.results.rows()][:2] == ["few", "many"]
        assert [row[""] for row in grid.differences.rows()] == ["many"]
        assert grid.plot().labels == ["few and 1 more of the same training"]
    file.write_text(file.read_text().replace("sampler.steps: 2", "sampler.steps: 3"))
    with pytest.raises(WorkbenchError, match="is not what"):
        Grid(next(grids.iterdir()), runs=runs)


def test_the_notebook_of_the_docs_runs(tmp_path, monkeypatch):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "it is kept without outputs"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["run"].state.startswith("evaluated") and "The" in names["texts"][0]
