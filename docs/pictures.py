"""The pictures of docs/science, made of the package's own closed forms and enumerations: ``python docs/pictures.py``.

Nothing in them was measured or trained. Each says in its own description what it shows, for those who do not see it.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from samplers import times
from samplers.enumeration import law_of
from samplers.exact import ExactView, zipf
from samplers.predictors.first_hitting import FirstHitting
from samplers.predictors.normalised import Normalised
from samplers.predictors.trapezoidal import Trapezoidal
from samplers.race import race_weights
from samplers.reverse import Reverse
from workbench.report.plots import INK, STYLE, colour, draw_line, panel, svg_of

FOLDER = Path(__file__).parent / "science"
PLACES = ((0.2, (8, 6)), (0.0, (12, -2)), (0.0, (12, 5)))
"""Where the names of the three samplers stand."""
T = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
Picture = tuple[Figure, str, str]
"""A figure, its title, and what it shows in words."""


def pair_law() -> torch.Tensor:
    """Texts of two letters: ab and ba with 0.4 each, the other seven share the rest."""
    joint = torch.full((3, 3), 0.2 / 7, dtype=torch.float64)
    joint[0, 1] = joint[1, 0] = 0.4
    return joint


def chain_law(length: int = 6, stay: float = 0.8) -> torch.Tensor:
    """Texts of a Markov chain over three letters that keeps its letter with probability ``stay``."""
    step = torch.full((3, 3), (1 - stay) / 2, dtype=torch.float64).fill_diagonal_(stay)
    joint = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(length - 1):
        joint = joint.unsqueeze(-1) * step
    return joint


def fading(graph: Graph) -> np.ndarray:
    """P(state at t | a at 0), [len(T), S]."""
    sigma = LogLinear().total(T)
    columns = [
        graph.kernel_into(torch.full_like(T, state, dtype=torch.long), torch.zeros_like(T), sigma)[:, 0]
        for state in range(graph.states)
    ]
    return torch.stack(columns, -1).numpy()


def masks() -> Picture:
    """The absorbing graph."""
    figure, axes = panel("time t", "probability of each state")
    law = fading(Absorbing(3))
    said(axes, 0, T, law[:, 0], "still a", 0.18, (6, 4))
    said(axes, 1, T, law[:, 3], "the mask", 0.74, (-58, 4))
    said(axes, 2, T, law[:, 1], "b or c", 0.5)
    words = """
        From the letter a, on the absorbing graph with log-linear noise: the probability of still being a falls from
        1 to 0 in a straight line, that of the mask rises from 0 to 1, that of another letter stays 0.
    """
    return figure, "A letter under the absorbing graph", words


def redraws() -> Picture:
    """The uniform graph."""
    figure, axes = panel("time t", "probability of each state")
    law = fading(Uniform(3))
    said(axes, 0, T, law[:, 0], "a", 0.3)
    said(axes, 1, T, law[:, 1], "b, and c alike", 0.55, (0, -16))
    axes.axhline(1 / 3, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    words = """
        From the letter a, on the uniform graph over three letters: the probability of a falls from 1 and those of b
        and c rise from 0, until at t = 1 all three are one third.
    """
    return figure, "A letter under the uniform graph", words


def score() -> Picture:
    """Scores of a masked position beside a known letter."""
    figure, axes = panel("time t", "score of each letter, logarithmic")
    inner = T[5:-1]
    view = ExactView(Absorbing(3), LogLinear(), pair_law())
    x_BL = torch.tensor([[3, 1]]).expand(len(inner), 2)
    look = view.look(x_BL, LogLinear().total(inner))
    found = look.log_score(torch.arange(0, 2 * len(inner), 2)).exp().numpy()
    said(axes, 0, inner, found[:, 0], "a before b", 0.3, (-60, -16))
    said(axes, 1, inner, found[:, 1], "b before b, c alike", 0.35, (-30, -26))
    total = found[:, :3].sum(1)
    axes.plot(inner, total, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    said(axes, 2, inner, total, "their sum, 1/(e^σ − 1)", 0.3, (8, 8), line=False)
    axes.set_yscale("log")
    powers(axes.yaxis)
    words = """
        The scores of the letters at a masked position before a b, in texts that are mostly ab or ba: a's is 14
        times b's and c's at every time, and all fall together as t goes to 1; their sum is known without a network.
    """
    return figure, "The score of a masked position", words


def entropy() -> Picture:
    """Score entropy of one entry."""
    figure, axes = panel("estimated score s, where the true one is r = 2", "loss")
    s = np.linspace(0.05, 6, 200)
    said(axes, 0, s, s - 2 * np.log(s) + 2 * (math.log(2) - 1), "score entropy", 0.8, (-10, -18))
    said(axes, 1, s, 0.25 * (s - 2) ** 2, "squared error / 4", 0.86, (-96, 4))
    axes.set_ylim(0, 4)
    words = """
        Both losses are 0 at the true score 2. Towards a score of 0 the score entropy grows without bound, the
        squared error does not; towards large scores the score entropy grows in a straight line.
    """
    return figure, "Score entropy beside squared error", words


def steps() -> Picture:
    """Distance to the truth against steps, enumerated."""
    figure, axes = panel("steps", "distance to the truth (total variation)")
    view, counts = ExactView(Absorbing(3), LogLinear(1e-9), pair_law()), (1, 2, 4, 8, 16, 32)
    rules = {"normalised": Normalised(), "trapezoidal": Trapezoidal(), "first_hitting": FirstHitting()}
    for index, (name, rule) in enumerate(rules.items()):
        far = [distance(view, Reverse(rule, times.Uniform(1e-6), count)) for count in counts]
        said(axes, index, counts, far, name, *PLACES[index], marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    words = """
        Texts that are mostly ab or ba, the exact score, every outcome enumerated. One step draws both letters on
        their own: the distance is 0.40, and the plain step halves it with every doubling of steps. The trapezoidal
        step, which looks twice, begins at 0.13 and halves too; writing one letter at a time (first_hitting) is
        exact.
    """
    return figure, "Steps draw positions independently", words


def distance(view: ExactView, sampler: Reverse) -> float:
    """Total variation between what a sampler writes and the view's law."""
    law = law_of(sampler, view)[(slice(view.vocab),) * view.length]
    return 0.5 * float((law - view.joint).abs().sum())


