"""Every registered predictor, shaper and grid meets its contract; each check can find a fault."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from graphs.base import Noise
from samplers.base import Law, Lens, Look, Order, Predictor, ScoreView, Shape, ShapeContext, Shaper, State, Times
from samplers.contract import CHECKS, check_predictor, check_shaper, check_times
from samplers.predictors.normalised import Normalised
from tests.samplers.toys import Remask
from workbench.core import index
from workbench.core.part import Part

index.import_parts()


@pytest.mark.parametrize("name", Predictor.names())
def test_predictor(name: str) -> None:
    assert check_predictor(Predictor.lookup(name)) == []


@pytest.mark.parametrize("name", Shaper.names())
def test_shaper(name: str) -> None:
    assert check_shaper(Shaper.lookup(name)) == []


@pytest.mark.parametrize("name", Times.names())
def test_times(name: str) -> None:
    assert check_times(Times.lookup(name)) == []


@pytest.mark.parametrize("kind,name", [(kind, name) for kind in (Order, Lens) for name in kind.names()])
def test_order_and_lens(kind: type[Part], name: str) -> None:
    assert CHECKS[kind.kind](kind.lookup(name)) == []


def test_every_kind_has_its_check() -> None:
    assert set(CHECKS) == {"predictor", "shaper", "times", "order", "lens"}



# --- parts that are wrong in one way each -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_registers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Predictor, Shaper, Times, Order, Lens):
        monkeypatch.setattr(kind, "registered", dict(kind.registered))
    yield


def test_a_corrector_meets_the_contract() -> None:
    Predictor.register("toy")(Remask)
    assert check_predictor(Remask) == []


def test_a_law_is_told_by_digits_that_show_it_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> float:
        found = [one for one in check_predictor(Normalised) if "exact score" in one]
        return float(found[0].partition(" off ")[0].rpartition(" ")[2])

    monkeypatch.setattr("samplers.contract.NEAR", 0.0)
    for share in (0.9999, 0.999):
        monkeypatch.setattr("samplers.contract.NEAR", share * told())
        assert told() > share * told()


class Wrong(Normalised):
    """A normalised rule with a fault."""

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        return self.fault(super().law(stage, looks, state, view, shape), state, looks[stage])

    def fault(self, law: Law, state: State, look: Look) -> Law:
        raise NotImplementedError


class TooMuch(Wrong):
    def fault(self, law: Law, state: State, look: Look) -> Law:
        return replace(law, leave_R=law.leave_R + 0.9)


class Stays(Wrong):
    def fault(self, law: Law, state: State, look: Look) -> Law:
        return replace(law, target=lambda subset: torch.zeros(len(subset), 4 if law.blind else 3))


class Single(Wrong):
    def fault(self, law: Law, state: State, look: Look) -> Law:
        return replace(law, leave_R=law.leave_R.float())


class Fixed(Wrong):
    def fault(self, law: Law, state: State, look: Look) -> Law:
        rows_R = torch.arange(state.x_BL.numel())
        return replace(law, rows_R=rows_R, leave_R=torch.zeros(len(rows_R), dtype=torch.float64))


class Peeks(Wrong):
    def fault(self, law: Law, state: State, look: Look) -> Law:
        if law.rows_R.numel():
            look.clean(law.rows_R)
        return law


class Scribbles(Wrong):
    def fault(self, law: Law, state: State, look: Look) -> Law:
        state.x_BL[:, 0] = 0
        return law


class Deaf(Normalised):
    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        return super().law(stage, looks, state, view, None)


class Slow(Wrong):
    """Leaves less often than the noise goes."""

    def fault(self, law: Law, state: State, look: Look) -> Law:
        return replace(law, leave_R=0.7 * law.leave_R)


class Hasty(Wrong):
    """Half of the likely tokens' mass is given to all alike."""

    def fault(self, law: Law, state: State, look: Look) -> Law:
        def target(subset: Tensor) -> Tensor:
            p_RN = law.target(subset).exp()
            return torch.where(p_RN > 0, p_RN / p_RN.sum(-1, keepdim=True) + 0.5, 0.0).log()

        return replace(law, target=target)


