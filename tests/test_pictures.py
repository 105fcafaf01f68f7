"""The pictures of the science pages: each is there, with words for those who cannot see it, and the words are true."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from samplers import times
from samplers.exact import ExactView, zipf
from samplers.race import race_weights
from samplers.reverse import Reverse
from tests.documents import ROOT

spec = importlib.util.spec_from_file_location("pictures_of_the_docs", ROOT / "docs" / "pictures.py")
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_each_picture_is_there_and_described(name):
    """`python docs/pictures.py` makes them; title and description are compared, not the drawing library's paths."""
    told = [
        [(element.tag.rpartition("}")[2], element.text) for element in ElementTree.fromstring(text)][:2]
        for text in (pictures.svg(name), (ROOT / "docs" / "science" / f"{name}.svg").read_text(encoding="utf-8"))
    ]
    assert told[0] == told[1]
    assert [tag for tag, _ in told[0]] == ["title", "desc"] and len(told[0][1][1]) > 80


def test_every_image_of_the_docs_says_what_it_shows():
    for path in (ROOT / "docs").rglob("*.md"):
        for words, file in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", path.read_text(encoding="utf-8")):
            assert words, f"{path}: {file}"
            assert path.parent.name != "science" or len(words) > 60, f"{path}: {file} needs a description"


def test_what_the_words_say_of_graphs_is_so():
    law = pictures.fading(Absorbing(3))
    assert law[50, 3] == pytest.approx(0.5, abs=1e-3) and law[50, 1] == 0
    assert pictures.fading(Uniform(3))[-1] == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_what_the_words_say_of_steps_is_so():
    view = ExactView(Absorbing(3), LogLinear(1e-9), pictures.pair_law())
    far = {
        type(rule): [pictures.distance(view, Reverse(rule, times.Uniform(1e-6), steps)) for steps in (1, 2, 4)]
        for rule in (pictures.Normalised(), pictures.Trapezoidal(), pictures.FirstHitting())
    }
    assert far[pictures.Normalised] == pytest.approx([0.4033, 0.2016, 0.1008], abs=1e-3)
    assert far[pictures.Trapezoidal] == pytest.approx([0.131, 0.071, 0.036], abs=1e-3)
    assert far[pictures.FirstHitting] == pytest.approx([0, 0, 0], abs=1e-9)


def test_what_the_words_say_of_the_bound_is_so():
    joint = pictures.chain_law()
    nats = list(pictures.by_masks(joint))
    assert nats == pytest.approx([0.4806, 0.5373, 0.6110, 0.7109, 0.8553, 1.0986], abs=1e-4)
    assert sum(nats) / 6 == pytest.approx(float(-(joint * joint.log()).sum()) / 6, abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "half", "nats"), [(16, 7e-7, 7.60), (128, 6e-6, None), (1024, 5e-5, 6.02), (4096, None, 5.28)]
)
def test_what_the_words_say_of_float32_is_so(steps, half, nats):
    if half is not None:
        p = torch.tensor([half], dtype=torch.float64)
        assert float(race_weights(p, 1 / steps) / (p / steps / (1 - 1 / steps))) == pytest.approx(0.5, abs=0.03)
    if nats is not None:
        q = race_weights(zipf(50257), 1 / steps)
        q = q / q.sum()
        assert float(-(q * q.clamp_min(1e-300).log()).sum()) == pytest.approx(nats, abs=0.006)
