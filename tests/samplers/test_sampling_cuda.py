"""On a GPU: the same draws, and no hidden wait of the host where it knows who moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform
from samplers.base import Canvas
from samplers.draw import drive, land
from samplers.exact import IidView, zipf
from samplers.predictors.ordered import Ordered
from samplers.reverse import Reverse
from tests.samplers.toys import reverse
from tests.waits import waiting_is_an_error
from workbench.core import index
from workbench.core.part import KINDS
from workbench.core.rng import Rng
from workbench.core.spec import build, resolve

index.import_parts()

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def views(kind: str, vocab: int, device: str) -> IidView:
    p_V = zipf(vocab).to(device)
    if kind == "absorbing":
        return IidView(Absorbing(vocab), LogLinear(), p_V, 64)
    return IidView(Uniform(vocab), Geometric(), p_V, 64)


def parts(kind: str) -> list[str]:
    return [entry.name for entry in index.scan().parts if entry.kind == kind and entry.module]


def made(kind: str, name: str) -> Any:
    """A part as a recipe would build it, from its defaults and what its contract tests give it."""
    part = KINDS[kind].lookup(name)
    node, problems = resolve(KINDS[kind], {"type": name, **part.example()})
    assert node is not None and not problems
    return build(node)


def agree(sampler: Reverse, kind: str) -> None:
    """Keyed on the host, so equal but where rounding moves an edge of the CDF across a number."""
    canvas = Canvas.blank(16, 64)
    canvas = Canvas(canvas.x_BL, torch.arange(64).expand(16, 64) < 3, canvas.seq_B)  # a prompt, for those that read it
    with torch.no_grad():
        here, there = (sampler.draw(views(kind, 1000, where), canvas, Rng(1)) for where in ("cpu", "cuda"))
    assert there.tokens_BL.device.type == "cpu"
    assert float((here.tokens_BL == there.tokens_BL).double().mean()) > 0.99
    assert there.trace["moved"] == pytest.approx(here.trace["moved"], abs=8)
    assert there.trace["clipped"] == pytest.approx(here.trace["clipped"], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
@pytest.mark.parametrize("name", parts("predictor"))
def test_predictors_and_correctors_draw_what_they_draw_on_the_host(kind: str, name: str) -> None:
    rule = made("predictor", name)
    if rule.graphs == "mask" and kind != "absorbing":
        pytest.skip(f"{name} walks masked graphs only")
    agree(reverse("normalised", 8, correctors=(rule,)) if rule.corrects else reverse(rule, 8), kind)


@pytest.mark.parametrize("name", parts("order"))
def test_orders_write_what_they_write_on_the_host(name: str) -> None:
    agree(reverse(Ordered(made("order", name)), 8), "absorbing")


@pytest.mark.parametrize("name", parts("shaper"))
def test_shapers_shape_as_on_the_host(name: str) -> None:
    agree(reverse("normalised", 8, shapers=(made("shaper", name),)), "absorbing")


def test_a_blind_walk_never_waits() -> None:
    """Laws, draws and bookkeeping of all steps; the canvas on its way there, and the one read at the end, may."""
    view = views("absorbing", 1000, "cuda")
    sampler = reverse("normalised", 16, shapers=tuple(made("shaper", name) for name in parts("shaper")))
    walk = sampler.walk(view, sampler.begin(view, Canvas.blank(4, 64), Rng(1)))
    laws = len(sampler.plan(view))

    def last_read(state: object, law: object, moved: int) -> None:
        if state.step == laws:  # type: ignore[attr-defined]
            torch.cuda.set_sync_debug_mode("default")

    with waiting_is_an_error(), torch.no_grad():
        last = drive(walk, Rng(1), view, last_read)
    assert int(last.x_BL.max()) < 1000


def test_empty_states_are_not_drawn_whatever_the_order_of_addition() -> None:
    """A parallel scan is not monotone in its last bits: no number may land where there is no mass."""
    generator = torch.Generator().manual_seed(0)
    log_p_RN = torch.randn(256, 50_257, generator=generator)
    log_p_RN[torch.rand(256, 50_257, generator=generator) < 0.9] = -torch.inf
    u_R = torch.rand(256, generator=generator, dtype=torch.float64)
    for u in (u_R, torch.zeros_like(u_R), torch.full_like(u_R, 1 - 2.0**-53)):
        y_R, sound_R = land(log_p_RN.cuda(), u.cuda())
        assert bool(sound_R.all())
        assert bool(torch.isfinite(log_p_RN.gather(-1, y_R.cpu().unsqueeze(-1))).all())
