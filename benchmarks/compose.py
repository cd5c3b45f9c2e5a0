"""Steps in a scan as one writes it: a pass a step, mini-batches gathered inside."""

from collections.abc import Callable

import jax
import timing
import workload
from report import Bound, Options, Section, Table, at_most
from workload import BASELINE, BATCH, DEPTHS

import lrajax

RULES = ("backprop", "lra_e", "rec_lra", "kolen_pollack", "rfa", "dfa")
LIMITS = {3: 1.10, 8: 1.15}
NOTE = (
    "SGD, batch 50, 256 units. No `unroll`, unlike the library's own epoch. Copies are those of "
    "256 × 256 matrices, in the compiled loop and before it."
)


def measure(options: Options) -> Section:
    """Runs the section."""
    rows = [row for depth in DEPTHS[: 1 if options.quick else None] for row in of(depth, options)]
    bounds = [
        bound_of(row, LIMITS[row["hidden layers"]])
        for row in rows
        if row["rule"] == "lra_e" and row["hidden layers"] in LIMITS
    ]
    return Section([Table("a scan of one's own", rows, NOTE)], bounds)


def bound_of(row: dict, limit: float) -> Bound:
    """The limit of LRA-E's step at a depth."""
    said = f"lra_e's step in a plain scan at {row['hidden layers']} layers ≤ {limit:g} × jax.grad's"
    return at_most(said, row["over jax.grad"], limit)


def of(depth: int, options: Options) -> list[dict]:
    """A row for the baseline and every rule."""
    layer_sizes = workload.sizes(depth)
    rules = {name: workload.rule(name, layer_sizes) for name in RULES}
    trainers = {BASELINE: workload.plain_backprop(layer_sizes), **rules}
    batches = workload.random_batches(options.steps)
    whole = lrajax.Batch(*(part.reshape(-1, part.shape[-1]) for part in batches))
    scans = workload.prepare_all(plain_scan, trainers, whole)
    seconds = timing.interleaved({name: s.call for name, s in scans.items()}, options.repeats)
    return [
        {
            "rule": name,
            "hidden layers": depth,
            **workload.step_cells(seconds, name, len(batches.x)),
            "copies": copies(scan.program.as_text()),
        }
        for name, scan in scans.items()
    ]


def plain_scan(trainer: workload.Trainer) -> Callable:
    """Steps over mini-batches in a random order, to be compiled."""

    def run(state, whole):
        rows = jax.random.permutation(jax.random.key(1), len(whole.x)).reshape(-1, BATCH)

        def step(state, rows):
            return trainer.step(state, jax.tree.map(lambda part: part[rows], whole))[0], None

        return jax.lax.scan(step, state, rows)[0]

    return run


def copies(program: str) -> int:
    """Copies of 256 × 256 matrices in a program."""
    side = workload.WIDTH
    return program.count(f"= f32[{side},{side}]{{1,0}} copy(")
