"""Growth of LRA-E's time, memory and compile time with width, depth, batch, seeds and devices.

One of them grows at a time, from 3 hidden layers of 256 units, batch 50, one seed, one device.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import timing
import workload
from jax.sharding import NamedSharding, PartitionSpec
from report import Bound, Options, Section, Table, at_most

AXES = {
    "width": (256, 512, 1024, 2048, 4096),
    "depth": (3, 8, 16, 32, 64),
    "batch": (50, 200, 800, 3200, 8192),
    "seeds": (1, 4, 16, 64),
}
QUICK_AXES = {"width": (256, 512), "depth": (3, 8), "batch": (50, 800), "seeds": (1, 4)}
DEVICES, QUICK_DEVICES = (1, 2, 4, 8), (1, 2)
DEVICES_BATCH = 512
# Steps in a scan: as many as fit these, so that every point takes a second or less.
CALL_FLOP, CALL_BYTES, CALL_STEPS = 4e10, 5e7, 300

NOTE = (
    "`ns per (example x parameter)` is the time of a step over batch x forward parameters x seeds. "
    "Peak memory is the compiler's own account (`memory_analysis`: arguments, results and "
    "temporary buffers) of a scan with one mini-batch's data. Compile time covers tracing and "
    "XLA's work on the scan. The points of one axis are interleaved."
)
DEVICES_NOTE = (
    "Global batch 512 split by `NamedSharding`. Emulated devices share this machine's cores: their "
    "figures show what splitting costs, not what devices would gain."
)


class Point(NamedTuple):
    """A size of problem."""

    width: int = workload.WIDTH
    depth: int = workload.DEPTHS[0]
    batch: int = workload.BATCH
    seeds: int = 1
    devices: int = 1

    @property
    def work(self) -> int:
        """Examples times forward parameters of a step, over all seeds."""
        layer_sizes = workload.sizes(self.depth, self.width)
        return self.batch * workload.count_parameters(layer_sizes) * self.seeds

    @property
    def steps(self) -> int:
        """Steps in a scan."""
        by_flop = CALL_FLOP / (6 * self.work)  # two operations, in three products
        by_bytes = CALL_BYTES / (4 * workload.INPUTS * self.batch)
        return max(2, int(min(by_flop, by_bytes, CALL_STEPS)))


class Compiled(NamedTuple):
    """A scan ready to be timed.

    Attributes:
      call: runs it to its end.
      compile_seconds: to trace, lower and compile it.
      peak_bytes: by the compiler's account, with one mini-batch's data; None where it gives none.
    """

    call: Any
    compile_seconds: float
    peak_bytes: int | None


def measure(options: Options) -> Section:
    """Runs the section."""
    tables, bounds = [], []
    for axis, values in (QUICK_AXES if options.quick else AXES).items():
        points = [Point(**{axis: value}) for value in values]
        rows = rows_of(axis, points, options)
        tables.append(Table(axis, [plain(row) for row in rows], NOTE if axis == "width" else ""))
        bounds += bounds_of(axis, rows)
    numbers = QUICK_DEVICES if options.quick else DEVICES
    tables.append(Table("emulated devices", emulated_rows(numbers, options), DEVICES_NOTE))
    if jax.device_count() > 1:
        real = [Point(batch=DEVICES_BATCH, devices=n) for n in numbers if n <= jax.device_count()]
        tables.append(Table("devices", [plain(r) for r in rows_of("devices", real, options)]))
    return Section(tables, bounds)


def rows_of(axis: str, points: list[Point], options: Options) -> list[dict]:
    """Measurements of the points, interleaved; `samples` holds ns per (example x parameter)."""
    compiled = {point: compile_scan(point) for point in points}
    repeats = options.repeats if options.quick else options.repeats // 3
    seconds = timing.interleaved({p: c.call for p, c in compiled.items()}, repeats)
    return [
        {
            axis: getattr(point, axis),
            "step (ms)": timing.spread(seconds[point], 1e3 / point.steps),
            "ns per (example x parameter)": timing.spread(
                seconds[point], 1e9 / point.steps / point.work
            ),
            "peak memory (MB)": made.peak_bytes and made.peak_bytes / 1e6,
            "compile (s)": made.compile_seconds,
            "samples": seconds[point] / point.steps / point.work,
        }
        for point, made in compiled.items()
    ]


def plain(row: dict) -> dict:
    """A row without its samples."""
    return {name: value for name, value in row.items() if name != "samples"}


def bounds_of(axis: str, rows: list[dict]) -> list[Bound]:
    """The bounds on one axis, as far as its points were measured."""
    samples = {row[axis]: row["samples"] for row in rows}
    if axis == "depth" and 64 in samples:
        text = "time per (example x parameter) at depth 64 ≤ 1.3 × that at depth 8"
        return [at_most(text, timing.ratio(samples[64], samples[8]), 1.3)]
    if axis == "batch" and 8192 in samples:
        text = "time per (example x parameter) at batch 8192 ≤ that at batch 50"
        return [at_most(text, timing.ratio(samples[8192], samples[50]), 1.0)]
    if axis == "seeds" and 64 in samples and jax.default_backend() == "gpu":
        text = "64 seeds take at most 4 × the time of one, on a GPU"
        return [at_most(text, timing.ratio(samples[64], samples[1], 64), 4.0)]
    return []


def compile_scan(point: Point) -> Compiled:
    """Compiles the scan of a point, seeds under vmap, mini-batches split over its devices."""
    trainer = workload.rule("lra_e", workload.sizes(point.depth, point.width))
    run, init, key = workload.steps(trainer), trainer.init, jax.random.key(0)
    if point.seeds > 1:
        run, init = jax.vmap(run, in_axes=(0, None)), jax.vmap(init)
        key = jax.random.split(key, point.seeds)
    states = jax.jit(init)(key)
    batches = workload.random_batches(point.steps, point.batch)
    states, batches = place(point.devices, states, batches)
    began = time.perf_counter()
    program = jax.jit(run).lower(states, batches).compile()
    compile_seconds = time.perf_counter() - began
    workload.check_finite(program(states, batches))
    return Compiled(
        lambda: jax.block_until_ready(program(states, batches)),
        compile_seconds,
        workload.peak_bytes(program, batches),
    )


def place(num_devices: int, states, batches):
    """The states on every device, each mini-batch split over them."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("devices",))
    replicated = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(None, "devices"))
    return jax.device_put(states, replicated), jax.device_put(batches, split)


def emulated_rows(numbers: tuple[int, ...], options: Options) -> list[dict]:
    """Rows for emulated devices, from a process that has them."""
    flag = f"--xla_force_host_platform_device_count={max(numbers)}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip(),
    }
    arguments = json.dumps([numbers, options.quick])
    done = subprocess.run(
        [sys.executable, pathlib.Path(__file__), arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the process with emulated devices failed:\n{done.stderr}")
    rows = json.loads(done.stdout)
    return [
        {k: timing.Spread(**v) if isinstance(v, dict) else v for k, v in row.items()}
        for row in rows
    ]


def main() -> None:
    """In that process: prints the rows as JSON."""
    import report

    numbers, quick = json.loads(sys.argv[1])
    points = [Point(batch=DEVICES_BATCH, devices=n) for n in numbers]
    rows = rows_of("devices", points, Options(quick))
    print(json.dumps([report.plain(plain(row)) for row in rows]))


if __name__ == "__main__":
    main()
