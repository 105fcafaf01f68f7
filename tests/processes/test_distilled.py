"""Distillation through time on a world small enough to write down: targets, optimum and gradient by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from backbones.base import Backbone
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from tests.processes.tables import OUT, X0, L, Table, V
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.kernels.rows import gather_features
from workbench.processes.base import Shell
from workbench.processes.corruptions import Draw
from workbench.processes.diffusion import Diffusion
from workbench.processes.distilled import Distilled
from workbench.processes.divergences import Divergence, ForwardKL, MeanSquare, ReverseKL
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Normalised, Readout, Scaled
from workbench.processes.time_draws import UniformTimes
from workbench.recipe import load

MASK, EPS = V, 1e-3
NOISED = np.array([MASK, 0, MASK])
"""The text that the walks below begin from: two masks, so that what one step writes the next one reads."""


class Chance(Rng):
    """The uniform numbers it is given, by the beginning of a stream's name; other streams as ever."""

    def __init__(self, **streams) -> None:
        super().__init__(0)
        self.streams = streams

    def uniform(self, stream, step, seq_B, n):
        for name, u_L in self.streams.items():
            if stream.replace("/", "_").startswith(name):
                return np.tile(np.asarray(u_L, dtype=float)[:n], (len(seq_B), 1))
        return super().uniform(stream, step, seq_B, n)


class Student(Backbone):
    """A law of its own for each state and position: all that a student can be."""

    def __init__(self, out=None) -> None:
        super().__init__()
        out = np.zeros_like(OUT) if out is None else out
        self.table = nn.Parameter(torch.from_numpy(out.copy()))
        self.head = nn.Linear(V + 1, V + 1, bias=False).double()
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(V + 1))
        self.head.requires_grad_(False)

    def forward(self, x_BL, sigma=None, cache=None):
        return self.table[np.ravel_multi_index(tuple(x_BL.numpy().T), (V + 1,) * L)]


