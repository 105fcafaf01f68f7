"""The entry point: a table of commands, of which only the one asked for is imported.

A command is a module with ``configure(parser)``, which adds arguments to the command's own parser, and
``run(args) -> int``, which returns the exit status: 0 done, 1 something is wrong, 2 wrong usage. A
`WorkbenchError` becomes its message on stderr and status 1, and so does what the machine refuses (a file, memory);
``--debug`` shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from workbench import __version__
from workbench.core.errors import WorkbenchError, in_words
from workbench.core.part import did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("workbench.cli.listing", "what exists: kinds of parts and the parts of a kind"),
    "show": ("workbench.cli.showing", "a part, a resolved recipe, or the JSON Schema of recipes"),
    "check": ("workbench.cli.checking", "every problem of recipes, their size and cost; contracts of plug-ins"),
    "match": ("workbench.cli.matching", "sizes at which one recipe costs what another does"),
    "train": ("workbench.cli.train", "train a recipe, or resume a run"),
    "sample": ("workbench.cli.sample", "draw text from a run: freely, after a prefix, or around fixed words"),
    "eval": ("workbench.cli.eval", "evaluate a run"),
    "audit": ("workbench.cli.audit", "what a sampler gets wrong on texts whose law is known"),
    "grid": ("workbench.cli.grid", "run recipes along axes beside a baseline, and compare them"),
    "profile": ("workbench.cli.profile", "where the time and memory of an update, or of sampling, go"),
    "bench": ("workbench.cli.bench", "ways of doing the same work, timed side by side"),
    "report": ("workbench.cli.report", "one table and one page for several runs"),
    "board": ("workbench.cli.board", "TensorBoard on several runs, or on a grid"),
    "reproduce": ("workbench.cli.reproducing", "make a run again from its folder alone, and compare the figures"),
    "tasks": ("workbench.cli.tasks", "data of downstream tasks made ready; two evaluations compared"),
    "import": ("workbench.cli.importing", "make a run of published weights: the hub's, a file's, a folder's"),
    "export": ("workbench.cli.exporting", "write a run's weights for others, as a Hugging Face folder"),
    "doctor": ("workbench.cli.doctor", "what this machine offers and lacks, and a run of a few seconds as a test"),
    "completion": ("workbench.cli.completion", "a script by which bash, zsh or fish completes all this"),
    "quickstart": ("workbench.cli.quickstart", "train a small SEDD and a GPT-2 on real prose and compare them"),
}
"""Command → (module, one line of help)."""
EPILOG = (
    "Start with `workbench quickstart`, or `workbench list`; `workbench doctor` looks at this machine. "
    "Help on one command: `workbench COMMAND --help`."
)


class Terminated(BaseException):
    """SIGTERM has come: everything is closed on the way out, as for the key that interrupts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    _open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    args, unknown = _parser(arguments).parse_known_args(arguments)
    if unknown and "override" in args and not any(word.startswith("-") for word in unknown):
        # argparse ends a list of positionals at the first option; overrides may stand behind one
        args.override += unknown
    elif unknown:
        args._own.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, 'override' in args)}")
    try:
        with _terminable():
            status = int(args._act(args))
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        # The reader of our output has gone (`workbench list | head`); nothing more can be said.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (WorkbenchError, OSError, MemoryError, RuntimeError, KeyboardInterrupt, Terminated) as error:
        message, status = _in_words(error)
        if args.debug or not message:
            raise
        print(f"workbench {args.command}: {message}", file=sys.stderr)
        return status


def _meant(unknown: Sequence[str], takes_settings: bool) -> str:
    """What somebody wanted who gave settings as options, or with spaces around the sign."""
    settings = [word.lstrip("-") for word in unknown if word.startswith("--") and "=" in word and "." in word]
    if settings and takes_settings:
        return f". Settings stand without dashes: {' '.join(settings)}"
    return ""


def _in_words(error: BaseException) -> tuple[str, int]:
    """What to tell a user, and the exit status; no words for an error that is the workbench's own fault."""
    if isinstance(error, (KeyboardInterrupt, Terminated)):
        return "stopped; what was finished is kept, and the same command goes on from there", (
            130 if isinstance(error, KeyboardInterrupt) else 128 + signal.SIGTERM
        )
    return in_words(error), error.exit_code if isinstance(error, WorkbenchError) else 1


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` inside (the trainer has its own way with it); in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_streams() -> None:
    """Output that takes every character and may be closed: what a terminal cannot show becomes a ``?``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open for the process's life)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """A parser that knows all commands by name and one of them by heart."""
    parser = _Parser(prog="workbench", description="Score-entropy discrete diffusion, from recipes.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name, (module, text) in COMMANDS.items():
        own = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        own.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name == asked:
            command = importlib.import_module(module)
            command.configure(own)
            own.set_defaults(_act=command.run, _own=own)  # names that no argument of a command takes
    return parser


def configured(name: str) -> argparse.ArgumentParser:
    """The parser of one command, with all its arguments."""
    own = _Parser(prog=f"workbench {name}")
    importlib.import_module(COMMANDS[name][0]).configure(own)
    return own


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest command where one is misspelt."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line and exit with status 2."""
        if "invalid choice" in message and self.prog == "workbench":
            word = message.partition("invalid choice: ")[2].split("'")[1]
            message = f"there is no command {word!r}.{did_you_mean(word, COMMANDS)}"
        self.exit(2, f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")
