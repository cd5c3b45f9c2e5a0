"""What it takes states to settle, by the order of a sweep, and what a training step of EP costs.

A settling is counted in sweeps until no state moves by more than 1e-4, and in matrix products; a
sweep of any order takes one product up and one down for each pair of layers.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import timing
import workload
from report import Bound, Options, Section, Table, at_most
from workload import BASELINE, DEPTHS

import lrajax
from lrajax.runs import presets

TOLERANCE, MOST = 1e-4, 400
# How both rules settle: the publications' way, and the library's others.
MODES: dict[str, dict[str, Any]] = {
    "synchronous, ε = 0.5": {"order": "synchronous", "step_size": 0.5},
    "asynchronous, ε = 1": {"order": "asynchronous", "step_size": 1.0},
    "sequential, ε = 1": {"order": "sequential", "step_size": 1.0},
}
FEEDBACKS = (1.0, 0.3)
PRESET = "the preset's"
LIMITS = {3: 5.0, 5: 5.5, 8: 6.0}
NOTE = (
    "Random inputs and labels, batch 50, β = 0.5, W as the rules draw it by default. Products are "
    "those of the sweeps alone. EP: equilibrium propagation, γ its feedback, free, nudged phase. "
    "PC: predictive coding of the hidden states, ε at most 0.5; errors: its errors' coordinates, "
    "where a sweep is a pass up and one down. "
    f"'{MOST}' sweeps had not settled."
)
STEP_NOTE = (
    "A whole training step of equilibrium propagation under SGD, as its factory settles by default "
    "and as `train.py` does (`lrajax/runs/presets.py`), `over jax.grad` within each round."
)


def measure(options: Options) -> Section:
    """Runs the section."""
    depths = DEPTHS[:1] if options.quick else DEPTHS
    rows = [row for depth in depths for row in (*of_equil_prop(depth), *of_coding(depth))]
    steps = [row for depth in depths for row in step_rows(depth, options)]
    tables = [Table("settling", rows, NOTE), Table("step", steps, STEP_NOTE)]
    return Section(tables, [bound for row in steps if (bound := bound_of(row))])


def found_by(algo: lrajax.Algorithm) -> Any:
    """The phases of a mini-batch, from Λ."""
    params = algo.init(jax.random.key(0))
    batch = jax.tree.map(lambda a: a[0], workload.random_batches(1))
    return jax.jit(algo.compute_targets)(params, batch).aux


def row_of(rule: str, mode: str, depth: int, sweeps: dict[str, int], products: int) -> dict:
    """A row of the table."""
    settled = {f"sweeps, {phase}": made for phase, made in sweeps.items()}
    return {
        "rule": rule,
        "sweep": mode,
        "hidden layers": depth,
        "sweeps, free": None,
        **settled,
        "products": products * sum(sweeps.values()),
    }


def of_equil_prop(depth: int) -> Iterator[dict]:
    """Free and positively nudged phase by order and feedback."""
    network = lrajax.mlp(workload.sizes(depth))
    make = functools.partial(lrajax.equil_prop, network, nudge="positive", beta=0.5)
    for feedback in FEEDBACKS:
        for mode, how in MODES.items():
            algo = make(
                free_steps=MOST, nudged_steps=MOST, tolerance=TOLERANCE, feedback=feedback, **how
            )
            phases = found_by(algo)
            sweeps = {"free": int(phases.free.sweeps), "nudged": int(phases.second.sweeps)}
            yield row_of(f"EP, γ = {feedback:g}", mode, depth, sweeps, 2 * depth)


def of_coding(depth: int) -> Iterator[dict]:
    """Relaxation of states by order, and of errors."""
    network = lrajax.mlp(workload.sizes(depth))
    make = functools.partial(
        lrajax.predictive_coding, network, steps=MOST, tolerance=TOLERANCE, beta=0.5
    )
    ways = {mode: {**how, "step_size": 0.5} for mode, how in MODES.items()}
    ways["errors"] = {"coordinates": "errors", "step_size": 0.5}
    for mode, how in ways.items():
        (phase,) = found_by(make(**how))
        name = mode.replace("ε = 1", "ε = 0.5")
        yield row_of("PC", name, depth, {"nudged": int(phase.sweeps)}, 2 * depth)


def step_rows(depth: int, options: Options) -> list[dict]:
    """Times of a training step, interleaved with backprop's."""
    layer_sizes = workload.sizes(depth)
    preset = presets.resolve("equil_prop", hidden_layers=depth).hyperparameters
    trainers = {
        BASELINE: workload.plain_backprop(layer_sizes),
        "the factory's": workload.rule("equil_prop", layer_sizes),
        PRESET: workload.rule("equil_prop", layer_sizes, **preset),
    }
    batches = workload.random_batches(options.steps // 5)
    scans = workload.prepare_all(workload.steps, trainers, batches)
    seconds = timing.interleaved({name: s.call for name, s in scans.items()}, options.repeats)
    return [
        {
            "settling": name,
            "hidden layers": depth,
            **workload.step_cells(seconds, name, len(batches.x)),
        }
        for name in trainers
    ]


def bound_of(row: dict) -> Bound | None:
    """The limit of the preset's step."""
    if row["settling"] != PRESET:
        return None
    depth = row["hidden layers"]
    said = f"equilibrium propagation's step at {depth} layers ≤ {LIMITS[depth]:g} × jax.grad's"
    return at_most(said, row["over jax.grad"], LIMITS[depth])
