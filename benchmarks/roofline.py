"""How much of a step is its matrix products: each timed at the step's shapes and transposes.

A product is repeated in a loop whose every pass depends on the one before: one number of the result
replaces one number of an operand, in place. So no pass can be left out, hoisted or overlapped, and
nothing but the product takes time. Two sums are given. `alone` adds the products timed one by one,
each with its operands in the nearest cache: no step of a real network can have that. `together`
runs them all in one loop, over as much memory as the step touches.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import timing
import workload
from report import Options, Section, Table, at_least
from workload import BASELINE, BATCH

NOTE = __doc__.partition("\n\n")[2].strip() + (
    " The reached fraction is the sum over the step's time, round by round; as the step's products "
    "need not wait for one another, it can exceed 100 %."
)
LIMIT = 85.0


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
    return Section([Table("roofline", rows, NOTE)], bounds)


def rows_of(depth: int, options: Options) -> list[dict]:
    """Times of products and steps at one depth, all interleaved."""
    count = 40 if options.quick else 300
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
