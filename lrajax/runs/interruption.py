"""SIGINT and SIGTERM: the first lets the running epoch finish, the second stops at once.

Before the first epoch there is nothing to finish, so the first stops at once there.
"""

import os
import signal
import threading
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Listens from its making on, which should come before anything is compiled.

    A Python signal handler waits until the compiled epoch returns. The wake-up descriptor is
    written to at once, so a thread that reads it can end the process in the middle of an epoch;
    files are only ever replaced whole, so nothing is left half written.
    """

    def __init__(self, say: Callable[[str], None]):
        """Must be made in the main thread.

        Args:
          say: tells the user, in a line.
        """
        self._signal = 0
        self._say = say
        self._training = False
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()

    def begin(self) -> None:
        """Says that epochs are trained from now on, which a first signal lets finish."""
        self._training = True

    def _listen(self, read: int) -> None:
        (first,) = os.read(read, 1)
        name = signal.Signals(first).name
        if not self._training:
            self._say(f"{name}: stopped before the first epoch")
            os._exit(128 + first)
        self._signal = first
        self._say(f"{name}: stops after this epoch; a second signal stops at once")
        (second,) = os.read(read, 1)
        os._exit(128 + second)

    def signal(self) -> int:
        """The signal that any of the processes got, 0 for none; all of them must ask together."""
        if jax.process_count() == 1:
            return self._signal
        return int(multihost_utils.process_allgather(np.array(self._signal)).max())
