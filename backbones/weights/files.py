"""Weights from files: safetensors, torch files without code, sharded ones, training checkpoints. Executes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from backbones.weights.base import Published
from backbones.weights.pickles import WeightsError, read_torch
from workbench.core.files import read_json, sha256
from workbench.core.reading import read_yaml

TORCH = (".pt", ".pth", ".bin", ".ckpt")
NAMES = (
    "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin",
    "checkpoints-meta/checkpoint.pth",
)  # fmt: skip
"""What a folder's weights are called, in the order in which they are looked for."""
HELD = ("state_dict", "model")
"""Where Lightning, and the official SEDD, keep the weights in a training checkpoint."""


def read_weights(place: Path) -> tuple[Published, dict[str, str]]:
    """The weights of a file or folder, widened to float32, and the SHA-256 of each file they came from.

    Raises:
        WeightsError: there are none, or several; a file is damaged, or holds code.
    """
    file = weights_file(place)
    config, beside = _config(file)
    if file.name.endswith(".index.json"):
        parts = _shards(file)
        tensors: dict[str, Any] = {}
        for part in parts:
            tensors |= _read(part)
        _require_all(file, tensors)
        found, files = tensors, [file, *parts]
    else:
        found, files = _read(file), [file]
    root = place if place.is_dir() else place.parent
    hashes = {_name(one, root): sha256(one) for one in (*files, *beside)}
    return _unwrapped(file, found, config), hashes


def weights_file(place: Path) -> Path:
    """The one file (or index of shards) that holds a place's weights.

    Raises:
        WeightsError: none is there, or nothing says which.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise WeightsError(f"{place}: there is no such file or folder")
    for name in NAMES:
        if (place / name).is_file():
            return place / name
    known = sorted(file for file in place.iterdir() if file.suffix in (".safetensors", *TORCH) and file.is_file())
    if len(known) == 1:
        return known[0]
    if known:
        raise WeightsError(f"{place} holds {', '.join(file.name for file in known)}: name the file")
    if (place / "resolved.yaml").is_file():
        raise WeightsError(f"{place} is a run: workbench export {place} --to FOLDER makes what can be imported")
    endings = " *".join((".safetensors", *TORCH))
    raise WeightsError(f"{place} holds no weights: {NAMES[1]}, {NAMES[3]}, or one *{endings}")


def _read(file: Path) -> dict[str, Any]:
    """What a file holds, by name."""
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{file} is damaged, or no safetensors file: {error}") from error
    if file.suffix not in TORCH:
        raise WeightsError(f"{file}: weights are *.safetensors or *{' *'.join(TORCH)}, by the file's ending")
    found = read_torch(file)
    if not isinstance(found, Mapping):
        raise WeightsError(f"{file} holds a {type(found).__name__}; a state dict is due: tensors by name")
    return {str(name): value for name, value in found.items()}


def _unwrapped(file: Path, found: Mapping[str, Any], config: Mapping[str, Any]) -> Published:
    """Weights out of a state dict, or of a training checkpoint that holds one."""
    inner = next((found[name] for name in HELD if isinstance(found.get(name), Mapping)), None)
    state = found if inner is None else inner
    wrong = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong or not state:
        raise WeightsError(
            f"{file} is no state dict: no tensors by name, nor {' or '.join(map(repr, HELD))} with such; it holds "
            f"{', '.join(wrong[:8]) or 'nothing'}{' …' * (len(wrong) > 8)}"
        )
    told = dict(config)
    if inner is not None and isinstance(found.get("hyper_parameters"), Mapping):
        told.setdefault("hyper_parameters", found["hyper_parameters"])
    ema = found.get("ema") if inner is not None else None
    averaged = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if averaged is not None and not (
        isinstance(averaged, (list, tuple)) and all(isinstance(one, Tensor) for one in averaged)
    ):
        raise WeightsError(f"{file}: ema.shadow_params is no list of tensors")
    step = next((found[name] for name in ("step", "global_step") if isinstance(found.get(name), int)), None)
    weights = {str(name): _wide(file, str(name), value) for name, value in state.items()}
    shadow = None if averaged is None else [_wide(file, f"ema.shadow_params[{i}]", t) for i, t in enumerate(averaged)]
    return Published(weights, told, shadow, step if inner is not None else None)


def _wide(file: Path, name: str, value: Tensor) -> Tensor:
    """float32, finite, and no larger than what is stored: a few bytes may show themselves as a thousand times more."""
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise WeightsError(f"{file}: {name} is no plain tensor (sparse, quantised, or a view of less than it shows)")
    if value.is_complex():
        raise WeightsError(f"{file}: {name} holds complex numbers")
    if not value.is_floating_point():
        return value
    try:
        wide = value.to(torch.float32)
    except RuntimeError as error:
        raise WeightsError(f"{file}: {name} holds {value.dtype}, which is not read here") from error
    if not bool(wide.isfinite().all()):  # asked of float32: not every narrow type knows
        raise WeightsError(f"{file}: {name} holds numbers that are not finite in float32")
    return wide


def _config(file: Path) -> tuple[dict[str, Any], list[Path]]:
    """What stands beside weights: config.json, or what Hydra left one folder up; and the files it came from."""
    for path in (file.parent / "config.json", *(up / ".hydra/config.yaml" for up in (file.parent, file.parent.parent))):
        if path.is_file():
            try:
                data = read_json(path) if path.suffix == ".json" else read_yaml(path)
            except ValueError as error:
                raise WeightsError(f"{path} is no JSON ({error})") from error
            if not isinstance(data, dict):
                raise WeightsError(f"{path} is no config: a mapping is due")
            return data, [path]
    return {}, []


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all of them in its own folder."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is no index of shards (a `weight_map` is due)") from error
    files = [index.parent / str(name) for name in names]
    strays = [str(name) for name in names if Path(str(name)).name != name]
    if strays:
        raise WeightsError(f"{index} names files outside its folder: {', '.join(strays)}")
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise WeightsError(f"{index} names files that are not there: {', '.join(absent)}")
    return files


def _require_all(index: Path, tensors: Mapping[str, Any]) -> None:
    """What the index promises must be in the shards."""
    absent = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) - set(tensors))
    if absent:
        raise WeightsError(f"{index} promises tensors that no shard holds: {', '.join(absent)}")


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
