"""The house rules that a reader of imports and names can check."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.core import index
from workbench.core.part import KINDS, Part, Section, origin, setting_docs, settings

ROOT = Path(__file__).parents[1]
FILES = sorted(file for package in index.PACKAGES for file in (ROOT / package).rglob("*.py"))

CORE, KERNELS, PROCESSES = "workbench.core", "workbench.kernels", "workbench.processes"
DATA, TRAIN, METRICS = "workbench.data", "workbench.train", "workbench.metrics"
ASSEMBLY = tuple(
    f"workbench.{name}"
    for name in (
        "activations", "recipe", "assemble", "begun", "doctor", "environment", "run", "run_text", "evaluate",
        "experiment", "drawing", "check", "judging", "match", "memory", "nats", "opening", "publish", "reproduce",
        "sets", "shards", "sketch", "solving", "start", "tasks", "watching",
    )
)
ABOVE = tuple(
    f"workbench.{name}" for name in ("api", "grid", "launch", "report", "study", "audit", "bench", "profiling")
)
BELOW_DATA = (CORE, KERNELS, "graphs", "samplers", PROCESSES)
BELOW_ASSEMBLY = (*BELOW_DATA, "backbones", "backbones.base", DATA, TRAIN, METRICS)

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    CORE: (),
    KERNELS: (CORE,),
    "graphs": (CORE,),
    "samplers": (CORE, "graphs"),
    "backbones.base": (CORE,),
    "backbones": (CORE, KERNELS, "backbones.base"),
    PROCESSES: (CORE, KERNELS, "graphs", "samplers", "backbones.base"),
    DATA: BELOW_DATA,
    TRAIN: BELOW_DATA,
    METRICS: BELOW_DATA,
    **dict.fromkeys(ASSEMBLY, (*BELOW_ASSEMBLY, *ASSEMBLY)),
    **dict.fromkeys(ABOVE, (*BELOW_ASSEMBLY, *ASSEMBLY, *ABOVE)),
    "workbench.cli": (*BELOW_ASSEMBLY, *ASSEMBLY, *ABOVE),
    "workbench.__main__": ("workbench.cli",),
}
"""Strictly downward: core ← graphs ← samplers ← processes ← data | train | metrics ← recipe, assemble, run, … ← grid,
launch, report ← cli, and core ← kernels ← backbones. The contract of samplers holds View and Look, which processes
implement; of backbones processes know the contract alone."""
LIGHT = (
    "workbench/core",
    "workbench/cli/main.py",
    "workbench/cli/listing.py",
    "workbench/cli/tables.py",
    "workbench/report",
)
"""What must not import torch to be imported itself."""


def module_of(file: Path) -> str:
    """``workbench.core.part`` of workbench/core/part.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> str:
    """The longest entry of MAY_IMPORT that a module belongs to."""
    fitting = [layer for layer in MAY_IMPORT if module == layer or module.startswith(layer + ".")]
    return max(fitting, key=len, default="")


def imports(tree: ast.AST, whole: bool = True) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, inside functions too if ``whole``; not those for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not whole:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        else:
            yield from imports(node, whole)


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_downward(file):
    here = layer_of(module_of(file))
    own = [(line, name) for line, name in imports(parse(file)) if name.partition(".")[0] in index.PACKAGES]
    for line, name in own:
        if name in ("workbench", "workbench.__version__"):
            continue
        there = layer_of(name)
        assert here, f"{file}: no layer is known for {module_of(file)}; add it to MAY_IMPORT"
        assert there == here or there in MAY_IMPORT[here], f"{file}:{line}: {here} may not import {name}"


def test_a_wrong_import_is_seen():
    """The reader above reads what it should: inside functions, through aliases, but not for types."""
    text = "def f():\n    from workbench.train import loop as x\nif TYPE_CHECKING:\n    import torch\nimport a.b"
    assert list(imports(ast.parse(text))) == [(2, "workbench.train.loop"), (5, "a.b")]
    assert layer_of("workbench.train.loop") == TRAIN
    assert TRAIN not in MAY_IMPORT[DATA]


