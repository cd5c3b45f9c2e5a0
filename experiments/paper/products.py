"""Matrix products of a rule, counted in the program that JAX traces of it."""

import math

import jax
from jax.extend import core

import lrajax

BATCH, UNITS = 3, 2


def in_sequence(rule: str, depth: int) -> int:
    """Products of a mini-batch with a weight matrix in finding a rule's Λ, `depth` weight layers.

    Updates are not among them. One product of two mini-batches at once counts as two.
    """
    algo = lrajax.ALGORITHMS[rule](lrajax.mlp((UNITS,) * (depth + 1)))
    key = jax.random.key(0)
    params = jax.eval_shape(algo.init, key)
    batch = lrajax.Batch(*jax.eval_shape(lambda: (jax.numpy.zeros((BATCH, UNITS)),) * 2))
    traced = jax.make_jaxpr(lambda p, b: algo.compute_targets(p, b, key=key))(params, batch)
    return _products(traced.jaxpr)


def _products(jaxpr: core.Jaxpr) -> int:
    count = 0
    for equation in jaxpr.eqns:
        inner = [p for p in equation.params.values() if isinstance(p, core.ClosedJaxpr)]
        count += sum(_products(part.jaxpr) for part in inner)
        if equation.primitive.name == "dot_general":
            count += math.prod(equation.outvars[0].aval.shape) // (BATCH * UNITS)
    return count