def amounts() -> Picture:
    """Nats of a masked token by the number of masks, whose mean is the bound."""
    figure, axes = panel("tokens masked, of 6", "nats of a masked token")
    joint = chain_law()
    nats = list(by_masks(joint))
    exact = float(-(joint * joint.log()).sum()) / joint.dim()
    said(axes, 0, range(1, 7), nats, "k masked, 6 − k known", 0.5, (2, -14), marker="o")
    axes.axhline(exact, color=colour(1), linewidth=1.4, linestyle=(0, (4, 2)))
    axes.text(1.0, exact + 0.02, "their mean: the bound", color=colour(1), fontsize=9)
    axes.set_ylim(0, 1.2)
    words = """
        Texts of six letters of a Markov chain, exact laws. One masked letter among known ones costs 0.48 nats, six
        masked ones 1.10, the logarithm of three; the mean over all amounts is the entropy a letter, 0.72.
    """
    return figure, "The bound is a mean over amounts of masking", words


def by_masks(joint: torch.Tensor) -> Iterator[float]:
    """For k = 1 … L: mean nats of a masked token given the others, over all sets of k masks."""
    axes = range(joint.dim())
    for k in range(1, joint.dim() + 1):
        found = []
        for hidden in combinations(axes, k):
            for one in hidden:
                rest = tuple(axis for axis in hidden if axis != one)
                both = joint.sum(rest) if rest else joint
                known = joint.sum(hidden) if k < joint.dim() else joint.sum()
                found.append(float(-(both * both.log()).sum() + (known * known.log()).sum()))
        yield float(np.mean(found))


