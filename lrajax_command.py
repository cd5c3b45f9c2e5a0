"""What ends a command with a line, rather than a traceback, while it imports and before it listens.

By itself, for `import lrajax` takes the seconds in which one changes one's mind. The script that
`pip install` makes calls `main`.
"""

import os
import signal
import sys


def listen() -> None:
    """From now on SIGINT and SIGTERM end the process at once: files are only replaced whole."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number, _) -> None:
    # Python says -m while it imports a package to run.
    name = "lrajax" if sys.argv[0] == "-m" else os.path.basename(sys.argv[0])
    line = f"{name}: {signal.Signals(number).name}: stopped\n"
    try:
        os.write(2, line.encode())
    finally:  # with standard error closed too
        os._exit(128 + number)


def main() -> None:
    """`lrajax COMMAND ...`."""
    listen()
    from lrajax.__main__ import main as command

    command()
