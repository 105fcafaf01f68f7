"""GPT-2: an update beside a plain training script's, and texts beside `transformers`' own generation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from samplers.base import Canvas
from samplers.left_to_right import LeftToRight
from workbench.bench import nets, plain_gpt
from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.bench.updates import RATE, update_of
from workbench.core.bounds import Count
from workbench.core.rng import Rng
from workbench.kernels.precision import cast_once
from workbench.processes.autoregressive import Autoregressive
from workbench.processes.base import Shell


@Benchmark.register("gpt2_training")
class Gpt2Training(Benchmark):
    """A training update of GPT-2 without an average of the weights.

    *plain* is a loop in the manner of nanoGPT: all logits at once, cross-entropy by PyTorch, clip, AdamW (fused on CUDA
    alone, as there; the workbench's is fused on a CPU too).

    Settings:
        vocab: tokens
        batch: sequences
        length: tokens of a sequence
        dim: width
        depth: blocks
        repeats: updates timed in a process
    """

    yardstick = "plain fp32"
    besides = ("plain bf16",)
    ways = (yardstick, *besides, "workbench fp32", "workbench bf16")
    goals = tuple(Goal("workbench bf16", ratio=1.0, device=one, beside="plain bf16") for one in ("cpu", "cuda"))
    devices: ClassVar = {"cuda": {"batch": 16, "length": 1024, "dim": 768, "depth": 12, "repeats": 10}}

    def __init__(
        self,
        vocab: Count = 50_257,
        batch: Count = 4,
        length: Count = 256,
        dim: Count = 256,
        depth: Count = 6,
        repeats: Count = 3,
    ) -> None:
        """Keep the sizes."""
        self.shape, self.batch, self.repeats = (vocab, length, dim, depth), batch, repeats

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A vocabulary of 60."""
        return {"vocab": 60, "batch": 2, "length": 16, "dim": 32, "depth": 1, "repeats": 1}

    def cases(self, way: str) -> Sequence[str]:
        """One."""
        vocab, length, _, _ = self.shape
        return [f"vocabulary {vocab:,}, {self.batch}×{length} tokens"]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of an update."""
        kind, _, precision = way.partition(" ")
        meter.settle()
        update = (self._plain if kind == "plain" else self._ours)(meter, precision == "bf16")
        meter.begin()
        seconds = meter.seconds(update, self.repeats)
        tokens = self.batch * self.shape[1]
        return {"seconds": seconds, "peak_mb": meter.peak_mb(), "tokens_per_second": tokens / seconds}

    def _plain(self, meter: Meter, low: bool) -> Callable[[], None]:
        vocab, length, dim, depth = self.shape
        torch.manual_seed(0)
        net = plain_gpt.PlainGPT(vocab, length, dim, depth, max(1, dim // nets.HEAD_WIDTH)).to(meter.device)
        optimizer = plain_gpt.optimizer_of(net, RATE, fused=meter.device == "cuda")
        x_BL = torch.randint(vocab, (self.batch, length), device=meter.device)
        return lambda: plain_gpt.train_step(net, optimizer, x_BL, meter.autocast(low))

    def _ours(self, meter: Meter, low: bool) -> Callable[[], None]:
        vocab, length, _, _ = self.shape
        net, process = nets.gpt2(*self.shape, meter.device), Autoregressive(vocab, vocab - 1, length)
        process.place(torch.device(meter.device))
        return update_of(net, process, self.batch, meter, low, ema=0.0)


@Benchmark.register("gpt2_sampling")
class Gpt2Sampling(Benchmark):
    """Texts of GPT-2 with a cache of keys and values, from random weights of one size.

    *transformers* is its ``generate`` with its own cache, drawing from the whole law; in bf16 its weights are bfloat16,
    head and all. The workbench draws by inverse CDF in float64, from a head in float32.

    Settings:
        batches: numbers of texts at a time
        vocab: tokens
        length: tokens of a text
        dim: width
        depth: blocks
        repeats: batches timed in a process
    """

    yardstick = "transformers fp32"
    besides = ("transformers bf16",)
    ways = (yardstick, *besides, "workbench fp32", "workbench bf16")
    goals = tuple(Goal("workbench bf16", ratio=1.5, device=one, beside="transformers bf16") for one in ("cpu", "cuda"))
    devices: ClassVar = {"cuda": {"length": 1024, "dim": 768, "depth": 12, "repeats": 1}}

    def __init__(
        self,
        batches: Sequence[Count] = (1, 16),
        vocab: Count = 50_257,
        length: Count = 256,
        dim: Count = 256,
        depth: Count = 6,
        repeats: Count = 2,
    ) -> None:
        """Keep the sizes."""
        self.shape, self.repeats = (vocab, length, dim, depth), repeats
        self.named = {f"batch {batch}, {length} tokens": batch for batch in batches}

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two texts of 8 tokens."""
        return {"batches": [2], "vocab": 60, "length": 8, "dim": 32, "depth": 1, "repeats": 1}

    def cases(self, way: str) -> Sequence[str]:
        """The numbers of texts."""
        return list(self.named)

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of a batch of texts."""
        kind, _, precision = way.partition(" ")
        meter.settle()
        batch = self.named[case]
        call = (self._theirs if kind == "transformers" else self._ours)(meter, batch, precision == "bf16")
        meter.begin()
        seconds = meter.seconds(call, self.repeats)
        tokens = batch * self.shape[1]
        return {"seconds": seconds, "peak_mb": meter.peak_mb(), "tokens_per_second": tokens / seconds}

    def _theirs(self, meter: Meter, batch: int, low: bool) -> Callable[[], object]:
        if importlib.util.find_spec("transformers") is None:
            raise Absent('transformers is not installed: pip install "sedd-workbench[eval]" brings it')
        from transformers import GPT2Config, GPT2LMHeadModel

        vocab, length, dim, depth = self.shape
        torch.manual_seed(0)
        heads = max(1, dim // nets.HEAD_WIDTH)
        ends = {"bos_token_id": vocab - 1, "eos_token_id": None}  # a text is as long as asked for
        config = GPT2Config(vocab_size=vocab, n_positions=length + 1, n_embd=dim, n_layer=depth, n_head=heads, **ends)
        net = GPT2LMHeadModel(config).eval().requires_grad_(False)
        net = net.to(meter.device, torch.bfloat16 if low else torch.float32)
        start = torch.full((batch, 1), vocab - 1, device=meter.device)
        how = {"do_sample": True, "top_k": 0, "max_new_tokens": length, "use_cache": True}
        seen = torch.ones_like(start)
        return lambda: net.generate(start, attention_mask=seen, pad_token_id=vocab - 1, **how)

    def _ours(self, meter: Meter, batch: int, low: bool) -> Callable[[], object]:
        vocab, length, _, _ = self.shape
        net = nets.gpt2(*self.shape, meter.device).eval().requires_grad_(False)
        view = Autoregressive(vocab, vocab - 1, length).view(Shell(net))
        canvas = Canvas.blank(batch, length)

        def draw() -> None:
            with cast_once(net), meter.autocast(low):
                LeftToRight().draw(view, canvas, Rng(0))

        return draw
