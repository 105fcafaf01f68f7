"""Evaluations with a cadence: what a recipe has measured, and written down to be read, while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from workbench import assemble
from workbench.assemble import Model
from workbench.core.loading import Resolved
from workbench.core.rng import Rng
from workbench.data.base import Tokenizer
from workbench.data.section import Prepared
from workbench.evaluate import EOS, Examiner
from workbench.metrics.base import Evaluation, Evidence, measure, reason_of
from workbench.metrics.value import Value
from workbench.processes.base import Shell
from workbench.train.base import Evaluator

SHOWN_TEXTS = 4
"""Samples kept as text at each evaluation while training, and characters of each."""
SHOWN_CHARACTERS = 600
GIVEN = "⟦⟧"
"""What stands around given text where it is shown beside drawn text."""


def evaluators_of(resolved: Resolved, model: Model, data: Prepared, rng: Rng) -> list[Evaluator]:
    """Evaluations with a cadence as the trainer's callables."""
    corpus, sampler = assemble.data_of(resolved).corpus, assemble.sampler(resolved)
    replay = assemble.train_settings(resolved).replay

    def evaluator(name: str, evaluation: Evaluation) -> Evaluator:
        def run(step: int, shell: nn.Module) -> Mapping[str, Any]:
            device = next(shell.parameters()).device
            # the trainer has set the precision for the evaluators it calls: autocast is on or off already
            precision = "bf16" if torch.is_autocast_enabled(device.type) else "fp32"
            whole = replace(model, shell=cast("Shell", shell))  # where rows are trained, a whole copy is looked at
            stream = rng.child(f"valid/{name}")
            examiner = Examiner(whole, data, corpus, sampler, stream, device, precision, replay=replay)
            evidence = examiner.evidence(evaluation)
            return _figures(measure(evaluation.metrics, evidence)) | _texts(evaluation, evidence, model.tokenizer)

        return Evaluator(name, evaluation.every, run)

    named = assemble.evaluations(resolved).items()
    return [evaluator(name, evaluation) for name, evaluation in named if evaluation.every]


def _figures(values: list[Value]) -> dict[str, Any]:
    return {value.name: value.value for value in values if value.value is not None}


def _texts(evaluation: Evaluation, evidence: Evidence, tokenizer: Tokenizer) -> dict[str, Any]:
    """Samples to read, and what was made of prompts, the given tokens in ``GIVEN``'s brackets."""
    texts = shown(evaluation, evidence)[0]
    found = {"texts": [text[:SHOWN_CHARACTERS] for text in texts[:SHOWN_TEXTS]]} if texts else {}
    with suppress(Exception):  # the cells of what looked at them say why there are none
        for name, made in evidence.continuations.items() if evaluation.prompts is not None else ():
            rows = made.drawn.tokens_NL[: SHOWN_TEXTS * made.each : made.each]
            found[f"continued_{name}"] = [_marked(row, made.free, tokenizer)[:SHOWN_CHARACTERS] for row in rows]
    return found


def _marked(row: npt.NDArray[np.int64], free: slice, tokenizer: Tokenizer) -> str:
    """The text of a sequence, the tokens outside ``free`` in brackets."""
    pieces = (row[: free.start], row[free], row[free.stop :])
    before, drawn, after = (tokenizer.decode(piece, eos=EOS) if len(piece) else "" for piece in pieces)
    given = [text and text.join(GIVEN) for text in (before, after)]
    return given[0] + drawn + given[1]


def shown(evaluation: Evaluation, evidence: Evidence) -> tuple[list[str], list[str], list[Value]]:
    """(samples, real texts, a value that says why there are none): a failing sampler fails nothing else."""
    if not evaluation.samples:
        return [], [], []
    try:
        return list(evidence.samples.texts), list(evidence.real.texts), []
    except Exception as error:  # a plug-in's sampler may raise anything
        return [], [], [Value("samples", None, error=reason_of(error))]
