"""The wheel: built without a network, holds what it should, and works away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workbench import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("workbench", "backbones", "graphs", "samplers")
SOURCES = (*PACKAGES, "recipes", "tests", "docs", "setup.py", "pyproject.toml", "LICENSE", "README.md")
SMOKE = "workbench/recipes/smoke/sedd.yaml"


def pip(*words, **more):
    """pip without a network."""
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, **more)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building leaves folders in the source."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip")
    pytest.importorskip("setuptools", minversion="77", reason="building without a network needs setuptools ≥ 77 here")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ".", cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-compile", "--target", folder, wheel)
    return folder


def test_what_the_wheel_holds(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        scripts = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"sedd_workbench-{__version__}.dist-info"}
    for package in PACKAGES:
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert files <= names, f"left out: {files - names}"
    recipes = {f"workbench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.yaml")}
    assert {name for name in names if name.endswith(".yaml")} == recipes
    assert {"workbench/report/page.html", "workbench/report/style.css", "workbench/py.typed"} <= names
    assert any(name.endswith("/LICENSE") for name in names)
    stray = re.compile(r"(^|/)(tests?|docs|test_\w+\.py|conftest\.py|__pycache__)(/|$)")
    assert not [name for name in names if stray.search(name)]
    assert "workbench = workbench.cli.main:main" in scripts
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata
    for extra in ("cuda", "eval", "hub", "test"):
        assert f"\nProvides-Extra: {extra}\n" in metadata
    assert not re.search(r"^Requires-Dist:.*(git\+|file:| @ )", metadata, re.MULTILINE), "installs from an index alone"


def test_it_works_from_anywhere(site, tmp_path):
    """Lists its parts, and resolves a shipped recipe that has a parent, from a folder that knows nothing of it."""

    def say(*words):
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *words], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)}, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    listed = say("list", "backbones")
    assert "transformer" in listed and "gpt2" in listed
    assert str(site) in listed.replace("\n", ""), "the installed one answers, not the checkout"
    shown = say("show", str(site / SMOKE))
    assert "name: smoke-sedd" in shown and "corpus:" in shown
    assert say("--version").strip() == f"workbench {__version__}"
    assert list(tmp_path.iterdir()) == []


def test_it_trains_measures_and_explains_itself_away_from_the_checkout(site, tmp_path):
    def say(*words):
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *words], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "GPT-2" in say("quickstart", "--help")
    short = ["train.steps=4", "train.device=cpu", "train.tensorboard=false", "evaluations.final.samples=1"]
    said = say("train", "smoke/sedd.yaml", *short, "evaluations.valid.every=0", "--cache", "cache")
    (run,) = (tmp_path / "runs").iterdir()
    assert f"run: runs/{run.name}" in said
    assert (run / "results.json").is_file() and '"evaluated"' in (run / "status").read_text()


def test_it_finds_its_recipes_and_pages(site, tmp_path):
    code = (
        "from workbench.core.places import recipes_folder\n"
        "import workbench.cli.quickstart as q, workbench.report.html\n"
        "assert all((recipes_folder() / name).is_file() for name in q.RECIPES)\n"
        "print(recipes_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.stdout.strip() == str(site / "workbench" / "recipes"), done.stderr
