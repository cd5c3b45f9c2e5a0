"""Runs experiments/train.py and prints, as its last line, the seconds that compilations took.

XLA's compilation or, where the persistent cache has the program, its retrieval.
"""

import pathlib
import runpy
import sys

import jax

TRAIN = pathlib.Path(__file__).parents[1] / "experiments" / "train.py"
EVENT = "/jax/core/compile/backend_compile_duration"


def main() -> None:
    """Listens to JAX's own events around the whole run."""
    seconds = []

    def listen(event: str, duration: float, **_) -> None:
        if event == EVENT:
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    sys.path.insert(0, str(TRAIN.parent))
    sys.argv[0] = str(TRAIN)
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    finally:
        print(sum(seconds))


if __name__ == "__main__":
    main()
