"""How far a student's law of a token lies from its teacher's: pure, row by row."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from workbench.core.part import Part


class Divergence(Part, ABC, kind="divergence"):
    """A number ≥ 0 a row from two laws of its token, 0 where they are one; the student's law is moved by it."""

    @abstractmethod
    def rows(self, log_student_RV: Tensor, log_teacher_RV: Tensor) -> Tensor:
        """The divergence of each row, [R], differentiable in the student's log law; both are normalised."""


@Divergence.register("reverse_kl")
class ReverseKL(Divergence):
    """KL(student ‖ teacher), nats: the student avoids what its teacher would not write (SDTT's KLD).

    Of several targets its best student is their normalised geometric mean.
    """

    def rows(self, log_student_RV: Tensor, log_teacher_RV: Tensor) -> Tensor:
        """Σ q (log q − log p), q the student's law."""
        return (log_student_RV.exp() * (log_student_RV - log_teacher_RV)).sum(-1)


@Divergence.register("forward_kl")
class ForwardKL(Divergence):
    """KL(teacher ‖ student), nats: the student covers all that its teacher would write.

    Of several targets its best student is their mean: the law of a token after the teacher's steps.
    """

    def rows(self, log_student_RV: Tensor, log_teacher_RV: Tensor) -> Tensor:
        """Σ p (log p − log q), q the student's law."""
        return (log_teacher_RV.exp() * (log_teacher_RV - log_student_RV)).sum(-1)


@Divergence.register("mse")
class MeanSquare(Divergence):
    """The mean over tokens of squared differences of log-probabilities (SDTT's MSE, as its published code has it).

    Every token of the vocabulary counts alike, the rarest too.
    """

    def rows(self, log_student_RV: Tensor, log_teacher_RV: Tensor) -> Tensor:
        """mean (log q − log p)²."""
        return (log_student_RV - log_teacher_RV).square().mean(-1)
