"""Activations by name, among them some without a useful derivative.

`sign` and `threshold` need a rule that asks for no derivative, such as LRA-E with
`derivative=False`. For backprop, `sign_ste` and `threshold_ste` have their values, but the slope 1
where |h| <= 1 and 0 beyond, that of a hard tanh (Hubara et al. 2016).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax.checks import between, one_of, positive

Activation = Callable[[Array], Array]


def kwta(fraction: float) -> Activation:
    """The k winners take all: a layer's largest values stay, all others are 0.

    Args:
      fraction: share of the layer's units that win, in (0, 1]; at least one does, and more than
        their share where values are equal.
    """
    positive("fraction", fraction)
    between("fraction", fraction, 0, 1)

    def post(h):
        winners = math.ceil(round(fraction * h.size, 6))  # 0.07 * 100 is more than 7
        least = jax.lax.top_k(h.ravel(), max(1, winners))[0][-1]
        return jnp.where(h >= least, h, 0)

    return post


def identity(h: Array) -> Array:
    """The pre-activity itself."""
    return h


def threshold(h: Array) -> Array:
    """1 where h > 0, else 0."""
    return (h > 0).astype(h.dtype)


def divisive(h: Array) -> Array:
    """Divisive normalisation: squared rectified drives compete (Heeger 1992)."""
    drive = jax.nn.relu(h) ** 2
    return drive / (1 + drive.mean())


def with_slope_of(smooth: Activation, hard: Activation) -> Activation:
    """The values of `hard` with the derivative of `smooth`: a straight-through estimator."""

    def post(h):
        value = smooth(h)
        # The difference is 0 exactly, but its derivative is not.
        return value - jax.lax.stop_gradient(value) + jax.lax.stop_gradient(hard(h))

    return post


ACTIVATIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "sine": jnp.sin,
    "identity": identity,
    "softmax": jax.nn.softmax,
    "sign": jnp.sign,
    "threshold": threshold,
    "sign_ste": with_slope_of(jax.nn.hard_tanh, jnp.sign),
    "threshold_ste": with_slope_of(jax.nn.hard_tanh, threshold),
    "kwta": kwta(0.1),
    "divisive": divisive,
}
"""The activations that have a name."""


def parse_activation(text: str | Activation) -> Activation:
    """The activation that a text names: a key of `ACTIVATIONS`, or `kwta:FRACTION`.

    A function of one example's h is an activation itself.

    Raises:
      ValueError: an unknown activation, or a fraction that is none.
    """
    if callable(text):
        return text
    if not isinstance(text, str):
        raise ValueError(f"activation={text!r} must be a text or a function of h")
    name, colon, fraction = text.partition(":")
    if not colon:
        one_of("activation", name, ACTIVATIONS)
        return ACTIVATIONS[name]
    try:
        if name == "kwta":
            return kwta(float(fraction))
    except ValueError:
        pass
    raise ValueError(
        f"activation={text!r}: only kwta takes a number, the fraction of winners, as in kwta:0.1"
    )
