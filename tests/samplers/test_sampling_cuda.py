"""On a GPU: the same draws, and no hidden wait of the host where it knows who moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform
from samplers.base import Canvas
from samplers.draw import drive, land
from samplers.exact import IidView, zipf
from samplers.shapers import Nucleus, Temperature, TopK
from tests.samplers.toys import reverse
from workbench.core.rng import Rng

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def views(kind: str, vocab: int, device: str) -> IidView:
    p_V = zipf(vocab).to(device)
    if kind == "absorbing":
        return IidView(Absorbing(vocab), LogLinear(), p_V, 64)
    return IidView(Uniform(vocab), Geometric(), p_V, 64)


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
@pytest.mark.parametrize("rule", ["analytic", "normalised", "euler"])
def test_draws_are_those_of_the_host(kind: str, rule: str) -> None:
    """Keyed on the host, so equal but where rounding moves an edge of the CDF across a number."""
    sampler = reverse(rule, 16, shapers=(Nucleus(0.9),) if rule == "normalised" else ())
    here, there = (
        sampler.draw(views(kind, 1000, device), Canvas.blank(16, 64), Rng(1)).tokens_BL for device in ("cpu", "cuda")
    )
    assert float((here == there).double().mean()) > 0.99


def test_a_blind_walk_never_waits(waiting_is_an_error: None) -> None:
    """Laws, draws and bookkeeping of all steps; the one read, at the end, is let pass."""
    view = views("absorbing", 1000, "cuda")
    sampler = reverse("normalised", 16, shapers=(Temperature(0.9), TopK(50), Nucleus(0.9)))
    walk = sampler.walk(view, sampler.begin(view, Canvas.blank(4, 64), Rng(1)))
    laws = len(sampler.plan(view))

    def last_read(state: object, law: object, moved: int) -> None:
        if state.step == laws:  # type: ignore[attr-defined]
            torch.cuda.set_sync_debug_mode("default")

    with torch.no_grad():
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
