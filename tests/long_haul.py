"""Trains for thousands of epochs and looks for what grows: memory, compilations, seconds an epoch.

python tests/long_haul.py --epochs=2000
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from typing import NamedTuple

import jax

from lrajax import data
from lrajax.runs import presets, records
from lrajax.runs.experiment import Experiment
from lrajax.runs.folder import RunFolder


class Measured(NamedTuple):
    """Of an epoch: seconds with its checkpoint, MiB of the process, compilations so far."""

    seconds: float
    memory: float
    compilations: int


def measure(epochs, path):
    """Trains two seeds on the digits, with a checkpoint an epoch, and measures every epoch."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    small = {"hidden_layers": 2, "width": 8, "seeds": (0, 1)}
    settings = presets.resolve("dtp_sigma", epochs=epochs, lr=1e-3, **small)
    folder = RunFolder(path, settings, print)
    folder.open()
    experiment = Experiment(settings, data.load("digits"))
    folder.resume(jax.eval_shape(experiment.start))
    measured = []
    began = time.perf_counter()
    for epoch in experiment.epochs():
        folder.write_epoch(epoch, experiment.on_host(epoch.run))
        records.progress(epoch)
        now = time.perf_counter()
        measured.append(Measured(now - began, resident(), len(compiled)))
        began = now
    folder.close()
    return measured


def resident():
    """MiB of memory that the process holds."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2000)
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as path:
        measured = measure(epochs, path)
    fifth = epochs // 5
    for name, part in (("second", measured[fifth : 2 * fifth]), ("last", measured[-fifth:])):
        seconds = statistics.median(epoch.seconds for epoch in part)
        memory = statistics.median(epoch.memory for epoch in part)
        print(f"{name} fifth of {epochs} epochs: {1e3 * seconds:.1f} ms each, {memory:.1f} MiB")
    print(f"{measured[-1].compilations - measured[2].compilations} compilations after epoch 3")


if __name__ == "__main__":
    main()
