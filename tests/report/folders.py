"""Made-up run folders as the trainer and the evaluation leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from workbench.metrics.results import Results
from workbench.metrics.value import Value

REAL = {"unigram_entropy": 4.12, "rep_2": 0.062, "rep_4": 0.004, "distinct_2": 0.613, "known_words": 0.984}


def log_lines(kind: str, steps: int = 2000, every: int = 10, seed: int = 0) -> list[dict[str, Any]]:
    """A loss that falls to a plateau; buckets and validation now and then."""
    rng = np.random.default_rng(seed)
    floor, start, slow = (1.75, 4.3, 260.0) if kind == "diffusion" else (1.55, 4.2, 120.0)
    lines: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        bits = floor + (start - floor) * np.exp(-((step / slow) ** 0.6)) + rng.normal(0, 0.05)
        record: dict[str, Any] = {
            "step": step,
            "time": 1.79e9 + step * 0.1,
            "seconds": step * 0.105,
            "tokens": step * 4096,
            "values": {
                "train/bits_per_byte": bits,
                "train/loss_nats_per_token": bits * 1.3,
                "train/grad_norm": 1.0,
                "train/lr": 3e-3,
                "train/tokens_per_second": 39000 + rng.normal(0, 800),
            },
        }
        if kind == "diffusion":
            t = (np.arange(10) + 0.5) / 10
            weight = rng.integers(200, 400, 10)
            record["buckets"] = {
                "bound": [[float(w * (1.2 + 3.5 * x * x)), float(w)] for w, x in zip(weight, t, strict=True)],
                "calibration": [[float(w * 0.02 * np.exp(-3 * x)), float(w)] for w, x in zip(weight, t, strict=True)],
            }
        lines.append(record)
        if step % 200 == 0:
            lines.append({**record, "values": {"valid/bits_per_byte": bits + 0.06}, "buckets": {}})
    return lines


def results(kind: str, name: str, samples: list[str] | None = None) -> Results:
    """Values as an evaluation gives them."""
    diffusion = kind == "diffusion"
    bits = 1.812 if diffusion else 1.603
    values = [
        Value(
            "bits_per_byte",
            bits,
            bits - 0.03,
            bits + 0.03,
            better="lower",
            unit="bits/byte",
            n=512,
            method="512 blocks of 128 tokens; ratio estimator over blocks, t interval",
            relation="≤" if diffusion else "=",
            se=0.015,
            extra={"blocks": 512, "tokens": 65536, "bytes": 120000},
        ),
        Value("unigram_bits_per_byte", 2.618, 2.60, 2.63, unit="bits/byte", n=512, se=0.008),
    ]
    shift = 0.97 if diffusion else 1.01
    values += [
        Value(
            name,
            real * shift,
            real * shift * 0.99,
            real * shift * 1.01,
            n=64,
            method="over sequences; BCa bootstrap, 2000 resamples",
            real=real,
            real_low=real * 0.99,
            real_high=real * 1.01,
        )
        for name, real in REAL.items()
    ]
    values += [
        Value("train_tokens_per_second", 39012.0, 38700.0, 39400.0, better="higher", unit="tokens/s", n=200),
        Value("sample_tokens_per_second", 2310.0 if diffusion else 5120.0, better="higher", unit="tokens/s", n=64),
        Value("parameters", 3.42e6, unit="parameters", n=1),
    ]
    text = (
        " the people of the United States have in the last year been called upon to\n\nconsider the condition of the "
        "Treasury, and I recommend that the Congress provide for the payment of "
    )
    return Results(
        "0123456789abcdef",
        name,
        f"{name}-01234567",
        "diffusion" if diffusion else "autoregressive",
        values,
        samples if samples is not None else [text + str(i) for i in range(6)],
        [
            " fellow-citizens of the Senate and House of Representatives, the year just closed " + str(i)
            for i in range(6)
        ],
        {"step": 2000, "device": "cpu", "seed": 0, "date": "2026-11-23", "weights": "ema"},
    )


def settings(kind: str, name: str) -> dict[str, Any]:
    """A resolved recipe."""
    diffusion = kind == "diffusion"
    process = {"type": "diffusion", "graph": {"type": "absorbing"}} if diffusion else {"type": "autoregressive"}
    return {
        "name": name,
        "data": {"corpus": {"type": "sotu"}, "tokenizer": {"type": "bpe", "vocab": 512}, "length": 128},
        "backbone": {"type": "transformer" if diffusion else "gpt2", "dim": 256, "depth": 4},
        "process": process,
        "train": {"steps": 2000, "batch": 32, "optimizer": {"type": "muon", "lr": 0.01}},
        "seed": 0,
    }


def make_run(
    root: Path,
    name: str,
    kind: str = "diffusion",
    digest: str = "0123456789abcdef",
    evaluated: bool = True,
    samples: list[str] | None = None,
    state: str = "evaluated",
    **status: Any,
) -> Path:
    """A run folder under ``root``."""
    path = root / f"{kind}-{digest[:8]}-{len(list(root.glob('*')))}"
    path.mkdir(parents=True)
    facts = {"schema": 1, "name": name, "hash": digest, "state": state, "step": 2000, "steps": 2000, **status}
    (path / "status").write_text(json.dumps(facts))
    (path / "resolved.yaml").write_text(yaml.safe_dump(settings(kind, name), sort_keys=False))
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines(kind)))
    env = {
        "time": "2026-11-23T14:00:00+0000",
        "python": "3.11.7",
        "platform": "Linux",
        "cpu": "AMD EPYC",
        "cores": 2,
        "threads": 2,
        "git": {"commit": "a" * 40, "dirty": True, "changed": [" M x.py"], "diff": "…"},
        "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6", "tokenizers": "0.22.0", "rich": "15.0"},
    }
    (path / "env.json").write_text(json.dumps(env))
    if evaluated:
        (path / "results.json").write_text(json.dumps(results(kind, name, samples).as_data()))
    return path
