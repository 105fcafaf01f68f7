"""From resolved nodes to objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.core import part as parts
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.node import Node, nodes, title
from workbench.core.part import Maker


def build(node: Node, supplied: Mapping[str, Any] | None = None) -> Any:
    """The object of a resolved node, nested parts first.

    ``supplied``: what the workbench knows (``vocab``, ``length`` …), passed to the constructors that ask for
    it. A nested part is also supplied from its owner's plain settings of the same name.

    Raises:
        RecipeError: a part that wants what nobody supplies, or whose constructor fails; with the path.
    """
    known = dict(supplied or {})
    inner = known | {name: value for name, value in node.settings.items() if not any(nodes(value))}
    makers = {name for name, setting in parts.settings(node.part).items() if setting.maker}
    arguments = {
        name: _made(value, inner, name in makers) if any(nodes(value)) else value
        for name, value in node.settings.items()
    }
    for name in parts.wanted(node.part):
        if name in known:
            arguments[name] = known[name]
    try:
        return node.part(**arguments)
    except RecipeError:
        raise
    except WorkbenchError as error:
        raise RecipeError([Problem(node.path, str(error))]) from error
    except Exception as error:
        absent = [name for name in parts.wanted(node.part) if name not in known]
        why = f"nobody supplies {', '.join(absent)}" if absent and isinstance(error, TypeError) else f"{error!r}"
        raise RecipeError([Problem(node.path, f"{title(node.part)} cannot be built: {why}")]) from error


def _made(value: Any, supplied: Mapping[str, Any], maker: bool) -> Any:
    """What a constructor gets for nodes: built parts, or makers of them."""
    if isinstance(value, dict):
        return {name: _made(item, supplied, maker) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_made(item, supplied, maker) for item in value]
    if maker:
        return Maker(value.part, lambda extra: build(value, {**supplied, **extra}))
    return build(value, supplied)
