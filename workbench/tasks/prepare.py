"""A folder of tasks for lm-evaluation-harness from raw files: JSON lines, and task files that name them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import WorkbenchError
from workbench.core.files import write_text
from workbench.core.part import did_you_mean
from workbench.core.places import recipes_folder
from workbench.tasks.formats import FORMATS

FOLDER = "FOLDER"
"""What stands in a shipped task file for the folder of its data."""


@dataclass(frozen=True)
class Ready:
    """A task made ready: its name for ``--tasks``, how many documents, the folder for ``--include_path``."""

    task: str
    count: int
    folder: Path


def prepare(name: str, source: Path, folder: Path) -> Ready:
    """Read a raw file, check it, write ``NAME.jsonl`` and ``workbench_NAME.yaml`` into ``folder``.

    Raises:
        WorkbenchError: no such set, a file that is not whole or of another format, a folder that cannot be written.
    """
    if name not in FORMATS:
        raise WorkbenchError(f"no task {name!r} to prepare.{did_you_mean(name, FORMATS)}")
    docs = FORMATS[name].read(source)
    template = (recipes_folder() / "tasks" / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs))
        write_text(folder / f"workbench_{name}.yaml", template.replace(FOLDER, json.dumps(str(folder.resolve()))[1:-1]))
    except OSError as error:
        raise WorkbenchError(f"{folder} cannot be written ({error.strerror}); name another by --to") from error
    return Ready(f"workbench_{name}", len(docs), folder)
