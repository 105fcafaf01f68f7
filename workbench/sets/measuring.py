"""From an evaluation's sets to their likelihood under a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from samplers.base import NextTokenView
from workbench.core.errors import WorkbenchError
from workbench.metrics.evidence import HeldOut
from workbench.metrics.sets import EvalSet, Ids, OnSet, Protocol, Rows
from workbench.nats import spread

if TYPE_CHECKING:
    from workbench.evaluate import Examiner, Tell
    from workbench.metrics.base import Evaluation


def on_sets(examiner: Examiner, evaluation: Evaluation, tell: Tell) -> dict[str, OnSet]:
    """Each set's likelihood, by its name; one that fails says so and fails nothing else."""
    protocol = evaluation.protocol
    assert protocol is not None, "resolving has seen to it"
    found = {}
    for name, one in (evaluation.sets or {}).items():

        def heard(share: float, name: str = name) -> None:
            tell(f"likelihood of {name}", share)

        try:
            found[name] = on_set(examiner, one, protocol, evaluation, heard)
        except Exception as error:
            reason = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
            found[name] = OnSet(protocol.type_name, error=reason)
    return found


def on_set(
    examiner: Examiner, one: EvalSet, protocol: Protocol, evaluation: Evaluation, tell: Callable[[float], None]
) -> OnSet:
    """One set's likelihood: of ``evaluation.tokens`` tokens' worth of blocks evenly spread, or of all.

    Raises:
        WorkbenchError: the set cannot be read, is not whole, or is shorter than a block.
    """
    model = examiner.model
    rows = one.rows(protocol.type_name)
    ids = model.tokenizer.encode_many(list(rows.texts))
    cut = protocol.cut(ids, model.tokenizer.eos, model.length)
    size, width = cut.tokens_NT.shape
    chosen = spread(max(1, evaluation.tokens // width) if evaluation.tokens else 0, size)
    tokens_BT, told_B = cut.tokens_NT[chosen], cut.told_N[chosen]
    if not issubclass(model.process.offers, NextTokenView):
        told_B = np.zeros_like(told_B)
    counter = examiner.counter("sets", evaluation)
    bound = counter.nats(tokens_BT, chosen, told_B, tell)
    counts = np.arange(width) >= told_B[:, None]
    held = HeldOut(
        nats_BK=bound.nats_BK,
        bytes_B=(model.tokenizer.token_bytes()[tokens_BT] * counts).sum(1),
        tokens_BL=tokens_BT,
        kind=bound.kind,
        parts=bound.parts,
        document_B=group_of(rows, ids, cut.start_N[chosen]),
    )
    return OnSet(
        protocol.type_name, protocol.about, held, counts.sum(1), rows.source, rows.note, size, cut.stream, cut.dropped,
        len(rows.texts),
    )  # fmt: skip


def group_of(rows: Rows, ids: Sequence[Ids], start_B: Ids) -> Ids:
    """The article, book or file that a block's first counted token is of; ``ids``: of each row, an end behind each."""
    ends_N = np.cumsum([len(row) + 1 for row in ids])
    return rows.group_N[np.searchsorted(ends_N, start_B, side="right")]
