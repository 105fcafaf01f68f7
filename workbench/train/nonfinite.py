"""What to say and keep when a loss, a gradient or a weight is no longer finite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from workbench.core.errors import WorkbenchError
from workbench.core.files import write_json
from workbench.train.window import Update


class NonFinite(WorkbenchError):
    """Training met a loss, a gradient or a weight that is not finite, and stopped."""


def report(
    update: Update,
    rates: Sequence[float],
    sequences: Sequence[int],
    skipped: Sequence[int],
    good: Path | None,
    to: Path,
) -> NoReturn:
    """Write ``to`` (JSON: step, loss, norm, rates, the batch's sequence numbers, the last good checkpoint) and stop.

    Raises:
        NonFinite: always.
    """
    facts = {
        "step": update.step,
        "loss": str(update.loss),
        "gradient_norm": str(update.norm),
        "lr": list(rates),
        "sequences": list(sequences),
        "skipped": list(skipped),
        "last_good_checkpoint": str(good) if good else None,
    }
    write_json(to, facts)
    raise NonFinite(
        f"update {update.step}: loss {update.loss}, gradient norm {update.norm} at learning rate {rates[0]:.3g}. "
        f"Nothing of it was saved; the last good checkpoint is {good or 'none'}. The batch's sequences are in {to}. "
        "Remedies: a lower train.optimizer.lr, a longer warm-up, train.precision: fp32, or train.skip_nonfinite to "
        "leave such updates out."
    )
