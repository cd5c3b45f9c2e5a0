"""`lrajax train`, from a checkout."""

import os
import signal


def stop(number, _):
    """Until the command listens for itself: an import that is broken off ends in a traceback."""
    os.write(
        2, f"train.py: {signal.Signals(number).name}: stopped before the first epoch\n".encode()
    )
    os._exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    from lrajax.runs.commands import train

    train.run()
