"""Prompts cut from held-out blocks and what a run makes of them: what is given stays, numbers are common."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.smoke import EXACT, prose
from workbench import assemble, opening
from workbench.core.errors import RecipeError
from workbench.metrics.base import Continued, Prompts
from workbench.metrics.value import KEPT_UNITS, Units, Value
from workbench.recipe import load

PROMPTS = Prompts(lengths=(2, 8), infill=(3, 5), total=24, count=3, each=2)


def continued(run, prompts: Prompts, batch: int = 4) -> dict[str, Continued]:
    opened = opening.open_trained(run.path)
    return opened.examiner(assemble.prepare(opened.resolved, None, None, run.path)).continued(prompts, batch)


def test_a_diffusion_run_continues_and_fills_gaps(smoke) -> None:
    found = continued(smoke("sedd"), PROMPTS)
    assert list(found) == ["k2", "k8", "infill"]
    for name, (before, after) in PROMPTS.ends().items():
        one = found[name]
        assert one.drawn.tokens_NL.shape == (6, 24) and one.real.tokens_NL.shape == (3, 24)
        whole = np.repeat(one.real.tokens_NL, 2, axis=0)
        np.testing.assert_array_equal(one.drawn.tokens_NL[:, :before], whole[:, :before])
        np.testing.assert_array_equal(one.drawn.tokens_NL[:, 24 - after :], whole[:, 24 - after :])
        assert (one.drawn.tokens_NL[:, one.free] != whole[:, one.free]).any()
        assert one.free == slice(before, 24 - after)
        assert one.prompt_N.tolist() == [0, 0, 1, 1, 2, 2]
        for i, text in enumerate(one.drawn.texts):
            assert text == one.given[i // 2] + one.drawn_rest[i]
        assert [a + b for a, b in zip(one.given, one.real_rest, strict=True)] == list(one.real.texts)
        assert one.drawn.calls > 0 and one.drawn.seconds > 0


def test_numbers_depend_on_the_prompt_alone(smoke) -> None:
    run = smoke("gpt2")
    first = continued(run, Prompts(lengths=(4,), total=16, count=3, each=2))["k4"]
    again = continued(run, Prompts(lengths=(4,), total=16, count=3, each=2), batch=5)["k4"]
    np.testing.assert_array_equal(first.drawn.tokens_NL, again.drawn.tokens_NL)
    assert first.key == again.key
    assert len({tuple(row) for row in first.drawn.tokens_NL.tolist()}) == 6
    other = continued(run, Prompts(lengths=(5,), total=16, count=3, each=2))["k5"]
    assert other.key != first.key


def test_prompts_of_a_whole_block(smoke) -> None:
    one = continued(smoke("gpt2"), Prompts(lengths=(4,), count=1, each=1))["k4"]
    assert one.drawn.tokens_NL.shape == (1, 32)


@pytest.mark.parametrize(
    ("name", "prompts", "message"),
    [
        ("gpt2", "{infill: [2, 2]}", "prompts.infill: sampler 'left_to_right' continues prefixes only"),
        ("sedd", "{infill: [2]}", "prompts.infill: two numbers"),
        ("sedd", "{lengths: []}", "prompts.lengths: no prompts"),
        ("sedd", "{total: 33, lengths: [1]}", "prompts.total: 33 tokens, and a block has 32"),
        ("sedd", "{lengths: [32]}", "prompts.lengths: 32 tokens given of 32"),
        ("sedd", "{lengths: [1], infill: [9, 7], total: 16}", "prompts.infill: 16 tokens given of 16"),
    ],
)
def test_prompts_that_do_not_fit_are_told(tmp_path, name: str, prompts: str, message: str) -> None:
    given = [*EXACT, *prose(tmp_path), f"evaluations.final.prompts={prompts}"]
    with pytest.raises(RecipeError) as caught:
        load(f"smoke/{name}.yaml", given)
    assert f"evaluations.final.{message}" in str(caught.value)


def test_units_survive_json_and_stay_small() -> None:
    above, below = np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 3.0])
    units = Units.of("key", above, below)
    assert units is not None
    assert np.dot(units.values, units.weights) / sum(units.weights) == pytest.approx(7 / 8, rel=1e-5)
    value = Value("x", 7 / 8, units=units)
    assert Value.from_data(json.loads(json.dumps(value.as_data()))) == value
    assert Units.of("key", np.zeros(KEPT_UNITS + 1)) is None
    assert Units.of("key", above, np.array([1.0, 0.0, 1.0])) is None
