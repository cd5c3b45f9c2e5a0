"""What the experiment binaries share on the command line: errors of one line, quiet parsing."""

import pathlib
import sys
from typing import NoReturn

from absl import flags, logging


def fail(error: Exception) -> NoReturn:
    """Says in one line what is wrong with the command, and leaves with status 2."""
    message = " ".join(str(error).split())
    # The library names arguments; on the command line they are flags.
    dashes = "--" if message.partition("=")[0] in flags.FLAGS else ""
    print(f"{pathlib.Path(sys.argv[0]).name}: {dashes}{message}", file=sys.stderr)
    sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """The parser of absl, with its errors on one line and no word that is not a flag."""
    logging.set_verbosity(logging.ERROR)  # JAX's search for devices is no news
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"{rest[1]!r} is not a flag: write --name=value")
        return rest
    except (flags.Error, ValueError) as error:
        fail(error)
