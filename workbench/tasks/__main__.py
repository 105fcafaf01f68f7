"""``python -m workbench.tasks …``: the harness's own command line, in which ``--model workbench`` is known."""

from __future__ import annotations

import sys

from workbench.core.errors import WorkbenchError


def main() -> int:
    """Register the model, hand everything on."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError:
        print("lm-evaluation-harness is not installed: pip install 'sedd-workbench[tasks]'", file=sys.stderr)
        return 1
    import workbench.tasks.model  # noqa: F401  (registers)

    try:
        cli_evaluate()
    except WorkbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
