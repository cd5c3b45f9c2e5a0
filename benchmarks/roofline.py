"""How much of a step is its matrix products: each timed at the step's shapes and transposes.

A product is repeated in a loop whose every pass depends on the one before: one number of the result
replaces one number of an operand, in place. So no pass can be left out, hoisted or overlapped, and
nothing but the product takes time. Two sums are given. `alone` adds the products timed one by one,
each with its operands in the nearest cache: no step of a real network can have that. `together`
runs them all in one loop, over as much memory as the step touches.

The second table's limit has the bytes too: products and updates of W, and of E for LRA-E, in one
loop over one set of parameters, with no activation function and nothing that waits for another.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import timing
import workload
from growth import Point
from report import Options, Section, Table, at_least
from workload import BASELINE, BATCH

PARTS = __doc__.strip().split("\n\n")
NOTE = PARTS[1] + (
    " The reached fraction is the sum over the step's time, round by round; as the step's products "
    "need not wait for one another, it can exceed 100 %."
)
LIMIT = 85.0
MOVED_NOTE = PARTS[2] + (
    " `MB` is what moves if nothing stays in a cache: parameters read by each product, read and "
    "written by each update, activities and errors."
)
DEEP, BATCHES = (1, 3, 8, 32, 64), (BATCH, 1000)


class Product(NamedTuple):
    """A product of operands with these shapes, contracted over these axes of theirs."""

    left: tuple[int, int]
    right: tuple[int, int]
    axes: tuple[int, int]

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Computes it."""
        left, right = self.axes
        return jax.lax.dot_general(a, b, (((left,), (right,)), ((), ())))


def forward(m: int, n: int) -> Product:
    """Activity times W."""
    return Product((BATCH, m), (m, n), (1, 0))


def backward(m: int, n: int) -> Product:
    """Error times the transpose of W, or of E, which is kept in W's orientation."""
    return Product((BATCH, n), (m, n), (1, 1))


def outer(m: int, n: int) -> Product:
    """Update of W, activity by error, summed over the mini-batch."""
    return Product((BATCH, m), (BATCH, n), (0, 0))


def of_step(layer_sizes: Sequence[int]) -> list[Product]:
    """The products of a step of LRA-E, and of backprop, which has the same."""
    pairs = list(itertools.pairwise(layer_sizes))
    return [
        *(forward(m, n) for m, n in pairs),
        *(backward(m, n) for m, n in reversed(pairs[1:])),
        *(outer(m, n) for m, n in pairs),
    ]


def repeated(products: Sequence[Product], count: int):
    """A call of `count` passes over all products."""
    keys = jax.random.split(jax.random.key(0), 2 * len(products))

    def operand(shape, key):
        return jax.random.uniform(key, shape, minval=-1, maxval=1) / max(shape)

    lefts = [operand(p.left, key) for p, key in zip(products, keys[::2], strict=True)]
    rights = [operand(p.right, key) for p, key in zip(products, keys[1::2], strict=True)]
    results = [jnp.zeros_like(p(a, b)) for p, a, b in zip(products, lefts, rights, strict=True)]

    def run(lefts, rights, results):
        def one_pass(_, carry):
            lefts, results = map(list, carry)
            last = results[-1]
            for i, product in enumerate(products):
                lefts[i] = lefts[i].at[0, 0].set(last[0, 0])
                last = results[i] = product(lefts[i], rights[i])
            return lefts, results

        return jax.lax.fori_loop(0, count, one_pass, (lefts, results))

    # The right operands are arguments: of constants, the compiler could prepare the layout.
    compiled = jax.jit(run).lower(lefts, rights, results).compile()
    workload.check_finite(compiled(lefts, rights, results))
    return lambda: jax.block_until_ready(compiled(lefts, rights, results))


def measure(options: Options) -> Section:
    """Runs the section."""
    depths = workload.DEPTHS[:1] if options.quick else workload.DEPTHS
    rows, bounds = [], []
    for depth in depths:
        measured = rows_of(depth, options)
        rows += measured
        if depth == workload.DEPTHS[0]:
            text = f"lra_e's step at {depth} layers reaches ≥ {LIMIT:.0f} % of the roofline"
            bounds.append(at_least(text, measured[-1]["alone (%)"], LIMIT))
    points = [(3, BATCH)] if options.quick else itertools.product(DEEP, BATCHES)
    moved = [row for depth, batch in points for row in moved_rows(depth, batch, options)]
    tables = [Table("roofline", rows, NOTE), Table("products and bytes", moved, MOVED_NOTE)]
    return Section(tables, bounds)


