"""Forward and backward of matched backbones against length, and scans beside a loop over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.cost import count_parameters
from workbench.bench import by_hand
from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.bench.updates import compiled
from workbench.core.bounds import Count
from workbench.core.build import build
from workbench.kernels import selective_scan, ssd
from workbench.kernels.dispatch import CANNOT, Dispatcher
from workbench.recipe import load
from workbench.sketch import sketch

Row = Mapping[str, Any]
QUICKSTART = {
    "transformer": "quickstart/sedd.yaml",
    "mamba2": "quickstart/sedd-mamba2.yaml",
    "mamba": "quickstart/sedd-mamba.yaml",
    "hybrid": "quickstart/sedd-hybrid.yaml",
}
SMALL = {
    "transformer": "sedd-small.yaml",
    "mamba2": "sedd-mamba2-small.yaml",
    "mamba": "sedd-mamba-small.yaml",
    "hybrid": "sedd-hybrid-small.yaml",
}
GOALS = (
    Goal("mamba2", ratio=1.0, device="cuda", case="8,192"),
    Goal("mamba2", ratio=1.2, device="cuda", beside="authors"),
    Goal("hybrid", ratio=1.2, device="cuda", beside="authors, hybrid"),
)
"""What is wanted, where a benchmark's settings have these ways."""
COLOURS = {"transformer": "#0072B2", "mamba2": "#D55E00", "mamba": "#CC79A7", "hybrid": "#009E73"}


@Benchmark.register("lengths")
class Lengths(Benchmark):
    """Forward and backward without the head, so many tokens a batch whatever the length, bf16 autocast.

    The ways are backbones of one size: those of the quickstart, or of ``recipes``, or with ``small`` SEDD small's,
    beside the authors' own Mamba-2 blocks composed by hand (*authors*), these with a plain SEDD block after every five
    (*authors, hybrid*), and plain SEDD blocks alone (*plain*), all of which need CUDA. ``compile`` is for ours alone:
    what is composed by hand runs as it is, its kernels (the authors', PyTorch's attention) fused as they come.

    Settings:
        lengths: tokens of a sequence, a case each
        tokens: of a batch
        small: SEDD small's sizes in place of the quickstart's
        recipes: other recipes, by names which are then the ways; ratios need a ``transformer`` among them
        repeats: passes timed in a process
        compile: compile the blocks of ours, as `train.compile` does
    """

    yardstick = "transformer"
    devices: ClassVar = {
        "cuda": {
            "small": True, "tokens": 16384, "lengths": [1024, 2048, 4096, 8192], "repeats": 10, "compile": True,
        }
    }  # fmt: skip

    def __init__(
        self,
        lengths: Sequence[Count] = (128, 256, 512, 1024, 2048),
        tokens: Count = 2048,
        small: bool = False,
        recipes: dict[str, str] | None = None,
        repeats: Count = 3,
        compile: bool = False,
    ) -> None:
        """Keep the sizes; goals are of the ways that these have."""
        self.named = {f"{length:,} tokens": length for length in lengths}
        self.recipes = recipes or (SMALL if small else QUICKSTART)
        self.besides = tuple(by_hand.NETWORKS if small else ())
        self.ways = tuple(dict.fromkeys((*self.recipes, *self.besides)))
        ways = {"", *self.ways}
        self.goals = tuple(goal for goal in GOALS if goal.way in ways and goal.beside in ways)
        self.tokens, self.repeats, self.compile = tokens, repeats, compile

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two smoke recipes at one length."""
        recipes = {"transformer": "smoke/sedd.yaml", "mamba2": "smoke/mamba2.yaml"}
        return {"lengths": [16], "tokens": 32, "recipes": recipes, "repeats": 1}

    def cases(self, way: str) -> Sequence[str]:
        """The lengths."""
        return list(self.named)

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of a pass, and parameters less the embeddings in millions."""
        meter.settle()
        length = self.named[case]
        torch.manual_seed(0)
        if way in self.recipes:
            ours = network(self.recipes[way], length, meter.device)
            net: nn.Module = ours
            own = count_parameters(ours).non_embedding
            if self.compile:
                compiled(net, meter.device)
        else:
            net = composed(way, length, meter.device)
            own = net.non_embedding
        batch = max(1, self.tokens // length)
        x_BL = torch.randint(2, 200, (batch, length), device=meter.device)
        sigma_B = torch.rand(batch, device=meter.device) + 0.1

        def update() -> None:
            with meter.autocast(True):
                h_BLD = net(x_BL, sigma_B)
            h_BLD.float().square().mean().backward()
            net.zero_grad(set_to_none=True)

        meter.begin()
        seconds = meter.seconds(update, self.repeats)
        return {
            "seconds": seconds,
            "peak_mb": meter.peak_mb(),
            "tokens_per_second": batch * length / seconds,
            "non_embedding_m": own / 1e6,
        }

    def notes(self, rows: Sequence[Row]) -> Sequence[str]:
        """Where each backbone overtakes the transformer."""
        names = [name for name in dict.fromkeys(row["way"] for row in rows) if name != self.yardstick]
        return [f"{name} beside the transformer: {self.crossover(rows, name)}." for name in names]

    def crossover(self, rows: Sequence[Row], name: str) -> str:
        """Where a backbone overtakes the transformer, by interpolation in log length."""
        told = [row for row in rows if row["way"] == name and row["ratio"] is not None]
        if not told:
            return "no yardstick"
        points = sorted((self.named[row["case"]], math.log(row["ratio"])) for row in told)
        for (a, x), (b, y) in itertools.pairwise(points):
            if x < 0 <= y:
                at = math.exp(math.log(a) + (math.log(b) - math.log(a)) * x / (x - y))
                return f"overtakes at about {round(at, -1):,.0f} tokens"
        (length, last), first = points[-1], points[0][1]
        return "faster at every length" if first >= 0 else f"not up to {length:,} tokens ({math.exp(last):.2f}× there)"

    def draw(self, rows: Sequence[Row], folder: Path, stem: str) -> None:
        """Speed and memory against length, as SVG."""
        import matplotlib

        matplotlib.use("Agg")
        matplotlib.rcParams["svg.hashsalt"] = "lengths"
        import matplotlib.pyplot as plt
        from matplotlib.ticker import LogLocator, StrMethodFormatter

        figure, both = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        named = {"tokens_per_second": "tokens per second, forward + backward", "peak_mb": "peak memory, MB"}
        for axes, (column, title) in zip(both, named.items(), strict=True):
            names = dict.fromkeys(row["way"] for row in rows)
            for marker, name in zip(itertools.cycle("osD^vP*"), names, strict=False):
                points = sorted((self.named[row["case"]], row[column]) for row in rows if row["way"] == name)
                style = {"marker": marker, "label": name, "color": COLOURS.get(name, "#555555")}
                axes.plot(*zip(*points, strict=True), **style)
            axes.set(xscale="log", yscale="log", xlabel="length (tokens)", title=title)
            axes.set_xticks(list(self.named.values()), [f"{length:,}" for length in self.named.values()])
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.grid(alpha=0.3)
        both[0].legend(frameon=False)
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})
        plt.close(figure)