def law(x) -> np.ndarray:
    """The table's law of the clean token at each position of a state, [L, V]."""
    out = OUT[np.ravel_multi_index(tuple(x), (V + 1,) * L)][:, :V]
    p = np.exp(out - out.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def process(divergence: Divergence | None = None, readout: Readout | None = None, **settings) -> Distilled:
    times = UniformTimes(eps=EPS)
    inner = Diffusion(V, L, Absorbing(V), LogLinear(), readout or Normalised(), ScoreEntropy(), times)
    made = Distilled(inner, divergence or ForwardKL(), **{"teacher_steps": 4, "round": 100, **settings})
    made.begin(Table())
    return made


def lesson(made: Distilled, t: float, rng: Rng, step: int = 0):
    """The walk from ``NOISED`` at time t."""
    noise = made.inner.noise
    t_B = torch.tensor([t], dtype=torch.float64)
    u_BL = torch.from_numpy(np.where(MASK == NOISED, 0.0, 1 - 2.0**-53))[None]
    drawn = Draw(np.arange(1), t_B, noise.total(t_B), noise.rate(t_B), u_BL)
    x0_BL = np.where(MASK == NOISED, X0, NOISED)[None]
    return made.lesson(made.inner.noised_by(x0_BL, drawn), drawn, np.arange(1), step, rng)


def targets(made: Distilled, found) -> np.ndarray:
    """The target law of each mask of ``NOISED``, [2, V], as the rows have it."""
    law_RV = made.law(made.said(made.taught(found)), found.x_R, found.taught_R).exp()
    place = {int(row): law_RV[i].numpy() for i, row in enumerate(found.rows_R) if found.weight_R[i] > 0}
    return np.stack([place[0], place[2]])


def leave(t: float, s: float) -> float:
    """P(a mask is written between t and s) under the log-linear schedule, by its own formula."""
    share = [1 - np.exp(np.log1p(-(1 - 1e-3) * x)) for x in (t, s)]
    return (share[0] - share[1]) / share[0]


def walks(t: float, s: float):
    """(probability, target laws [2, V]) of every outcome of the teacher's first step from ``NOISED``: two looks."""
    p, first = leave(t, s), law(NOISED)[[0, 2]]
    for moves in itertools.product([False, True], repeat=2):
        for tokens in itertools.product(range(V), repeat=sum(moves)):
            x, chance, drawn = NOISED.copy(), 1.0, iter(tokens)
            for i, moved in enumerate(moves):
                chance *= p if moved else 1 - p
                if moved:
                    token = next(drawn)
                    chance *= first[i, token]
                    x[[0, 2][i]] = token
            second = law(x)[[0, 2]]
            yield chance, np.where(np.array(moves)[:, None], first, second), moves, tokens


def bringing(moves, tokens) -> Chance:
    """Numbers that bring an outcome of the first step about: a token by the middle of its share of the CDF."""
    went, lands, drawn = [0.5] * L, [0.5] * L, iter(tokens)
    for place, moved in zip((0, 2), moves, strict=True):
        went[place] = 0.0 if moved else 1 - 2.0**-53
        if moved:
            p, token = law(NOISED)[place], next(drawn)
            lands[place] = p[: token + 1].sum() - p[token] / 2
    return Chance(teacher_leave=went, teacher_land=lands)


@pytest.mark.parametrize("readout", [Normalised(), Scaled(V)], ids=lambda one: one.type_name)
def test_a_target_is_the_law_of_the_step_that_writes_the_token(readout):
    """Every outcome of the first step, each by numbers that bring it about."""
    made, t, seen = process(readout=readout), 0.6, 0
    for _, due, moves, tokens in walks(t, t - 0.25):
        np.testing.assert_allclose(targets(made, lesson(made, t, bringing(moves, tokens))), due, rtol=1e-12)
        seen += 1
    assert seen == (1 + V) ** 2


def test_who_is_written_leaves_at_the_graphs_pace():
    """On either side of P(leave), to a millionth."""
    made = process()
    for t, s in ((0.6, 0.35), (0.1, EPS)):
        edge = leave(t, s)
        for u, moved in ((edge - 1e-6, 1), (edge + 1e-6, 0)):
            assert lesson(made, t, Chance(teacher_leave=[u] * 3)).counts[0] == 2 * moved


def test_the_mean_target_by_chance_is_the_enumerated_one():
    made, t, draws = process(), 0.6, 4000
    due = sum(chance * target for chance, target, *_ in walks(t, t - 0.25))
    found = np.mean([targets(made, lesson(made, t, Rng(seed))) for seed in range(draws)], 0)
    np.testing.assert_allclose(found, due, atol=4 * 0.5 / np.sqrt(draws))
    assert np.abs(due - law(NOISED)[[0, 2]]).max() > 0.03, "two steps are not one"


def expected(made: Distilled, student: Student, t: float) -> torch.Tensor:
    """E of the training loss over the teacher's walks, in divergence of a block, with gradient."""
    total = torch.zeros((), dtype=torch.float64)
    for chance, target, *_ in walks(t, t - 0.25):
        log_q = student(torch.from_numpy(NOISED)[None])[0, [0, 2], :V].log_softmax(-1)
        total = total + chance * made.divergence.rows(log_q, torch.from_numpy(target).log()).sum()
    return total


def optimum(divergence: Divergence, t: float) -> np.ndarray:
    """The best student's law: the mean of targets, or their normalised geometric mean."""
    if isinstance(divergence, ForwardKL):
        return sum(chance * target for chance, target, *_ in walks(t, t - 0.25))
    mean = np.exp(sum(chance * np.log(target) for chance, target, *_ in walks(t, t - 0.25)))
    return mean / mean.sum(-1, keepdims=True)


@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL()], ids=lambda one: one.type_name)
def test_a_free_student_learns_the_law_of_two_steps(divergence):
    """Trained by the shipping loss on all of the teacher's walks it ends at the enumerated optimum and its loss."""
    t = 0.6
    made, student = process(divergence), Student()
    best = optimum(divergence, t)
    at_best = Student()
    with torch.no_grad():
        at_best.table[np.ravel_multi_index(tuple(NOISED), (V + 1,) * L), [0, 2], :V] = torch.from_numpy(np.log(best))
    due = float(expected(made, at_best, t).detach())
    drawn = walks(t, t - 0.25)
    lessons = [(chance, lesson(made, t, bringing(moves, tokens))) for chance, _, moves, tokens in drawn]

    def loss(net) -> torch.Tensor:
        return sum(chance * made.loss(Shell(net), one).nats * L for chance, one in lessons)

    assert float(loss(at_best).detach()) == pytest.approx(due, rel=1e-9)
    (grad,) = torch.autograd.grad(loss(at_best), at_best.table)
    assert float(grad.abs().max()) < 1e-9, "nothing pulls at the optimum"
    optimizer = torch.optim.LBFGS([student.table], max_iter=60, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        value = loss(student)
        value.backward()
        return value

    optimizer.step(closure)
    found = student(torch.from_numpy(NOISED)[None])[0, [0, 2], :V].softmax(-1).detach().numpy()
    np.testing.assert_allclose(found, best, atol=1e-5)
    assert float(loss(student).detach()) == pytest.approx(due, rel=1e-6) and due > 1e-3


@pytest.mark.parametrize("readout", [Normalised(), Scaled(V)], ids=lambda one: one.type_name)
@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL(), MeanSquare()], ids=lambda one: one.type_name)
def test_the_gradient_is_that_of_the_loss(divergence, readout):
    """By finite differences of the fused loss."""
    made = process(divergence, readout)
    found = made.prepare(np.tile(X0, (6, 1)), np.arange(6), 3, Rng(1))
    student = Student(np.random.default_rng(3).normal(0, 1, OUT.shape))
    loss = made.loss(Shell(student), found).nats
    (grad,) = torch.autograd.grad(loss, student.table)
    places = grad.abs().flatten().topk(12).indices
    for place in places.tolist():
        ends = []
        for step in (1e-6, -1e-6):
            moved = Student(student.table.detach().numpy())
            with torch.no_grad():
                moved.table.view(-1)[place] += step
            ends.append(float(made.loss(Shell(moved), found).nats.detach()))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(grad.view(-1)[place]), rel=1e-5, abs=1e-9)


