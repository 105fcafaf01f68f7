"""Self-distillation through time: a student learns to do in one step what its teacher does in several.

From a noised text the teacher walks ``leaps`` steps of its own grid. At each masked position the target is the
teacher's law of the token in the step in which the position is written; where none of the steps writes it, that of the
last step (Deschenaux & Gulcehre 2024, "Beyond autoregression: fast LLMs via self-distillation through time"). Who is
written when is known on the host, where only masks move; laws exist a chunk of rows at a time: what is kept of a
teacher is a row's features, and its head is applied to them beside the student's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge
from torch import Tensor, nn

from samplers.base import ScoreView, View
from samplers.draw import land
from workbench.core.bounds import Count
from workbench.core.errors import Problem
from workbench.core.rng import Rng
from workbench.kernels.rows import fused_rows, gather_features, head_rows
from workbench.processes.around import Around
from workbench.processes.base import Bound, Loss, Noised, Process, named_weights
from workbench.processes.corruptions import Draw
from workbench.processes.diffusion import Diffusion, bucketed
from workbench.processes.divergences import Divergence
from workbench.processes.fits import needs_masks_only
from workbench.processes.objectives import Context
from workbench.processes.views import features

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.core.node import Node

TWO: Any = Annotated[int, Ge(2)]


@dataclass(frozen=True)
class Lesson(Noised):
    """A noised batch with all that is drawn of the teacher's walk, K looks of it.

    ``told_KB`` float32: the σ that it hears at each look. ``order_R``: the rows sorted by the look that is their
    target, ``counts`` how many each look has (host); a row of another look than the last is written then, by its number
    ``land_R`` (float64). ``taught_R``: the σ of the look that is a row's target.
    """

    told_KB: Tensor
    order_R: Tensor
    counts: tuple[int, ...]
    land_R: Tensor
    taught_R: Tensor


@Process.register("distilled")
class Distilled(Around[Diffusion]):
    """A diffusion process taught by the network that it starts from: fewer steps for the same text (SDTT).

    Training loss: Σ over masks of the divergence between the student's law and its target / (B · L), at the times and
    masks that the inner process draws; every mask weighs 1. In all other things it is the inner process: its bound, its
    view. After each round the student becomes the teacher, whose steps are then ``leaps`` times as long; optimizer,
    average and schedule go on.

    Settings:
        inner: the diffusion process that teacher and student are of
        divergence: what the student minimises
        teacher_steps: T, steps of the first teacher's grid from t = 1 to 0, each 1/T long
        leaps: steps of the teacher in one of the student
        round: updates of a round
        averaged: the next teacher is the student's average; false for its last weights, as SDTT's published settings
    """

    sees = Diffusion.sees
    offers: ClassVar[type[View]] = ScoreView
    usual = {"inner": {"type": "diffusion"}, "divergence": {"type": "reverse_kl"}}
    encloses = False

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """No network to learn from; a graph on which more than masks move; more rounds than steps can be halved."""
        yield from super().misfits(node, root)
        yield from needs_masks_only(node, root)
        if root.find("start") is None:
            yield Problem(
                node.path, "the teacher is the network that a run starts from; name it: start: {recipe: FILE.yaml}"
            )
        train = root.find("train")
        steps, leaps, updates = (node.settings[name] for name in ("teacher_steps", "leaps", "round"))
        rounds = 1 if train is None else -(-train.settings["steps"] // updates)
        if steps % leaps**rounds:
            most = next(n for n in range(rounds) if steps % leaps ** (n + 1))
            yield Problem(
                f"{node.path}.teacher_steps",
                f"{steps} steps can be cut by {leaps} in {most} rounds; train.steps has {rounds} of {updates} updates",
            )

    def __init__(
        self,
        inner: Diffusion,
        divergence: Divergence,
        teacher_steps: Count = 1024,
        leaps: TWO = 2,
        round: Count = 10_000,
        averaged: bool = True,
    ) -> None:
        """``inner``: on a graph where only masks move."""
        super().__init__(inner)
        self.loss_is_text = False
        self.divergence = divergence
        self.teacher_steps, self.leaps, self.round, self.averaged = teacher_steps, leaps, round, averaged
        self.looks, self.teachers = float(leaps * inner.copies), 1
        self.teacher: Backbone | None = None
        self.rows = TaughtRows(self)

    # --- the teacher ----------------------------------------------------------------------------------------------

    def begin(self, net: nn.Module) -> None:
        """The network as it stands is the first teacher."""
        teacher = copy.deepcopy(net).eval().requires_grad_(False)
        self.teacher = cast("Backbone", teacher.to(self.device))

    def advance(self, done: int, weights: Callable[[bool], Mapping[str, Tensor]]) -> None:
        """At the end of a round the student is the teacher of the next."""
        if done % self.round == 0:
            self.recall(weights(self.averaged))

    def kept(self) -> Mapping[str, Tensor]:
        """The teacher's weights."""
        return named_weights(self._teacher())

    @torch.no_grad()
    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a teacher's weights, in place."""
        for name, own in named_weights(self._teacher()).items():
            own.copy_(tensors[name])

    def _teacher(self) -> Backbone:
        assert self.teacher is not None, "`begin` has not been called: only training has a teacher"
        return self.teacher

    def place(self, device: torch.device) -> None:
        """Student, teacher and inner process are on one device."""
        super().place(device)
        if self.teacher is not None:
            self.teacher.to(device)

    # --- training -------------------------------------------------------------------------------------------------

    def prepare(
        self, x0_BL: npt.NDArray[np.int64], seq_B: npt.NDArray[np.int64], step: int, rng: Rng
    ) -> Lesson:
        """Noise, and all that chance decides in the teacher's walk: who is written in which step, and by which
        number."""
        inner, length = self.inner, x0_BL.shape[1]
        drawn = inner.corruption.draw(seq_B, length, step, rng, inner.noise, inner.times)
        noised = inner.noised_by(x0_BL[drawn.item_N], drawn)
        return self.lesson(noised, drawn, seq_B[drawn.item_N], step, rng)

    def lesson(
        self, noised: Noised, drawn: Draw, seq_B: npt.NDArray[np.int64], step: int, rng: Rng
    ) -> Lesson:
        """The teacher's walk from a noised batch at update number ``step``."""
        length, last = noised.x_BL.shape[1], self.leaps - 1
        times_KB = self.times(drawn.t_N, step)
        sigma_KB = self.inner.noise.total(times_KB)
        sigma_KB[0] = drawn.sigma_N
        told_KB = sigma_KB.to(torch.float32)
        assert noised.sigma_B is not None
        told_KB[0] = noised.sigma_B
        item_R, real_R = noised.rows_R // length, noised.weight_R > 0
        look_R = torch.full_like(noised.rows_R, last)
        for look in range(last):
            u_BL = torch.from_numpy(rng.uniform(f"teacher/leave/{look}", step, seq_B, length))
            leave_B = self.inner.graph.leave(sigma_KB[look], sigma_KB[look + 1])
            leaves_R = u_BL.reshape(-1)[noised.rows_R] < leave_B[item_R]
            look_R = torch.where(leaves_R & real_R & (look_R == last), look, look_R)
        land_BL = torch.from_numpy(rng.uniform("teacher/land", step, seq_B, length))
        return Lesson(
            **{**vars(noised), "weight_R": real_R.to(noised.weight_R.dtype)},
            told_KB=told_KB,
            order_R=look_R.argsort(stable=True),
            counts=tuple(torch.bincount(look_R, minlength=self.leaps).tolist()),
            land_R=land_BL.reshape(-1)[noised.rows_R],
            taught_R=told_KB[look_R, item_R],
        )

    def times(self, t_B: Tensor, step: int) -> Tensor:
        """The times of the teacher's looks, [K, B], at update number ``step``; none goes below the shortest time."""
        long = self.leaps ** (step // self.round) / self.teacher_steps
        ahead_KB = t_B - long * torch.arange(self.leaps, dtype=t_B.dtype).unsqueeze(-1)
        return torch.maximum(ahead_KB, t_B.clamp_max(self.inner.times.eps))

    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """The divergence, nats a token, with its noise buckets."""
        assert isinstance(noised, Lesson)
        return shell(self._loss, noised, self.taught(noised))

    def _loss(self, net: Backbone, noised: Lesson, taught_RD: Tensor) -> Loss:
        h_RD = gather_features(features(net, noised.x_BL, noised.sigma_B), noised.rows_R)
        context = {"x": noised.x_R, "taught": taught_RD, "taught_sigma": noised.taught_R}
        context["sigma"] = cast("Tensor", noised.sigma_R)
        chunk = self.inner.chunk
        total, nats_R, _ = fused_rows(
            net.head, h_RD, noised.weight_R, self.rows, context, chunk, over=noised.tokens
        )
        weighted_R = nats_R * noised.weight_R.to(nats_R.dtype)
        return Loss(
            total, {"divergence/bucket": bucketed(weighted_R, noised.bucket_R, noised.bucket_tokens)}
        )

    @torch.no_grad()
    def taught(self, lesson: Lesson) -> Tensor:
        """The teacher's features of each row at the look that is its target, [R, D]: K network calls."""
        teacher, x_BL, taught_RD = self._teacher(), lesson.x_BL, None
        for look, rows in enumerate(lesson.order_R.split(lesson.counts)):
            at = lesson.rows_R[rows]
            h_RD = gather_features(features(teacher, x_BL, lesson.told_KB[look]), at)
            if taught_RD is None:
                taught_RD = h_RD.new_empty((len(lesson.rows_R), h_RD.shape[-1]))
            taught_RD[rows] = h_RD
            if look < self.leaps - 1 and len(rows):
                x_BL = x_BL.clone()
                x_BL.view(-1)[at] = self._written(h_RD, lesson.x_R[rows], lesson.taught_R[rows], lesson.land_R[rows])
        assert taught_RD is not None
        return taught_RD

    def _written(self, h_RD: Tensor, x_R: Tensor, sigma_R: Tensor, u_R: Tensor) -> Tensor:
        """The tokens that the teacher writes at rows, [R], by inverse CDF."""
        pieces = zip(*(value.split(self.inner.chunk) for value in (h_RD, x_R, sigma_R, u_R)), strict=True)
        return torch.cat([land(self.law(self.said(h), x, sigma), u)[0] for h, x, sigma, u in pieces])

    def said(self, h_RD: Tensor) -> Tensor:
        """The teacher's outputs for its features, [R, S]."""
        return head_rows(self._teacher().head, h_RD)

    def law(self, out_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """The log law of the clean token that outputs mean at masks, normalised whatever the readout, [R, V].

        Where only masks move it is the score, normalised over tokens (`Graph.clean_from_score`); rows that fill a chunk
        up have numbers too.
        """
        log_score_RS = self.inner.readout.log_score(out_RS, x_R, sigma_R.to(out_RS.dtype))
        return log_score_RS[..., : self.inner.graph.vocab].log_softmax(-1)

    def compile_chunks(self) -> None:
        """Chunks are left as they are: two heads meet in them."""

    # --- in all other things it is the inner process ----------------------------------------------------------------

    def nll(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Bound:
        """The inner process's bound, of the student."""
        return self.inner.nll(shell, x0_BL, seq_B, rng, draws)

    def view(self, shell: nn.Module) -> View:
        """The inner process's view of the student."""
        return self.inner.view(shell)


class TaughtRows:
    """The divergence of a chunk of rows as a row function: the teacher's head beside the student's."""

    def __init__(self, process: Distilled) -> None:
        """``process``: whose teacher, laws and divergence they are."""
        self.process = process

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(divergence of each row, no diagnostics [R, 0])."""
        student_RV = self.process.law(out_RS, context["x"], context["sigma"])
        with torch.no_grad():
            teacher_RV = self.process.law(
                self.process.said(context["taught"]), context["x"], context["taught_sigma"]
            )
        nats_R = self.process.divergence.rows(student_RV, teacher_RV)
        return nats_R, nats_R.new_zeros(nats_R.shape[0], 0)

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The same and its gradient in the student's outputs."""
        with torch.enable_grad():
            leaf = out_RS.detach().requires_grad_()
            nats_R, aux_RK = self.values(leaf, context)
            (grad_RS,) = torch.autograd.grad(nats_R.sum(), leaf)
        return nats_R.detach(), aux_RK, grad_RS
