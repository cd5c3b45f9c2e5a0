"""The local products over mini-batches that learning rules are made of.

They are the only way a rule touches a layer: each takes the layer first, maps it over the batch
and, where a derivative is asked for, puts the `vmap` inside the vector-Jacobian product, so that no
weight gradient of a single example is ever formed.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from lrajax.base import Layer, PyTree, Values

EXAMPLES = "examples"
"""The mapped axis, by whose index a stochastic layer tells one example from another."""


def _over_examples(function: Callable, in_axes: Any) -> Callable:
    return jax.vmap(function, in_axes, axis_name=EXAMPLES)


def pre(
    layer: Layer, theta: PyTree, z_below: Shaped[Values, " B *below"]
) -> Float[Array, " B *here"]:
    """Pre-activity h, [B, *out_shape], in the dtype of theta, whatever the activity below has."""
    return _over_examples(layer.pre, (None, 0))(theta, jnp.asarray(z_below, dtype(theta, z_below)))


def post(layer: Layer, h: Float[Values, "B ..."]) -> Float[Array, "B ..."]:
    """Post-activity z = φ(h), [B, *out_shape]."""
    return _over_examples(layer.post, 0)(jnp.asarray(h))


def feedback(
    layer: Layer,
    e: PyTree,
    z_below: Float[Values, " B *below"],
    error: Float[Values, " B *here"],
) -> Float[Array, " B *below"]:
    """Error (or activity) of this layer carried down by the feedback weights, [B, *in_shape].

    By default `vjp_below` with e in the place of theta: at the activity below, so that pooling by
    maximum sends an error where the maximum was, and a norm scales it as it scaled the activity.
    """
    if layer.feedback is None:
        return vjp_below(layer, _in_place_of_theta(layer, e), z_below, error)
    return _over_examples(layer.feedback, (None, 0, 0))(e, z_below, error)


def vjp_theta(
    layer: Layer,
    theta: PyTree,
    z_below: Shaped[Values, " B *below"],
    delta: Float[Values, " B *here"],
) -> PyTree:
    """(∂h/∂θ)ᵀ δ, summed over the batch: for a dense layer z_belowᵀ δ and Σ δ."""
    _, vjp = jax.vjp(lambda theta: pre(layer, theta, z_below), theta)
    return vjp(delta)[0]


def vjp_below(
    layer: Layer,
    theta: PyTree,
    z_below: Float[Values, " B *below"],
    delta: Float[Values, " B *here"],
) -> Float[Array, " B *below"]:
    """(∂h/∂z_below)ᵀ δ, [B, *in_shape]: for a dense layer δ Wᵀ."""
    _, vjp = jax.vjp(lambda z: pre(layer, theta, z), z_below)
    return vjp(delta)[0]


def vjp_post(
    layer: Layer, h: Float[Values, " B *here"], error: Float[Values, " B *here"]
) -> Float[Array, " B *here"]:
    """(∂z/∂h)ᵀ e, [B, *out_shape]: e ⊗ φ′(h) for a pointwise activation."""
    _, vjp = jax.vjp(lambda h: post(layer, h), h)
    return vjp(error)[0]


def vjp_feedback(
    layer: Layer,
    e: PyTree,
    z_below: Float[Values, " B *below"],
    error: Float[Values, " B *here"],
    delta: Float[Values, " B *below"],
) -> PyTree:
    """(∂feedback(e, z_below, error)/∂e)ᵀ δ, summed over the batch: for a dense layer δᵀ error."""
    _, vjp = jax.vjp(lambda e: feedback(layer, e, z_below, error), e)
    return vjp(delta)[0]


def dtype(theta: PyTree, z_below: Values) -> jnp.dtype:
    """What a layer computes in: its parameters' dtype, or, without any, that of its input.

    Inputs of integers or booleans are computed with as floats.
    """
    floating = [a for a in jax.tree.leaves(theta) if jnp.issubdtype(a.dtype, jnp.floating)]
    if floating or jnp.issubdtype(z_below.dtype, jnp.floating):
        return jnp.result_type(*(floating or [z_below]))
    return jnp.result_type(float)


def batch_axes(array: Array, parameters: PyTree) -> tuple[str, ...]:
    """The mesh axes over which `jax.shard_map` splits a mini-batch: not those of the parameters."""
    axes = _varies_over(array).difference(*map(_varies_over, jax.tree.leaves(parameters)))
    return tuple(sorted(axes))


def _varies_over(array: Array) -> frozenset[str]:
    return jax.typeof(array).manual_axis_type.varying


def mean_over_examples(z: Array) -> Array:
    """The mean over a mini-batch of what each example has, for layers that look across it.

    Split over devices by sharding it is over all of them. JAX has no such mean inside
    `jax.shard_map`, nor on a mesh with explicit axes.
    """
    return jax.lax.pmean(z, EXAMPLES)


def remember(
    layer: Layer, theta: PyTree, state: PyTree, z_below: Shaped[Values, " B *below"]
) -> PyTree:
    """The layer's state after a mini-batch; running statistics, say."""
    mapped = jax.vmap(layer.remember, (None, None, 0), out_axes=None, axis_name=EXAMPLES)
    return mapped(theta, state, jnp.asarray(z_below, dtype(theta, z_below)))


def recall(theta: PyTree, state: PyTree) -> PyTree:
    """A layer's parameters with its state among them: the two trees, merged."""
    if isinstance(state, dict):
        return theta | {
            name: recall(theta[name], kept) if name in theta else kept
            for name, kept in state.items()
        }
    # Of a unit of several layers, each with an entry.
    return tuple(map(recall, theta, state)) if state else theta


def _in_place_of_theta(layer: Layer, e: PyTree) -> PyTree:
    """E with zeros for what it does not mirror: a bias, on which no derivative depends."""
    shapes = jax.eval_shape(
        lambda key: layer.init(key, lambda key, shape: jnp.zeros(shape)),
        jax.eval_shape(jax.random.key, 0),  # nothing is computed for the shapes
    )
    return _completed(e, shapes, jnp.result_type(*jax.tree.leaves(e)))


def _completed(e: PyTree, shapes: PyTree, dtype: jnp.dtype) -> PyTree:
    if not isinstance(shapes, dict):
        return jnp.zeros(shapes.shape, dtype) if e is None else e
    # Of what E lacks altogether every part is zeros.
    return {name: _completed((e or {}).get(name), s, dtype) for name, s in shapes.items()}


def size(shape: tuple[int, ...]) -> int:
    """Number of units in a shape."""
    return math.prod(shape)
