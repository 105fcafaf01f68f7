"""Weights for ``import`` that are damaged, of wrong shapes and types, that lie about their size, or hold code."""

from __future__ import annotations

import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file

from tests.faults.junk import WORDS, damaged, junk, torn
from tests.weights.imported import ids
from tests.weights.official import state_of
from workbench.publish.importing import bring_in

Case = tuple[str, Callable[[], object]]
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
)


class Code:
    """Runs something when it is unpickled."""

    def __init__(self, call: Any, *words: Any) -> None:
        self.call, self.words = call, words

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.words


def hostile_weights(rng: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Files and folders for ``workbench import``; the whole one is taken."""
    state = state_of(14, 16, 2, 1, 4)
    whole_st, pt = save(state), folder / "w.pt"
    torch.save(state, pt)
    whole_pt = pt.read_bytes()
    canary, name = folder / "canary", rng.random()
    makers = [_torn_file, _other_tensors, _lying_header, _pickled_code, _bomb, _wide_view, _config, _shards]
    for number in range(count):
        make = makers[number % len(makers)]
        place = folder / f"w{number}"
        place.mkdir()

        def act(make=make, place=place, number=number):
            make(random.Random(f"{name}/{number}"), place, state, whole_st, whole_pt, canary)
            source = next(iter(sorted(place.glob("w.*")))) if make not in (_config, _shards) else place
            try:
                made = bring_in(str(source), ids(13), place / "runs")
                assert made.run.finished
            finally:
                assert not canary.exists(), "code was run"

        yield f"weights {number} ({make.__name__[1:]})", act


def _torn_file(rng, place, state, whole_st, whole_pt, canary):
    if rng.random() < 0.5:
        (place / "w.safetensors").write_bytes(torn(whole_st, rng))
    else:
        (place / f"w.{rng.choice(['pt', 'pth', 'bin', 'ckpt'])}").write_bytes(torn(whole_pt, rng))


def _other_tensors(rng, place, state, whole_st, whole_pt, canary):
    changed = dict(state)
    for name in rng.sample(list(changed), rng.choice([1, 1, 3])):
        value, how = changed[name], rng.randrange(9)
        if how <= 1:
            changed[name] = value.to(rng.choice(DTYPES))
        elif how == 2:
            changed[name] = value.reshape(-1)
        elif how == 3:
            changed[name] = value[..., :0].contiguous()
        elif how == 4:
            changed[name] = value.new_full(value.shape, rng.choice([float("nan"), float("inf"), 1e38]))
        elif how == 5:
            changed[name] = value.new_tensor(1.0)
        elif how == 6:
            changed[rng.choice(WORDS[:20]) + "x"] = changed.pop(name)
        elif how == 7:
            changed[name] = torch.zeros(rng.choice([(1, 1), (3, 2, 1), (0,), (1,) * 30, (999, 7)]))
        else:
            del changed[name]
    if rng.random() < 0.5:
        try:
            save_file(changed, place / "w.safetensors")
            return
        except Exception:  # a type that safetensors does not keep
            pass
    torch.save(changed if rng.random() < 0.7 else {"state_dict": changed, "global_step": junk(rng)}, place / "w.pt")


def _lying_header(rng, place, state, whole_st, whole_pt, canary):
    size = struct.unpack("<Q", whole_st[:8])[0]
    header = json.loads(whole_st[8 : 8 + size])
    how = rng.randrange(5)
    if how == 0:
        told = json.dumps(damaged(header, rng), default=str).encode("utf-8", "replace")
    elif how == 1:
        name = rng.choice(list(header))
        header[name]["shape"] = rng.choice([[2**40], [-1], [2**31, 2**31], [0], [1e3], ["a"], [2**62, 4]])
        told = json.dumps(header).encode()
    elif how == 2:
        name = rng.choice(list(header))
        header[name]["data_offsets"] = rng.choice([[0, 2**50], [-1, 4], [8, 4], [0, 0], [2**63, 2**64]])
        told = json.dumps(header).encode()
    else:
        told = json.dumps(header).encode()
    length = len(told) if how < 4 else rng.choice([0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
    (place / "w.safetensors").write_bytes(struct.pack("<Q", length) + told + whole_st[8 + size :])


def _pickled_code(rng, place, state, whole_st, whole_pt, canary):
    import builtins
    import os
    import subprocess

    call = rng.choice(
        [
            Code(os.system, f"touch {canary}"),
            Code(subprocess.Popen, ["touch", str(canary)]),
            Code(open, str(canary), "w"),
            Code(builtins.eval, f"open({str(canary)!r}, 'w')"),
            Code(builtins.exec, f"open({str(canary)!r}, 'w')"),
            Code(getattr, "a", "upper"),
            Code(__import__, "antigravity"),
            Code(torch.hub.load, "a/b", "c"),
        ]
    )
    content = rng.choice(
        [call, {"state_dict": state, "x": call}, {**state, "x": call}, [call], {call.__class__.__name__: call}]
    )
    name = f"w.{rng.choice(['pt', 'pth', 'bin', 'ckpt'])}"
    how = rng.randrange(4)
    if how <= 1:
        torch.save(content, place / name, _use_new_zipfile_serialization=how == 0)
    elif how == 2:
        (place / name).write_bytes(pickle.dumps(content, protocol=rng.randrange(6)))
    else:
        (place / "w.safetensors").write_bytes(pickle.dumps(content))


def _bomb(rng, place, state, whole_st, whole_pt, canary):
    """An archive whose members unpack to far more than the file holds; a pickle that promises more than it has."""
    how = rng.randrange(5)
    target = place / "w.pt"
    if how <= 1:
        with zipfile.ZipFile(place.parent / "w.pt") as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
            for member in old.namelist():
                new.writestr(
                    member,
                    bytes(3 << 30 if how == 0 and member.endswith("/data/0") and rng.random() < 0.2 else 64 << 20)
                    if member.endswith("/data/0")
                    else old.read(member),
                )
    elif how == 2:
        target.write_bytes(b"\x80\x02" + b"B" + struct.pack("<I", 2**31 - 1) + b"abc.")
    elif how == 3:
        target.write_bytes(b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**40) + b"abc.")
    else:
        target.write_bytes(
            b"\x80\x02" + b"]q\x00" + b"".join(b"(h\x00h\x00h\x00l0" for _ in range(1000)) + b"(" * 100_000 + b"."
        )


def _wide_view(rng, place, state, whole_st, whole_pt, canary):
    """Tensors of a few bytes that show themselves as many more."""
    changed = dict(state)
    name = rng.choice(list(changed))
    changed[name] = torch.zeros(1).expand(rng.choice([(1 << 33,), (1 << 20, 1 << 20), (1 << 31, 2)]))
    torch.save(changed, place / "w.pt")


def _config(rng, place, state, whole_st, whole_pt, canary):
    (place / "model.safetensors").write_bytes(whole_st)
    config: Any = {
        "model_type": "sedd",
        "n_head": 2,
        "tokens": 13,
        "graph": {"type": "absorb"},
        "model": {"n_heads": 2},
    }
    for _ in range(rng.choice([1, 2, 3])):
        config = damaged(config, rng) if isinstance(config, dict) else config
    (place / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8", errors="replace")


def _shards(rng, place, state, whole_st, whole_pt, canary):
    (place / "model-1.safetensors").write_bytes(whole_st)
    index: Any = {"metadata": {}, "weight_map": {name: "model-1.safetensors" for name in state}}
    if rng.random() < 0.5:
        index["weight_map"][rng.choice(list(state))] = rng.choice(
            ["../../../etc/passwd", "/etc/passwd", "", ".", "..", "model-1.safetensors/", "\x00", "a" * 5000, 7, None]
        )
    else:
        index = damaged(index, rng)
    (place / "model.safetensors.index.json").write_text(
        json.dumps(index, default=str), encoding="utf-8", errors="replace"
    )