def race() -> Picture:
    """What a float32 race does to a token of a given probability."""
    figure, axes = panel("probability of a token", "its weight in float32 / its weight")
    p = torch.logspace(-9, -1, 200, dtype=torch.float64)
    for index, count in enumerate((16, 128, 1024)):
        leave = 1 / count
        shown = race_weights(p, leave) / (p * leave / (1 - leave))
        text, off = (("16 steps", (-50, 8)), ("128", (5, -4)), ("1,024 steps", (6, -8)))[index]
        said(axes, index, p, shown, text, 0.5, off, level=0.5)
    axes.set_xscale("log")
    powers(axes.xaxis)
    words = """
        In the first of 16, 128 and 1,024 steps: a likely token keeps its weight; at a probability of 7e-7, 6e-6 and
        5e-5 it has lost half of it, and below that it is hardly ever drawn. More steps cut more tokens off.
    """
    return figure, "Rare tokens are cut off", words


def colder() -> Picture:
    """Entropy of what a float32 race draws."""
    figure, axes = panel("steps", "entropy of the drawn token, nats")
    p, counts = zipf(50257), [2**k for k in range(4, 13)]
    drawn = [race_weights(p, 1 / count) for count in counts]
    found = [float(-(q / q.sum() * (q / q.sum()).clamp_min(1e-300).log()).sum()) for q in drawn]
    exact = float(-(p * p.log()).sum())
    said(axes, 0, counts, found, "float32 race", 0.5, marker="o")
    axes.axhline(exact, color=colour(1), linewidth=1.4, linestyle=(0, (4, 2)))
    axes.text(counts[3], exact + 0.06, "exact, at any number of steps", color=colour(1), fontsize=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_ylim(5, 8)
    words = f"""
        A Zipf law over 50,257 tokens, the first step. Exact draws have its entropy, {exact:.2f} nats, at any number
        of steps; the race in float32 has {found[0]:.2f} at 16 steps and {found[-1]:.2f} at 4,096.
    """
    return figure, "More steps, colder text", words


PICTURES: dict[str, Callable[[], Picture]] = {
    "graph-absorbing": masks,
    "graph-uniform": redraws,
    "score": score,
    "score-entropy": entropy,
    "law": steps,
    "bound": amounts,
    "float32-tokens": race,
    "float32-entropy": colder,
}


def powers(axis: Axis) -> None:
    """Ticks at powers of ten, written as text."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"10{str(round(math.log10(value))).translate(raised)}"))
    axis.set_minor_formatter(NullFormatter())


def said(
    axes: Axes, index: int, x: Sequence, y: Sequence, text: str, at: float, off: tuple[float, float] = (6, 4),
    marker: str = "", line: bool = True, level: float | None = None,
) -> None:  # fmt: skip
    """A line that carries its own name: no legend, no need of colour.

    ``at``: the share of it where the name stands (or where it first comes near ``level``); ``off``: points from there.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if line:
        draw_line(axes, index, x, y, marker)
    place = int(at * (len(x) - 1)) if level is None else int(np.argmin(np.abs(y - level)))
    axes.annotate(
        text, (x[place], y[place]), xytext=off, textcoords="offset points",
        color=colour(index) if line else INK, fontsize=9,
    )  # fmt: skip


def svg(name: str) -> str:
    """A picture with its title and description inside, for readers who do not see it."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, title, text = PICTURES[name]()
    words = " ".join(text.split())
    text = svg_of(figure, name)
    told = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-words">{escape(words)}</desc>'
    named = re.sub(r"<svg ", f'<svg aria-labelledby="{name}-title {name}-words" ', text, count=1)
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + told, named, count=1) + "\n"


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="a folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (args.out / f"{name}.svg").write_text(svg(name), encoding="utf-8")
        print(args.out / f"{name}.svg")


if __name__ == "__main__":
    main()
