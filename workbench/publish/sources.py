"""Where weights come from: a file, a folder, or ``hub:owner/name`` on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.core.errors import WorkbenchError

HUB = "hub:"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
SAFE = ("*.json", "*.safetensors", "tokenizer/*", "plugins/*")
"""What is fetched of a repository; only where it holds no safetensors are torch files fetched too."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def fetch(source: str) -> tuple[Path, dict[str, str]]:
    """(the file or folder on this machine, what to note of where it came from).

    ``hub:owner/name`` may end in ``@revision``.

    Raises:
        WorkbenchError: the source is nowhere, or the hub cannot be reached; says what to do.
    """
    if not source.startswith(HUB):
        place = Path(source).expanduser()
        if not place.exists():
            hint = f"; on the hub it is {HUB}{source}" if REPOSITORY.fullmatch(source) else ""
            raise WorkbenchError(f"{source}: there is no such file or folder{hint}")
        return place, {"source": str(place)}
    name, _, revision = source.removeprefix(HUB).partition("@")
    if not REPOSITORY.fullmatch(name):
        raise WorkbenchError(f"{source}: write hub:owner/name, as in hub:louaaron/sedd-small")
    place = _download(name, revision or None)
    return place, {"source": f"{HUB}{name}", "revision": place.name}


def default_name(source: str) -> str:
    """What a run is called after its source: the repository's name, the folder's, the file's."""
    last = source.removeprefix(HUB).partition("@")[0] if source.startswith(HUB) else str(Path(source).resolve())
    tail = last.rstrip("/").rpartition("/")[2]
    stem = tail if source.startswith(HUB) or Path(source).is_dir() else Path(tail).stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")[:80] or "imported"


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise WorkbenchError(
            f"hub:{name} needs the package huggingface_hub: pip install -e '.[hub]', or pip install huggingface_hub"
        ) from error
    try:
        place = Path(snapshot_download(name, revision=revision, allow_patterns=list(SAFE)))
        if not any(place.glob("*.safetensors")):
            place = Path(snapshot_download(name, revision=revision, allow_patterns=[*SAFE, *PICKLED]))
    except Exception as error:  # HTTP back ends differ in what they raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WorkbenchError(
            f"hub:{name} cannot be fetched ({reason:.200}). Check the name and the network; where there is none, fetch "
            "the repository elsewhere and import its folder"
        ) from error
    return place
