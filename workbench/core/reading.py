"""YAML that can only be data: no tags, no merge keys, no duplicate keys, bounded in size, nesting and what
its aliases expand to.

Of YAML 1.1's surprises only the underscores in numbers stay: ``on``, ``010``, ``1:30`` and dates are text,
and become what a setting wants when it is resolved.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from workbench.core.errors import WorkbenchError

BYTES = 1_000_000
DEPTH = 50
EXPANDED = 100_000
DIGITS = 40
ENDINGS = (".yaml", ".yml")


class TreeError(WorkbenchError):
    """A file that is no recipe: where (file:line:column) and why."""


def is_yaml(name: Path | str) -> bool:
    """Whether a file's name says that it holds YAML: a recipe, a grid, a study, a launcher's settings."""
    return str(name).endswith(ENDINGS)


def read_yaml(source: Path | str, name: str = "text") -> Any:
    """The data of a YAML file (a `Path`) or text (a `str`, called ``name`` in messages); None where it is
    empty.

    Raises:
        TreeError: unreadable file, broken YAML, or anything but plain data; with file:line:column.
    """
    if isinstance(source, Path):
        text, name = _read_text(source), str(source)
    else:
        text = source
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        what = " ".join(filter(None, (error.context if error.problem_mark is None else None, error.problem)))
        raise TreeError(f"{place}: {what}") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise TreeError(f"{name}:{line}:{column}: a character that YAML does not allow") from error


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise TreeError(f"{path}: {'is a folder; name a .yaml file' if path.is_dir() else 'there is no such file'}")
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES + 1)
    except OSError as error:
        raise TreeError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > BYTES:
        raise TreeError(f"{path}: is larger than {BYTES // 1000} kB; a recipe is small")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise TreeError(f"{path}:{line}:{column}: is not UTF-8") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader less its surprises: no tags, no merge keys, no duplicates, bounded aliases and nesting."""

    yaml_implicit_resolvers: dict[Any, Any] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, "tags are not read: a recipe is plain data", event.start_mark
            )
        if self.depth >= DEPTH:
            raise yaml.constructor.ConstructorError(None, None, f"nesting deeper than {DEPTH} levels", event.start_mark)
        alias = isinstance(event, yaml.AliasEvent)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None:
            return None
        if alias and id(node) not in self.sizes:  # composed nodes have a size: this one still holds us
            raise yaml.constructor.ConstructorError(None, None, "an alias of what it stands in", event.start_mark)
        if not alias:
            self.sizes[id(node)] = 1 + sum(self.sizes[id(inner)] for inner in _inner_nodes(node))
        if self.sizes[id(node)] > EXPANDED:
            raise yaml.constructor.ConstructorError(
                None, None, f"aliases expand to more than {EXPANDED} values", event.start_mark
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name must be plain text", key_node.start_mark)
            if key_node.value == "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys are not read; use `extends`", key_node.start_mark
                )
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r:.60} is given twice", key_node.start_mark)
            seen.add(key)
        return dict(yaml.constructor.BaseConstructor.construct_mapping(self, node, deep=deep))

    def construct_integer(self, node: Any) -> int:
        text = node.value.replace("_", "")
        if len(text) > DIGITS:
            raise yaml.constructor.ConstructorError(None, None, "an integer beyond all use", node.start_mark)
        return int(text, 0) if "x" in text else int(text)


def _inner_nodes(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _resolver(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{kind}", re.compile(pattern), list(first) + ([""] if kind == "null" else [])
    )


_resolver("null", r"(?:~|null|Null|NULL|)\Z", "~nN")
_resolver("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF")
_resolver("int", r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)\Z", "-+0123456789")
_resolver("float", r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)\Z", "-+.0123456789")
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