class Crowd(Wrong):
    """Lands by what the batch holds."""

    def fault(self, law: Law, state: State, look: Look) -> Law:
        def target(subset: Tensor) -> Tensor:
            out_RV = torch.full((len(subset), 3), -math.inf)
            out_RV[:, len(state.x_BL) % 3] = 0.0
            return out_RV

        return replace(law, target=target)


@pytest.mark.parametrize(
    "part,complaint",
    [
        (TooMuch, "P(leave) outside"),
        (Stays, "mass on the row's own state"),
        (Single, "must be float64"),
        (Fixed, "a fixed position is proposed"),
        (Peeks, "declared blind"),
        (Scribbles, "changed in place"),
        (Deaf, "tokens that the shaper excludes"),
        (Crowd, "drawn alone differs"),
        (Hasty, "off at the end"),
        (Slow, "off at t = 0.3"),
    ],
)
def test_a_wrong_predictor_is_found(part: type[Predictor], complaint: str) -> None:
    Predictor.register("wrong")(part)
    assert any(complaint in problem for problem in check_predictor(part)), check_predictor(part)


class Unnormalised(Shaper):
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        return log_p_RV / 2


class Raises(Shaper):
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        return torch.full_like(log_p_RV, -math.log(log_p_RV.shape[-1]))


class InPlace(Shaper):
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        log_p_RV[:, 0] = -math.inf
        return log_p_RV.log_softmax(-1)


class Mixes(Shaper):
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        return (log_p_RV + log_p_RV.mean(0).clamp_min(-9)).log_softmax(-1)


class Halves(Shaper):
    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        return log_p_RV.half()


@pytest.mark.parametrize(
    "part,complaint",
    [
        (Unnormalised, "not normalised"),
        (Raises, "probability zero got some"),
        (InPlace, "changed in place"),
        (Mixes, "shaped otherwise"),
        (Halves, "became torch.float16"),
    ],
)
def test_a_wrong_shaper_is_found(part: type[Shaper], complaint: str) -> None:
    Shaper.register("wrong")(part)
    assert any(complaint in problem for problem in check_shaper(part)), check_shaper(part)


class Level(Times):
    def grid(self, steps: int, noise: Noise) -> Tensor:
        return torch.ones(steps + 1, dtype=torch.float64)


class Short(Times):
    def grid(self, steps: int, noise: Noise) -> Tensor:
        return torch.linspace(1, 0.1, steps)


@pytest.mark.parametrize("part,complaint", [(Level, "fall strictly"), (Short, "float64 times")])
def test_a_wrong_grid_is_found(part: type[Times], complaint: str) -> None:
    Times.register("wrong")(part)
    assert any(complaint in problem for problem in check_times(part))


class Costly(Shaper):
    def __init__(self, weight: float) -> None:
        self.weight = weight


def test_a_part_that_needs_settings_must_give_an_example() -> None:
    Shaper.register("wrong")(Costly)
    (problem,) = check_shaper(Costly)
    assert "example settings do not resolve" in problem and "weight" in problem


class Backwards(Order):
    """Ranks by the place in the batch."""

    def score(self, stats, context):
        return torch.arange(context.rows_R.numel(), dtype=torch.float64)


class Greedy(Order):
    """Counts more than there is."""

    def score(self, stats, context):
        return torch.zeros(context.rows_R.numel(), dtype=torch.float64)

    def count(self, score_BL, context):
        return torch.full((2,), 7)


class Sharp(Lens):
    """Squares the laws without dividing."""

    def __call__(self, view, canvas):
        class Squared(type(view)):  # type: ignore[misc]
            def look(self, x_BL, sigma_B, told_B=None):
                look = view.look(x_BL, sigma_B)
                clean = look.clean
                look.clean = lambda rows_R: 2 * clean(rows_R)
                return look

        return Squared(view.graph, view.noise, view.joint)


@pytest.mark.parametrize(
    "kind,part,complaint",
    [
        (Order, Backwards, "depend on the other texts"),
        (Order, Greedy, "from 0 to the length"),
        (Lens, Sharp, "not one: [R, V], normalised"),
    ],
)
def test_a_wrong_order_or_lens_is_found(kind: type[Part], part: type[Part], complaint: str) -> None:
    kind.register("wrong")(part)
    found = CHECKS[kind.kind](part)
    assert any(complaint in problem for problem in found), found
