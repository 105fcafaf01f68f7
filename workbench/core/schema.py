"""JSON Schema of a recipe, for editors: completion, docs on hover, and a red line under what does not fit.

It describes a file as it is written: parents and children of ``extends`` leave things out, so nothing is required
here (``workbench check`` says what is missing); a part may be a bare name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from workbench.core import part as parts
from workbench.core.node import choices
from workbench.core.part import REQUIRED, Part, Section, Setting
from workbench.core.values import plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(section: type[Part]) -> dict[str, Any]:
    """The schema of a recipe whose top level is ``section``, with every part registered so far."""
    definitions: dict[str, Any] = {}
    top = _object(section, definitions)
    top["properties"]["extends"] = {
        "type": "string",
        "pattern": r"\.ya?ml$",
        "description": "one parent recipe, relative to this file; what stands here goes over it",
    }
    return {"$schema": DIALECT, "title": section.__name__, **top, "$defs": dict(sorted(definitions.items()))}


def _reference(part: type[Part], definitions: dict[str, Any]) -> dict[str, Any]:
    """A pointer to the definition of a kind or section, which is made on first sight."""
    key = part.__name__ if issubclass(part, Section) else part.kind
    if key not in definitions:
        definitions[key] = {}  # stands there already when a part holds parts of its own kind
        definitions[key] = _object(part, definitions) if issubclass(part, Section) else _kind(part, definitions)
    return {"$ref": f"#/$defs/{key}"}


def _kind(kind: type[Part], definitions: dict[str, Any]) -> dict[str, Any]:
    """A bare name, or a map whose ``type`` says which settings it may hold."""
    found = choices(kind)
    branches = []
    for name, part in found.items():
        key = f"{kind.kind}:{name}"
        definitions[key] = _object(part, definitions)
        definitions[key]["properties"] = {"type": {"const": name}} | definitions[key]["properties"]
        condition = {"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]}
        branches.append({"if": condition, "then": {"$ref": f"#/$defs/{key}"}})
    return {
        "description": parts.summary(kind),
        "anyOf": [
            {"enum": list(found)},
            {"type": "object", "properties": {"type": {"enum": list(found)}}},
            {"type": "null"},
        ],
        "allOf": branches,
    }


def _object(part: type[Part], definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": parts.summary(part),
        "properties": {name: _setting(part, setting, definitions) for name, setting in parts.settings(part).items()},
        "additionalProperties": False,
    }


def _setting(owner: type[Part], setting: Setting, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _shape(setting, definitions)
    if setting.doc:
        schema["description"] = setting.doc
    default = owner.usual.get(setting.name, setting.default)
    if default is not REQUIRED:
        schema["default"] = plain(default)
    return schema


def _shape(setting: Setting, definitions: dict[str, Any]) -> dict[str, Any]:
    if setting.part is None:
        return _value(setting.annotation, definitions)
    one = _reference(setting.part, definitions)
    if setting.many == "list":
        shape: dict[str, Any] = {"type": "array", "items": one}
    elif setting.many == "map":
        shape = {"type": "object", "additionalProperties": {"anyOf": [one, {"type": "null"}]}}
    else:
        return {"anyOf": [one, {"type": "null"}]} if issubclass(setting.part, Section) else one
    return {"anyOf": [shape, {"type": "null"}]}


def _value(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """pydantic's schema of a plain value; its own definitions join ours."""
    try:
        schema = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False)).json_schema(
            ref_template="#/$defs/{model}"
        )
    except PydanticUserError:
        return {}
    inner = schema.pop("$defs", {})
    if isinstance(inner, Mapping):
        definitions.update(inner)
    return schema