def network(recipe: str, length: int, device: str) -> Backbone:
    """The backbone of a shipped recipe, without dropout."""
    resolved = load(recipe, ["backbone.dropout=0.0"])
    head = sketch(resolved).backbone.head.out_features
    known = {"states": head, "outputs": head, "length": max(length, 128)}
    with torch.device(device):
        net: Backbone = build(resolved.node.settings["backbone"], known)
    for parameter in net.parameters():  # zero gates would let no gradient through
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return net


def composed(name: str, length: int, device: str) -> by_hand.Composed:
    """A network composed by hand.

    Raises:
        Absent: it cannot be measured here.
    """
    if device != "cuda":
        raise Absent(f"{name!r} is at SEDD small's size: on CUDA only, not on {device}")
    if not by_hand.able(name):
        raise Absent(f"mamba_ssm, whose blocks {name!r} is made of, is not installed")
    return by_hand.Composed(by_hand.NETWORKS[name], by_hand.Sizes(length)).to(device)


SCANS: dict[str, tuple[Callable[..., Any], Dispatcher]] = {
    "ssd": (ssd.ssd, ssd.SSD),
    "selective scan": (selective_scan.selective_scan, selective_scan.SELECTIVE_SCAN),
}
WAYS = tuple(dict.fromkeys(name for _, one in SCANS.values() for name in one.candidates))


@Benchmark.register("scans")
class Scans(Benchmark):
    """Each recurrence forward and backward in float32, by every implementation that runs here.

    *recurrence* is the loop over time that a reader would write.

    Settings:
        batch: sequences
        length: tokens
        channels: in heads of 64
        state: state of a channel
        repeats: passes timed in a process
    """

    yardstick = "recurrence"
    ways = WAYS
    devices: ClassVar = {"cuda": {"batch": 8, "length": 1024, "channels": 1536, "state": 64}}

    def __init__(
        self, batch: Count = 4, length: Count = 256, channels: Count = 256, state: Count = 16, repeats: Count = 9
    ) -> None:
        """Keep the sizes."""
        self.batch, self.length, self.channels, self.state, self.repeats = batch, length, channels, state, repeats

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Eight tokens."""
        return {"batch": 1, "length": 8, "channels": 64, "state": 4, "repeats": 1}

    def cases(self, way: str) -> Sequence[str]:
        """The operations that have such an implementation."""
        return [name for name, (_, one) in SCANS.items() if way in one.candidates]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of forward and backward."""
        meter.settle()
        call, dispatcher = SCANS[case]
        survey = dispatcher.survey(meter.device, torch.float32)
        against = {name: why for name, verdict, why in survey if verdict == CANNOT}
        if way in against:
            raise Absent(against[way])
        torch.manual_seed(0)
        b, length, d, n = self.batch, self.length, self.channels, self.state
        heads = case == "ssd"
        A = -torch.rand(d // 64) * 8 - 0.5 if heads else -torch.rand(d, n) * 8 - 0.5
        x = torch.randn(b, length, d // 64, 64) if heads else torch.randn(b, length, d)
        dt = torch.rand(x.shape[:3] if heads else x.shape) * 0.1
        inputs: list[Tensor] = [
            z.to(meter.device).requires_grad_() for z in (x, dt, A, *torch.randn(2, b, length, 1, n))
        ]

        def update() -> None:
            y, _ = call(*inputs, kernel=way)
            torch.autograd.grad(y.sum(), inputs)

        meter.begin()
        return {"seconds": meter.seconds(update, self.repeats), "peak_mb": meter.peak_mb()}
