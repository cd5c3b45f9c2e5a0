"""Every rule's step and epoch against `jax.grad`, and the matrix products that they take."""

import hlo
import jax
import timing
import workload
from report import Bound, Options, Section, Table, at_most
from workload import BASELINE, DEPTHS, EPOCH_STEPS

import lrajax

PRODUCT_NOTE = (
    "Counted in the optimised HLO, by `hlo.py`: every dot or library call, those in a loop as "
    "often as it runs. `targets` is `compute_targets` compiled alone, `step` the whole training "
    "step. The paper's formulas are taken with L the number of layers of units, input and output "
    "included, for which 4(L-3)+L is what equations 9 and 10 come to. DTP decodes an activity and "
    "its target in one product of twice the rows, which counts once here and twice in the bounds."
)
STEP_NOTE = (
    "`over jax.grad` is the median of the quotients within each round. The epoch is the library's "
    "`make_train_epoch` on 58,000 uint8 examples: shuffle, conversion and metrics included."
)
RELAXING = ("equil_prop", "predictive_coding")
LIMITS = {"lra_e": 1.10, "rfa": 1.0, "dfa": 1.0}
BY_PRODUCTS = ("dtp", "dtp_sigma")


def measure(options: Options) -> Section:
    """Runs the section."""
    depths = DEPTHS[:1] if options.quick else DEPTHS
    rows, products, bounds = [], [], []
    for depth in depths:
        measured, counted = rows_of(depth, options)
        products += counted
        rows += measured
        bounds += bounds_of(depth, measured)
    tables = [Table("steps", rows, STEP_NOTE), Table("products", products, PRODUCT_NOTE)]
    return Section(tables, bounds)


def trainers(depth: int) -> dict[str, workload.Trainer]:
    """The baseline and every rule."""
    layer_sizes = workload.sizes(depth)
    rules = {name: workload.rule(name, layer_sizes) for name in lrajax.ALGORITHMS}
    return {BASELINE: workload.plain_backprop(layer_sizes), **rules}


def rows_of(depth: int, options: Options) -> tuple[list[dict], list[dict]]:
    """Times and matrix products of one depth."""
    batches = workload.random_batches(options.steps)
    scans, counts = {}, {}
    for name, trainer in trainers(depth).items():
        # A step of these is 20 steps of relaxation or more.
        counts[name] = max(1, len(batches.x) // (20 if name in RELAXING else 1))
        part = jax.tree.map(lambda a, n=counts[name]: a[:n], batches)
        scans[name] = workload.prepare(workload.steps(trainer), trainer, part)
    products = {name: hlo.count_in(scans[name].program.as_text()) // counts[name] for name in scans}
    seconds = timing.interleaved({name: s.call for name, s in scans.items()}, options.repeats)
    per_step = {name: seconds[name] / counts[name] for name in scans}
    per_epoch = {} if options.quick else epoch_times(depth, options)
    times = [
        {
            "rule": name,
            "hidden layers": depth,
            **workload.step_cells(per_step, name),
            "epoch (s)": timing.spread(per_epoch[name]) if per_epoch else None,
        }
        for name in scans
    ]
    return times, [product_row(name, depth, products) for name in scans]


def epoch_times(depth: int, options: Options) -> dict:
    """Seconds of a whole epoch of every rule, [repeats] each."""
    examples = workload.random_examples(EPOCH_STEPS * workload.BATCH)
    epochs = {
        name: workload.prepare(workload.epoch(trainer), trainer, examples).call
        for name, trainer in trainers(depth).items()
    }
    return timing.interleaved(epochs, options.few_repeats)


def product_row(name: str, depth: int, products: dict[str, int]) -> dict:
    """Matrix products of a rule, beside the paper's."""
    units = depth + 2
    claims = {"lra_e": 2 * (units - 1), **dict.fromkeys(BY_PRODUCTS, 4 * (units - 3) + units)}
    return {
        "rule": name,
        "hidden layers": depth,
        "targets": None if name == BASELINE else targets_products(name, depth),
        "paper's targets": claims.get(name),
        "step": products[name],
        "step over jax.grad": products[name] / products[BASELINE],
    }


def targets_products(name: str, depth: int) -> int:
    """Matrix products of a rule's `compute_targets` compiled alone."""
    algo = lrajax.ALGORITHMS[name](lrajax.mlp(workload.sizes(depth)))
    key = jax.random.key(0)

    def targets(params, batch, key):
        return algo.compute_targets(params, batch, key=key)

    batch = lrajax.Batch(
        jax.ShapeDtypeStruct((workload.BATCH, workload.INPUTS), "float32"),
        jax.ShapeDtypeStruct((workload.BATCH, workload.OUTPUTS), "float32"),
    )
    lowered = jax.jit(targets).lower(jax.eval_shape(algo.init, key), batch, key)
    return hlo.count_in(lowered.compile().as_text())


def bounds_of(depth: int, rows: list[dict]) -> list[Bound]:
    """The bounds on the ratios of one depth."""
    ratios = {row["rule"]: row["over jax.grad"] for row in rows}
    # Of one mini-batch each. jax.grad: one for every layer forward, back and in its update, but for
    # the input's error. DTP: forward and updates, the output's error, and for each decoder two
    # decodings, an encoding and decoding of the cycle, and its update.
    layers, decoders = depth + 1, depth - 1
    of_dtp = (2 * layers + 1 + 5 * decoders) / (3 * layers - 1)
    return [
        at_most(f"{name}'s step at {depth} layers ≤ {limit:.3g} × jax.grad's", ratios[name], limit)
        for name, limit in (LIMITS | dict.fromkeys(BY_PRODUCTS, of_dtp)).items()
    ]
