"""The JSON Schema of recipes: checked by a validator of the keywords it uses, on every recipe there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.core.toys import Study, valid
from workbench.audit.section import Audit
from workbench.core import index
from workbench.core.reading import read_yaml
from workbench.core.schema import DIALECT, json_schema
from workbench.grid.section import Grid
from workbench.recipe import Recipe
from workbench.study import section

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip
KNOWN = {
    "$ref", "$defs", "$schema", "title", "description", "default", "type", "const", "enum", "anyOf", "allOf", "if",
    "then", "properties", "additionalProperties", "required", "items", "minItems", "minProperties", "minimum",
    "exclusiveMinimum", "maximum", "exclusiveMaximum", "pattern",
}  # fmt: skip


def faults(schema: dict[str, Any], data: Any, root: dict[str, Any], path: str = "") -> list[str]:
    """What a validator of JSON Schema (2020-12) would say, for the keywords in KNOWN."""
    assert set(schema) <= KNOWN, f"the test does not know {set(schema) - KNOWN}"
    found = []
    if "$ref" in schema:
        found += faults(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], data, root, path)
    if "type" in schema and not _is(data, schema["type"]):
        found.append(f"{path}: no {schema['type']}: {data!r}")
    if "const" in schema and data != schema["const"]:
        found.append(f"{path}: not {schema['const']!r}")
    if "enum" in schema and data not in schema["enum"]:
        found.append(f"{path}: {data!r} is none of {schema['enum']}")
    if "anyOf" in schema and all(faults(branch, data, root, path) for branch in schema["anyOf"]):
        found.append(f"{path}: fits no branch")
    for branch in schema.get("allOf", ()):
        if "if" not in branch or not faults(branch["if"], data, root, path):
            found += faults(branch.get("then", branch if "if" not in branch else {}), data, root, path)
    if isinstance(data, dict):
        properties = schema.get("properties", {})
        found += [f"{path}: lacks {name}" for name in schema.get("required", ()) if name not in data]
        for name, value in data.items():
            inner = properties.get(name, schema.get("additionalProperties", True))
            if inner is False:
                found.append(f"{path}.{name}: not known")
            elif inner is not True:
                found += faults(inner, value, root, f"{path}.{name}")
    if isinstance(data, dict) and len(data) < schema.get("minProperties", 0):
        found.append(f"{path}: too few")
    if isinstance(data, list) and len(data) < schema.get("minItems", 0):
        found.append(f"{path}: too few")
    if isinstance(data, list) and "items" in schema:
        for i, item in enumerate(data):
            found += faults(schema["items"], item, root, f"{path}[{i}]")
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        if data < schema.get("minimum", data) or data > schema.get("maximum", data):
            found.append(f"{path}: out of bounds")
        if data <= schema.get("exclusiveMinimum", data - 1) or data >= schema.get("exclusiveMaximum", data + 1):
            found.append(f"{path}: out of bounds")
    if isinstance(data, str) and not re.search(schema.get("pattern", ""), data):
        found.append(f"{path}: does not match")
    return found


def _is(data: Any, name: str) -> bool:
    return isinstance(data, TYPES[name]) and (not isinstance(data, bool) or name == "boolean")


def numbers(data: Any) -> Any:
    """Text like 1e-4 as the number that an editor's YAML 1.2 reads."""
    if isinstance(data, dict):
        return {key: numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [numbers(value) for value in data]
    return float(data) if isinstance(data, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", data) else data


def test_the_toy_schema_accepts_what_resolves():
    schema = json_schema(Study)
    assert schema["$schema"] == DIALECT
    assert faults(schema, numbers(valid()), schema) == []
    assert faults(schema, numbers(valid()) | {"law": "spread"}, schema) == []
    child = {"extends": "a.yaml", "law": {"pace": {"steps": 3}}, "tests": {"valid": None}}
    assert faults(schema, child, schema) == []


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": "x"},
        {"law": {"type": "spraed"}},
        {"law": {"type": "spread", "dim": 0}},
        {"law": {"type": "spread", "vocab": 3}},
        {"law": {"type": "spread", "filters": "cut"}},
        {"law": {"type": "spread", "filters": [{"type": "cut", "p": 1}]}},
        {"law": {"type": "spread", "named": {"a": {"type": "cut", "mode": "x"}}}},
        {"fit": {"steps": 1.5}},
        {"extends": "parent.txt"},
    ],
)
def test_the_toy_schema_refuses_what_does_not(change):
    schema = json_schema(Study)
    assert faults(schema, numbers(valid()) | change, schema)


def test_docs_and_defaults_are_in_it():
    schema = json_schema(Study)
    pace = schema["$defs"]["toy_pace:even"]["properties"]["steps"]
    assert pace == {"type": "integer", "minimum": 1, "default": 8, "description": "how many."}
    assert schema["$defs"]["toy_law:spread"]["properties"]["layer"]["default"] == "mix"
    assert "default" not in schema["$defs"]["Fit"]["properties"]["steps"]


@pytest.fixture(scope="module")
def recipe_schema():
    index.import_parts()
    return json_schema(Recipe)


@pytest.fixture(scope="module")
def audit_schema():
    index.import_parts()
    return json_schema(Audit)


@pytest.fixture(scope="module")
def grid_schema():
    index.import_parts()
    return json_schema(Grid)


@pytest.fixture(scope="module")
def study_schema():
    index.import_parts()
    return json_schema(section.Study)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_fits_the_schema(path, recipe_schema, audit_schema, grid_schema, study_schema):
    data = numbers(read_yaml(path))
    if "dataset_path" in data:
        pytest.skip("a task of lm-evaluation-harness, not a recipe")
    schema = audit_schema if path.parent.name == "audits" else recipe_schema
    if "axes" in data:
        schema, data = grid_schema, {"name": path.stem, **data}
    if "questions" in data:
        schema, data = study_schema, {"name": path.stem, **data}
    assert faults(schema, data, schema) == []


def test_every_part_has_its_branch(recipe_schema):
    found = index.scan()
    parts = {key for key in recipe_schema["$defs"] if ":" in key}
    reached = {kind for kind, _, _ in (key.partition(":") for key in parts)}
    assert {f"{entry.kind}:{entry.name}" for entry in found.parts if entry.kind in reached} <= parts
    assert {"backbone", "process", "graph", "noise", "sampler", "predictor", "shaper", "corpus", "tokenizer"} <= reached
