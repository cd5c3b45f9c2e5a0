"""Layers, and the local products over mini-batches that learning rules are made of.

`dense` builds a layer. The functions below it are the only way a rule touches one: each takes the
layer first, maps it over the batch and, where a derivative is asked for, puts the `vmap` inside the
vector-Jacobian product, so that no weight gradient of a single example is ever formed.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax._checks import one_of, positive
from lrajax.base import Layer, PyTree

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "identity": lambda h: h,
    "softmax": jax.nn.softmax,
}


def dense(n_in: int, n_out: int, activation: str = "tanh") -> Layer:
    """A fully connected layer, h = z W + b (equation 1 with biases; W is [n_in, n_out]).

    Raises:
      ValueError: a width below 1, or an unknown activation.
    """
    positive("n_in", n_in)
    positive("n_out", n_out)
    one_of("activation", activation, ACTIVATIONS)

    def init(key, initializer):
        return {"w": initializer(key, (n_in, n_out)), "b": jnp.zeros(n_out)}

    def init_feedback(key, initializer):
        return {"w": initializer(key, (n_in, n_out))}

    return Layer(
        in_shape=(n_in,),
        out_shape=(n_out,),
        init=init,
        init_feedback=init_feedback,
        pre=lambda theta, z: z @ theta["w"] + theta["b"],
        post=ACTIVATIONS[activation],
        # E is kept in the orientation of W, so that no transpose is ever materialised.
        feedback=lambda e, error: e["w"] @ error,
    )


def pre(layer: Layer, theta: PyTree, z_below: Array) -> Array:
    """Pre-activity h, [B, *out_shape]."""
    return jax.vmap(layer.pre, (None, 0))(theta, z_below)


def post(layer: Layer, h: Array) -> Array:
    """Post-activity z = φ(h), [B, *out_shape]."""
    return jax.vmap(layer.post)(h)


def feedback(layer: Layer, e: PyTree, error: Array) -> Array:
    """Error (or activity) of this layer carried down by the feedback weights, [B, *in_shape]."""
    return jax.vmap(layer.feedback, (None, 0))(e, error)


def vjp_theta(layer: Layer, theta: PyTree, z_below: Array, delta: Array) -> PyTree:
    """(∂h/∂θ)ᵀ δ, summed over the batch: for a dense layer z_belowᵀ δ and Σ δ."""
    _, vjp = jax.vjp(lambda theta: pre(layer, theta, z_below), theta)
    return vjp(delta)[0]


def vjp_below(layer: Layer, theta: PyTree, z_below: Array, delta: Array) -> Array:
    """(∂h/∂z_below)ᵀ δ, [B, *in_shape]: for a dense layer δ Wᵀ."""
    _, vjp = jax.vjp(lambda z: pre(layer, theta, z), z_below)
    return vjp(delta)[0]


def vjp_post(layer: Layer, h: Array, error: Array) -> Array:
    """(∂z/∂h)ᵀ e, [B, *out_shape]: e ⊗ φ′(h) for a pointwise activation."""
    _, vjp = jax.vjp(lambda h: post(layer, h), h)
    return vjp(error)[0]


def vjp_feedback(layer: Layer, e: PyTree, error: Array, delta: Array) -> PyTree:
    """(∂feedback(e, error)/∂e)ᵀ δ, summed over the batch: for a dense layer δᵀ error."""
    _, vjp = jax.vjp(lambda e: feedback(layer, e, error), e)
    return vjp(delta)[0]


def size(shape: tuple[int, ...]) -> int:
    """Number of units in a shape."""
    return math.prod(shape)