@pytest.mark.parametrize(
    "file", [file for file in FILES if str(file.relative_to(ROOT)).startswith(LIGHT)], ids=module_of
)
def test_light_modules_stay_light(file):
    heavy = {"torch", "tokenizers", "transformers"}
    found = [
        f"{file}:{line}: {name}" for line, name in imports(parse(file), whole=False) if name.partition(".")[0] in heavy
    ]
    assert found == []


OPTIONAL = {"workbench/kernels/row_triton.py": {"triton"}, "workbench/tasks/model.py": {"lm_eval", "tqdm"}}
"""Modules that are imported only where their package is there."""


def test_what_modules_import_is_what_the_package_requires():
    """Tests run beside much that a user does not have: an import of it at a module's head would not be seen."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    required = set(re.findall(r'^        "([a-z0-9-]+)[><=]', text.partition("install_requires")[2], re.MULTILINE))
    assert {"torch", "pyyaml", "scipy"} <= required
    named = {"yaml": "pyyaml", "annotated_types": "annotated-types"}
    found = []
    for file in FILES:
        own = {*index.PACKAGES, *OPTIONAL.get(str(file.relative_to(ROOT)), ())}
        for line, name in imports(parse(file), whole=False):
            package = name.partition(".")[0]
            if package not in sys.stdlib_module_names and package not in own:
                found += [f"{file}:{line}: {package}"] * (named.get(package, package) not in required)
    assert found == []


def test_using_a_run_does_not_import_the_compiler():
    """It takes as long as all else together; training brings it (torch's optimizers do), sampling need not wait."""
    code = "import sys; from workbench.core import index; index.import_parts(); import workbench.opening"
    code += "; print({'torch._dynamo', 'torch.utils.tensorboard', 'matplotlib'} & set(sys.modules) or 'none')"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.strip() == "none", done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_no_module_is_long(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 320, f"{file} has {lines} lines: it holds more than one idea"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_no_hasattr_and_no_utils(file):
    assert file.stem not in ("utils", "util", "helpers", "misc")
    calls = [node for node in ast.walk(parse(file)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert [f"{file}:{call.lineno}" for call in calls if call.func.id == "hasattr"] == []


WORDS = {"none", "text", "uniform", "bytes", "plain", "mask", "cosine", "left", "all", "run"}
"""Names of parts that are words of their own elsewhere (a sight, a mode, a file's suffix)."""


def compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every string that something is compared with: ``==``, ``in``, ``match``, ``startswith``."""
    for node in ast.walk(tree):
        held: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            held = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            held = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "with" in node.func.attr:
            held = node.args
        for value in held:
            for inner in ast.walk(value) if isinstance(value, (ast.Tuple, ast.List, ast.Set)) else [value]:
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.lineno, inner.value


def test_nothing_branches_on_a_parts_name():
    # a report picks its columns by the names of values, which are those of metrics: data, not branches
    names = {entry.name for entry in index.scan().parts if entry.kind != "metric"} - WORDS
    assert {"autoregressive", "diffusion", "absorbing"} <= names
    found = [f"{file}:{line}: {text!r}" for file in FILES for line, text in compared(parse(file)) if text in names]
    assert found == []


def test_a_branch_on_a_name_is_seen():
    text = "if a == 'x' or b in ('y', 'z'):\n    pass\nc.startswith('w')"
    assert {name for _, name in compared(ast.parse(text))} == {"x", "y", "z", "w"}


def parts() -> list[type[Part]]:
    index.import_parts()
    sections: list[type[Part]] = [Section]
    for section in sections:
        sections += section.__subclasses__()
    own = [part for kind in KINDS.values() for part in kind.registered.values()] + sections[1:]
    return [part for part in own if part.__module__.partition(".")[0] in index.PACKAGES]


def test_every_setting_is_documented():
    found = [
        f"{origin(part)}: {name}"
        for part in parts()
        for name, setting in settings(part).items()
        if not setting.doc
    ]  # fmt: skip
    assert found == []


def test_nothing_is_documented_that_is_no_setting():
    found = [f"{origin(part)}: {name}" for part in parts() for name in setting_docs(part) if name not in settings(part)]
    assert found == []