def moved_rows(depth: int, batch: int, options: Options) -> list[dict]:
    """Steps beside their products and updates, at one depth and batch."""
    layer_sizes = workload.sizes(depth)
    count = min(options.steps, Point(depth=depth, batch=batch).steps)
    batches = workload.random_batches(count, batch)
    trainers = {
        BASELINE: workload.plain_backprop(layer_sizes),
        "lra_e": workload.rule("lra_e", layer_sizes),
    }
    scans = workload.prepare_all(workload.steps, trainers, batches)
    calls = {name: scan.call for name, scan in scans.items()}
    calls |= {
        ("limit", name): products_and_updates(layer_sizes, batch, name, count) for name in trainers
    }
    seconds = timing.interleaved(calls, options.repeats)
    return [
        {
            "step of": name,
            "hidden layers": depth,
            "batch": batch,
            "step (µs)": timing.spread(seconds[name], 1e6 / count),
            "products and updates (µs)": timing.spread(seconds["limit", name], 1e6 / count),
            "reached (%)": timing.ratio(seconds["limit", name], seconds[name], 100),
            "MB": megabytes(layer_sizes, batch, name),
        }
        for name in trainers
    ]


def megabytes(layer_sizes: Sequence[int], batch: int, name: str) -> float:
    """What a step moves through memory, nothing cached."""
    pairs = list(itertools.pairwise(layer_sizes))
    learned = 2 if name == "lra_e" else 1
    first, *above = (m * n for m, n in pairs)
    parameters = 3 * first + (2 + 2 * learned) * sum(above)  # forward, back; each update twice
    activities = 3 * batch * sum(m + n for m, n in pairs)  # in each product
    return 4 * (parameters + activities) / 1e6


def products_and_updates(layer_sizes: Sequence[int], batch: int, name: str, count: int):
    """A call of `count` passes over a step's products, and over W and E with their updates."""
    pairs = list(itertools.pairwise(layer_sizes))
    keys = iter(jax.random.split(jax.random.key(0), 6 * len(pairs)))

    def drawn(shapes):
        return [jax.random.uniform(next(keys), shape, minval=-1) / max(shape) for shape in shapes]

    ws, es = drawn(pairs), drawn(pairs[1:]) if name == "lra_e" else []
    zs, errors = drawn((batch, m) for m, _ in pairs), drawn((batch, n) for _, n in pairs)
    hs, below = drawn((batch, n) for _, n in pairs), drawn((batch, m) for m, _ in pairs[1:])

    def one_pass(_, carry):
        # All results are kept, so that none is computed in part; one number of each is waited for.
        ws, es, zs, errors, hs, below = (list(part) for part in carry)
        last = below[0]
        for i, w in enumerate(ws):
            zs[i] = zs[i].at[0, 0].set(last[0, 0])
            last = hs[i] = zs[i] @ w
        for i, e in reversed(list(enumerate(es or ws[1:], 1))):
            errors[i] = errors[i].at[0, 0].set(last[0, 0])
            last = below[i - 1] = errors[i] @ e.T
        for i, (z, error) in enumerate(zip(zs, errors, strict=True)):
            update = workload.LEARNING_RATE * (z.T @ error)
            ws[i] = ws[i] - update
            if es and i:
                es[i - 1] = es[i - 1] - update
        return ws, es, zs, errors, hs, below

    def run(*carry):
        return jax.lax.fori_loop(0, count, one_pass, carry)

    carry = (ws, es, zs, errors, hs, below)
    compiled = jax.jit(run).lower(*carry).compile()
    workload.check_finite(compiled(*carry))
    return lambda: jax.block_until_ready(compiled(*carry))


def rows_of(depth: int, options: Options) -> list[dict]:
    """Times of products and steps at one depth, all interleaved."""
    count = options.steps
    layer_sizes = workload.sizes(depth)
    products = of_step(layer_sizes)
    batches = workload.random_batches(count)
    calls = {product: repeated([product], count) for product in set(products)}
    calls["together"] = repeated(products, count)
    trainers = {
        BASELINE: workload.plain_backprop(layer_sizes),
        "lra_e": workload.rule("lra_e", layer_sizes),
    }
    for name, trainer in trainers.items():
        calls[name] = workload.prepare(workload.steps(trainer), trainer, batches).call
    seconds = timing.interleaved(calls, options.repeats)
    alone = sum(seconds[product] for product in products)
    return [
        {
            "step of": name,
            "hidden layers": depth,
            "products": len(products),
            "step (µs)": timing.spread(seconds[name], 1e6 / count),
            "products alone (µs)": timing.spread(alone, 1e6 / count),
            "products together (µs)": timing.spread(seconds["together"], 1e6 / count),
            "alone (%)": timing.ratio(alone, seconds[name], 100),
            "together (%)": timing.ratio(seconds["together"], seconds[name], 100),
        }
        for name in trainers
    ]
