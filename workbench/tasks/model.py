"""A run as a model of lm-evaluation-harness: importing this module registers ``workbench`` there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from samplers.base import Canvas
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.opening import Opened, open_trained
from workbench.tasks.scoring import Asked, Scorer, Scoring


@register_model("workbench")
class Workbench(TemplateLM):
    """A run folder, autoregressive or diffusion, as the harness asks models."""

    def __init__(
        self,
        run: str | Opened,
        scoring: Scoring = "suffix",
        draws: int = 128,
        start: bool = True,
        pmi: float = 0.0,
        per_token: bool = False,
        gen_tokens: int = 64,
        seed: int = 0,
        which: str | int = "last",
        batch_size: int | str = 32,
        max_batch_size: int | None = None,
        device: str | None = None,
        **overrides: Any,
    ) -> None:
        """``run``: its folder, or an opened run; the rest in docs/tasks.md. ``overrides``: ``sampler.steps=32``, say.

        Raises:
            WorkbenchError: the run cannot be opened, a setting is wrong.
        """
        super().__init__()
        strays = [name for name in overrides if not name.startswith("sampler.")]
        if strays:
            raise WorkbenchError(
                f"model_args: no setting {strays[0]!r}; there are run, scoring, draws, start, pmi, per_token, "
                "gen_tokens, seed, which, and settings of the sampler, as in sampler.steps=32"
            )
        if scoring not in get_args(Scoring):
            raise WorkbenchError(f"model_args: scoring is suffix or full, not {scoring!r}")
        if draws < 1 or gen_tokens < 1:
            raise WorkbenchError("model_args: draws and gen_tokens are at least 1")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise WorkbenchError(f"--batch_size is a number of texts here, not {batch_size!r}")
        changed = [f"{name}={json.dumps(value)}" for name, value in overrides.items()]
        # the harness names cuda:0 where the user names nothing: without CUDA that is no wish
        if device and (torch.cuda.is_available() or not device.startswith("cuda")):
            changed.append(f"train.device={device}")
        self.opened = run if isinstance(run, Opened) else open_trained(run, str(which), changed)
        self.scorer = Scorer(self.opened, scoring, draws, bool(start), float(pmi), per_token, int(batch_size), seed)
        self.gen_tokens = gen_tokens
        self._device = self.opened.device

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token, which stands before a text too."""
        return self.scorer.eos

    @property
    def tokenizer_name(self) -> str:
        """Of the run: requests are cached by it."""
        return f"workbench/{self.opened.run.path.name}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text; nothing is added."""
        ids: list[int] = self.opened.model.tokenizer.encode(string).tolist()
        return ids

    def get_model_info(self) -> dict[str, Any]:
        """What the harness keeps beside its figures: the run, how it was scored, what did not fit."""
        scorer = self.scorer
        return {
            "workbench_run": self.opened.run.path.name,
            "recipe": self.opened.run.hash,
            "step": self.opened.step,
            "workbench_device": f"{self.opened.device}, {self.opened.precision}",
            "scoring": scorer.scoring,
            "draws": scorer.draws,
            "start": scorer.start,
            "pmi": scorer.pmi,
            "per_token": scorer.per_token,
            "contexts_cut": scorer.cut,
            "texts_in_pieces": scorer.split,
        }

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log p of the continuation, whether each of its tokens is the likeliest) of each (context, continuation)."""
        asked = []
        for request in requests:
            context, text = request.args
            before, ids = self._encode_pair(context, text) if context else ([], self.tok_encode(text))
            if not ids:  # a merge across the border has swallowed it
                before, ids = self.tok_encode(context), self.tok_encode(text)
            asked.append(Asked(before, ids, question(request)))
        scored = self._told(asked, "log-likelihoods", disable_tqdm)
        return [(one.log_p, one.greedy) for one in scored]

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """The same of ids; without documents, a question is its context."""
        asked = [Asked(before, text, Rng.key(words[0]) >> 1) for words, before, text in requests]
        return [(one.log_p, one.greedy) for one in self.scorer.continuations(asked)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """log p of each whole text, in pieces where it is longer than the run reads."""
        asked = [Asked((), self.tok_encode(request.args[0]), question(request)) for request in requests]
        return [one.log_p for one in self.scorer.texts(asked)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the run's sampler writes after each context, up to the first stop string.

        ``max_gen_toks`` of the task, or ``gen_tokens``, tokens are written at once; the sampler's settings decide how.
        """
        drawn: dict[int, str] = {}
        groups: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
        block, head = self.opened.model.length, [self.scorer.eos] if self._heads else []
        for index, request in enumerate(requests):
            context, wanted = request.args
            more = int(wanted.get("max_gen_toks", self.gen_tokens))
            if more >= block:
                raise WorkbenchError(f"{more} tokens to write and this run has blocks of {block}: lower max_gen_toks")
            ids = self.tok_encode(context)
            kept = ids[max(0, len(ids) - (block - more - len(head))) :]
            self.scorer.cut += len(kept) < len(ids)
            groups.setdefault((len(head) + len(kept), more), []).append((index, head + kept))
        examiner = self.opened.examiner()
        with examiner.drawing():
            for (given, more), group in tqdm(sorted(groups.items(), reverse=True), disable=disable_tqdm):
                for start in range(0, len(group), self.scorer.batch):
                    part = group[start : start + self.scorer.batch]
                    x_BL = torch.tensor([ids + [0] * more for _, ids in part])
                    fixed_BL = (torch.arange(given + more) < given).expand(len(part), -1).clone()
                    numbers = np.array([question(requests[index]) for index, _ in part])
                    rows = examiner.draw(Canvas(x_BL, fixed_BL, torch.from_numpy(numbers))).tokens_BL.tolist()
                    for (index, _), row in zip(part, rows, strict=True):
                        drawn[index] = self._until(row[given:], requests[index].args[1].get("until", []))
        return [drawn[index] for index in range(len(requests))]

    @property
    def _heads(self) -> bool:
        """Whether the end-of-text token goes in front of a canvas: a left-to-right sampler puts its own there."""
        return self.scorer.start and self.scorer.process.reach == self.opened.model.length

    def _until(self, ids: Sequence[int], until: str | Sequence[str]) -> str:
        ids = list(ids)
        text = self.opened.model.tokenizer.decode(ids[: ids.index(self.scorer.eos)] if self.scorer.eos in ids else ids)
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text

    def _told(self, asked: list[Asked], what: str, quiet: bool) -> Any:
        with tqdm(total=len(asked), desc=what, disable=quiet) as bar:
            return self.scorer.continuations(asked, bar.update)


def question(request: Instance) -> int:
    """A number for the document asked about: all its choices see the same noise, in any order, in any subset."""
    return Rng.key(json.dumps(request.doc, sort_keys=True, default=str)) >> 1
