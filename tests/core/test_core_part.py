"""Kinds and parts: what registration refuses, how a constructor becomes a schema."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence

import pytest

from tests.core.toys import Even, Layer, Mix, Pace, Spread
from workbench.core.errors import PartDefinitionError, UnknownPart
from workbench.core.part import KINDS, Maker, Part, did_you_mean, origin, settings, summary, wanted


class Probe(Part, ABC, kind="toy_probe"):
    """A kind that only these tests register in."""


def test_a_constructor_is_the_schema():
    found = settings(Spread)
    assert list(found) == ["pace", "chain", "layer", "dim", "filters", "named", "odd"]  # `vocab` is supplied
    assert found["pace"].part is Pace
    assert found["pace"].required
    assert found["layer"].part is Layer
    assert found["layer"].maker
    assert (found["filters"].many, found["filters"].optional) == ("list", True)
    assert (found["named"].many, found["odd"].many, found["dim"].part) == ("map", "", None)
    assert found["named"].doc == "a map."
    assert settings(Even)["eps"].doc == "where it ends."
    assert wanted(Mix) == ("dim", "place")
    assert summary(Spread).startswith("The main toy")
    assert origin(Even).rpartition(":")[0].endswith("toys.py")


def test_lists_and_maps_may_be_abstract():
    class Holder(Probe):
        """Sequences and mappings of parts."""

        def __init__(self, a: Sequence[Pace], b: Mapping[str, Maker[Layer]], c: tuple[Pace, ...]) -> None:
            """Nothing."""

    found = settings(Holder)
    assert [found[name].many for name in "abc"] == ["list", "map", "list"]
    assert found["b"].maker


def signatures():
    """Constructors that hide their schema."""

    def args(self, *values: int) -> None: ...
    def kwargs(self, **values: int) -> None: ...
    def bare(self, a) -> None: ...
    def named_type(self, type: str) -> None: ...
    def one_of_parts(self, a: Pace | Layer) -> None: ...
    def part_or_number(self, a: Pace | int) -> None: ...
    def list_of_lists(self, a: list[list[Pace]]) -> None: ...
    def object_default(self, a: object = Even) -> None: ...

    def unknown(self, a: Nowhere) -> None: ...  # noqa: F821

    return [args, kwargs, bare, named_type, one_of_parts, part_or_number, list_of_lists, object_default, unknown]


@pytest.mark.parametrize("function", signatures(), ids=lambda function: function.__name__)
def test_registration_refuses_what_is_no_schema(function):
    part = type("Bad", (Probe,), {"__init__": function, "__module__": __name__})
    with pytest.raises(PartDefinitionError):
        Probe.register("bad")(part)
    assert "bad" not in Probe.registered


def test_registration_refuses_a_taken_name_and_another_kind():
    with pytest.raises(PartDefinitionError, match="is taken by"):
        Pace.register("even")(type("Even2", (Pace,), {"__module__": __name__}))
    with pytest.raises(PartDefinitionError, match="is no Probe"):
        Probe.register("x")(Even)
    with pytest.raises(PartDefinitionError, match="kind 'toy_pace' is already"):
        type("Pace2", (Part,), {}, kind="toy_pace")
    assert KINDS["toy_pace"] is Pace


def test_lookup_knows_the_nearest_name():
    assert Pace.lookup("even") is Even
    with pytest.raises(UnknownPart, match=r"no toy_pace 'evn'\. Did you mean 'even'\? Known: even, steep"):
        Pace.lookup("evn")
    assert did_you_mean("x", []) == " Known: none."