def test_rows_that_fill_up_and_chunks_change_nothing():
    made = process(ReverseKL())
    found = made.prepare(np.tile(X0, (40, 1)), np.arange(40), 0, Rng(2))
    student, rows = Student(OUT[::-1].copy()), int((found.weight_R > 0).sum())
    assert len(found.rows_R) > rows
    h_RD = gather_features(student(found.x_BL), found.rows_R[:rows])
    context = {"x": found.x_R, "sigma": found.sigma_R, "taught": made.taught(found), "taught_sigma": found.taught_R}
    each_R, _ = made.rows.values(h_RD, {name: value[:rows] for name, value in context.items()})
    whole = float(made.loss(Shell(student), found).nats.detach())
    assert whole == pytest.approx(float(each_R.detach().sum()) / (40 * L), rel=1e-12)
    parts = [made.prepare(np.tile(X0, (20, 1)), np.arange(a, a + 20), 0, Rng(2)) for a in (0, 20)]
    assert whole == pytest.approx(np.mean([float(made.loss(Shell(student), one).nats.detach()) for one in parts]))


def test_a_teacher_itself_has_nothing_to_learn_where_nothing_is_read_between():
    """Where the first step writes nothing both looks are at the same text: of a network that hears no time."""
    made = process(ReverseKL())
    found = lesson(made, 0.6, Chance(teacher_leave=[1 - 2.0**-53] * 3))
    assert float(made.loss(Shell(Table()), found).nats.detach()) == pytest.approx(0, abs=1e-12)


def test_rounds_lengthen_the_steps_and_hand_over_the_weights():
    made = process(teacher_steps=16, round=10)
    t_B = torch.tensor([0.9, 0.01], dtype=torch.float64)
    for step, long in ((0, 1 / 16), (9, 1 / 16), (10, 1 / 8), (25, 1 / 4)):
        due = [[0.9, 0.01], [0.9 - long, EPS]]
        np.testing.assert_allclose(made.times(t_B, step).numpy(), due, rtol=1e-12)
    before = {name: value.clone() for name, value in made.kept().items()}
    asked = []

    def weights(averaged):
        asked.append(averaged)
        return {name: value + 1 for name, value in before.items()}

    for done in range(1, 10):
        made.advance(done, weights)
    assert not asked and torch.equal(made.kept()["head.weight"], before["head.weight"])
    made.advance(10, weights)
    assert asked == [True] and torch.equal(made.kept()["head.weight"], before["head.weight"] + 1)
    other = process()
    other.recall({name: value.clone() for name, value in made.kept().items()})
    assert torch.equal(other.kept()["head.weight"], made.kept()["head.weight"])


def test_more_leaps_at_once():
    """Four looks: a token is written by the first of them whose number says so."""
    made = process(leaps=4, teacher_steps=16)
    rng = Chance(teacher_leave_0=[1 - 1e-9] * 3, teacher_leave_1=[0.0, 0.0, 1 - 1e-9], teacher_leave_2=[1 - 1e-9] * 3,
                 teacher_land=[0.0] * 3)  # fmt: skip
    found = lesson(made, 0.9, rng)
    assert found.counts[:3] == (0, 1, 0)
    written = NOISED.copy()
    written[0] = 0  # the number 0 lands on the first token
    np.testing.assert_allclose(targets(made, found), np.stack([law(NOISED)[0], law(written)[2]]), rtol=1e-12)


DISTILLED = "process={{type: distilled, inner: {{graph: {graph}}}, {rest}}}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["start=null"], "the teacher is the network that a run starts from"),
        ([DISTILLED.format(graph="uniform", rest="teacher_steps: 16, round: 15")], "needs a graph with a mask on"),
        ([DISTILLED.format(graph="absorbing", rest="round: 6, teacher_steps: 16")], "16 steps can be cut by 2"),
        ([DISTILLED.format(graph="absorbing", rest="leaps: 1")], "process.leaps"),
        (["sampler={type: left_to_right}"], "offers a ScoreView"),
        (["process.inner.objective=gidd"], "objective 'gidd' is the formula of one graph"),
    ],
)
def test_what_does_not_fit(overrides, said):
    with pytest.raises(WorkbenchError, match=said):
        load("smoke/distill.yaml", overrides)


def test_what_the_wrapped_process_needs_is_asked_through_the_wrapper():
    found = load("smoke/distill.yaml").node
    assert found.under("process", "graph").part is Absorbing
    assert found.find("process.inner.graph") is found.under("process", "graph")
    assert found.under("process", "divergence").part is ReverseKL and found.under("process", "nothing") is None
