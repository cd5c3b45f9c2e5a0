"""Functions that turn a layer into another that draws, or whose products are coarser."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lrajax.base import Layer
from lrajax.checks import at_least, below
from lrajax.layers.activations import with_slope_of
from lrajax.layers.products import EXAMPLES


def dropout(layer: Layer, rate: float, key: PRNGKeyArray | None) -> Layer:
    """The layer with a share `rate` of its activities silenced, the others scaled up in return.

    Args:
      layer: a hidden layer.
      rate: probability that a unit is silent, in [0, 1).
      key: what the masks are drawn from, another one for each example of a mini-batch, so that
        `post` works under the functions of `lrajax.layers` alone; None leaves the layer as it is,
        for evaluation. `lrajax.stochastic` gives a rule a new key at each step.

    Raises:
      ValueError: a rate out of range.
    """
    at_least("rate", rate, 0)
    below("rate", rate, 1)
    if key is None:
        return layer

    def post(h):
        kept = jax.random.bernoulli(_of_example(key), 1 - rate, h.shape)
        return jnp.where(kept, layer.post(h) / (1 - rate), 0)

    return layer._replace(post=post)


def bernoulli(layer: Layer, key: PRNGKeyArray | None) -> Layer:
    """The layer with stochastic binary units in place of its activation, P(z = 1) = sigmoid(h).

    The derivative goes straight through the draw: it is the sigmoid's (Bengio et al. 2013). As it
    takes the place of `post`, it goes inside `layer_norm` and `dropout`.

    Args:
      layer: a hidden layer.
      key: what is drawn from, as in `dropout`; None gives the probability itself.
    """
    if key is None:
        return layer._replace(post=jax.nn.sigmoid)

    def fire(h):
        return jax.random.bernoulli(_of_example(key), jax.nn.sigmoid(h)).astype(h.dtype)

    return layer._replace(post=with_slope_of(jax.nn.sigmoid, fire))


def bfloat16(layer: Layer) -> Layer:
    """The layer with the operands of its products rounded to bfloat16 and summed in float32.

    A TPU does so by default. The layer does it on any device, to see what it costs in accuracy:
    activities and the weights "w" are rounded in `pre`, errors on their way back through it, so
    that the bias's update sums rounded errors. What is stored stays float32.

    It goes inside `residual`, whose skip is no product. A convolution with pooling averages after
    the rounding, so its operand may have more bits.
    """

    def pre(theta, z):
        rounded = {**theta, "w": _operand(theta["w"])}
        return _result(layer.pre(rounded, _operand(z)))

    return layer._replace(pre=pre, feedback=None)


def _to_bfloat16(x: Array) -> Array:
    """Rounded to 8 significant bits; XLA would take casts there and back away."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


# Rounds an operand of a product; its gradient, which is summed in float32, is a result.
_operand: jax.custom_vjp = jax.custom_vjp(_to_bfloat16)
_operand.defvjp(lambda x: (_to_bfloat16(x), None), lambda _, gradient: (_result(gradient),))

# Leaves the result of a product alone; the error is an operand on the way back.
_result: jax.custom_vjp = jax.custom_vjp(lambda h: h)
_result.defvjp(lambda h: (h, None), lambda _, gradient: (_operand(gradient),))


def _of_example(key: PRNGKeyArray) -> PRNGKeyArray:
    """A key of its own for each example that `lrajax.layers` maps over."""
    return jax.random.fold_in(key, jax.lax.axis_index(EXAMPLES))
