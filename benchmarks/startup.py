"""From the start of a process to the first trained epoch, with and without JAX's compilation cache.

`experiments/train.py --epochs=1` is run on digits with its defaults, and watched from outside: the
first epoch (27 steps, then validation and test errors) has ended when its line is in metrics.jsonl.
The compilation column sums what JAX reports of XLA's compilations or, from the cache, retrievals;
tracing is not in it. The cache's rows keep every program, however quick to compile: `empty` fills
the cache, `filled` finds it full.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import timing
from report import Options, Section, Table

WATCHED = pathlib.Path(__file__).with_name("watched_train.py")
TIMEOUT = 300.0
CACHES = ("none", "empty", "filled")
NOTE = __doc__.partition("\n\n")[2].strip()


def measure(options: Options) -> Section:
    """Runs the section."""
    seconds = {cache: [] for cache in CACHES}
    for _ in range(options.few_repeats):
        with tempfile.TemporaryDirectory() as folder:
            for cache in CACHES:
                cache_folder = pathlib.Path(folder) / "cache" if cache != "none" else None
                out = pathlib.Path(folder) / cache
                seconds[cache].append(first_epoch(out, cache_folder))
    rows = []
    for cache in CACHES:
        started, compiling, ended = np.array(seconds[cache]).T
        rows.append(
            {
                "compilation cache": cache,
                "first trained epoch (s)": timing.spread(started),
                "of which XLA's compilation (s)": timing.spread(compiling),
                "end of the process (s)": timing.spread(ended),
            }
        )
    return Section([Table("startup", rows, NOTE)])


def first_epoch(out: pathlib.Path, cache: pathlib.Path | None) -> tuple[float, float, float]:
    """Seconds to the first epoch, of compilation, and to the end of one process.

    Raises:
      RuntimeError: training failed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, str(WATCHED), "--epochs=1", f"--out_dir={out}"]
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        trained = wait_for(out / "metrics.jsonl", process)
        process.wait(TIMEOUT)
        ended = time.perf_counter()
        log.seek(0)
        text = log.read()
    if process.returncode or trained is None:
        raise RuntimeError(f"{' '.join(command)} failed:\n{text}")
    return trained - began, float(text.split()[-1]), ended - began


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> float | None:
    """The time at which a line is in the file, or None if the process ends without one."""
    while True:
        running = process.poll() is None
        if path.exists() and path.stat().st_size:
            return time.perf_counter()
        if not running:
            return None
        time.sleep(0.005)
