"""The text of a run: prepared by one process for all, noted in the run's folder, and held against that note later."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from workbench import assemble
from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, write_json
from workbench.core.loading import Resolved
from workbench.data.base import Progress
from workbench.data.section import Prepared
from workbench.run import RunError, RunFolder
from workbench.train.parallel import Parallel

DATA = "data.json"
"""The note in a run's folder of the text and the tokens that it was trained on."""


def text_of(
    run: RunFolder,
    resolved: Resolved,
    cache: Path | str | None,
    tell: Progress | None,
    parallel: Parallel,
    parent: RunFolder | None,
) -> Prepared:
    """The text of a run, which the first process prepares, checks and notes: it is long, and they share the cache."""
    if parallel.lead:
        try:
            with parallel.busy():
                folder = run.path if parent is None or (run.path / assemble.TOKENIZER).is_dir() else parent.path
                data = assemble.prepare(resolved, cache, tell, folder)
                require_same_text(run, data)
                data.tokenizer.save(run.path / assemble.TOKENIZER)
                write_json(run.path / DATA, data.meta)
        except BaseException:
            with suppress(WorkbenchError):  # this error is the one to be read
                parallel.told("")
            raise
        parallel.told(json.dumps(dict(data.streams)))
        return data
    if not (streams := parallel.told("")):
        raise RunError("the first process could not prepare the text, and says why")
    return assemble.prepare(resolved, cache, tell, run.path, json.loads(streams))


def require_same_text(run: RunFolder, data: Prepared) -> None:
    """Check that data is what the run was begun with: other text has other tokens, and the weights know the old.

    Raises:
        RunError: the corpus or its tokenizer has changed since.
    """
    try:
        before = read_json(run.path / DATA)
        changed = [what for what in ("corpus", "tokenizer") if before[what] != data.meta[what]]
    except (OSError, ValueError, KeyError, TypeError):  # not begun, or the note is lost: nothing to hold it against
        return
    if changed:
        raise RunError(
            f"the {' and the '.join(changed)} of {run.path} changed since it was begun ({DATA} says what it was): "
            "restore the text, or train on the new one in another folder (--runs)"
        )
