"""What the commands share: errors of one line, quiet parsing, terminals of any kind."""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import flags, logging


def program() -> str:
    """What the user typed: `train.py`, or `lrajax train`."""
    return pathlib.Path(sys.argv[0]).name


def fail(error: Exception) -> NoReturn:
    """Says in one line what is wrong with the command, and leaves with status 2."""
    message = " ".join(str(error).split())
    # The library names arguments; on the command line they are flags.
    dashes = "--" if message.partition("=")[0] in flags.FLAGS else ""
    print(f"{program()}: {dashes}{message}", file=sys.stderr)
    sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """The parser of absl, with its errors on one line and no word that is not a flag."""
    logging.set_verbosity(logging.ERROR)  # JAX's search for devices is no news
    flags.FLAGS.unparse_flags()  # of an earlier command in the same process
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"{rest[1]!r} is not a flag: write --name=value")
        return rest
    except (flags.Error, ValueError) as error:
        fail(error)


def on_any_terminal(command: Callable[[], None]) -> None:
    """Runs a command whose output may be closed, or know fewer letters than are written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell, as in 2>&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        try:
            command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. Python flushes once more at the end, into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
