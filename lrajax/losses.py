"""Losses and their error units, each pair side by side with its equation number in the paper.

`y` is the target, `z` the activity, both [B, ...]; `value` sums over all but the first dimension.
Both compute in the dtype of z.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lrajax.base import Loss
from lrajax.layers.activations import identity

__all__ = ["LOCAL_LOSSES", "bernoulli", "categorical", "cauchy", "gaussian", "half_squared"]

Unit = Callable[[Array, Array], Array]


def _per_example(terms: Array) -> Array:
    return terms.sum(axis=tuple(range(1, terms.ndim)))


def _above_zero(z: Array) -> Array:
    # A float32 softmax reaches 0 for a confident mistake; its loss is then large, not infinite.
    return jnp.maximum(z, jnp.finfo(z.dtype).tiny)


def _log(z: Array) -> Array:
    return jnp.log(_above_zero(z))


def _loss(value: Unit, error: Unit, **about: Any) -> Loss:
    """A loss that computes in the activity's dtype, whatever the labels come in."""

    def in_dtype_of_z(function: Unit) -> Unit:
        return lambda y, z: function(jnp.asarray(y, z.dtype), z)

    return Loss(in_dtype_of_z(value), in_dtype_of_z(error), **about)


categorical = _loss(
    value=lambda y, z: _per_example(-y * _log(z)),
    error=lambda y, z: -y / _above_zero(z),
    link=jax.nn.softmax,
    fits=lambda z: bool((z >= 0).all() and np.allclose(z.sum(axis=-1), 1, atol=0.1)),
)
"""Equation 2, without the factor 1/2 that the paper's loss has and its error unit has not.

With a softmax, -y/z becomes z - y with respect to the pre-activity, which is what rules use.
"""

bernoulli = _loss(
    value=lambda y, z: _per_example(-y * _log(z) - (1 - y) * _log(1 - z)),
    error=lambda y, z: (1 - y) / _above_zero(1 - z) - y / _above_zero(z),
    link=jax.nn.sigmoid,
    fits=lambda z: bool((z >= 0).all() and (z <= 1).all()),
)
"""Of outputs, such as pixels, that are each on or off; its canonical link is the sigmoid."""

gaussian = _loss(
    value=lambda y, z: _per_example((y - z) ** 2),
    error=lambda y, z: -2 * (y - z),
)
"""Equation 3 with the paper's fixed variance, sigma^2 = 1/2."""

cauchy = _loss(
    value=lambda y, z: _per_example(jnp.log1p((y - z) ** 2)),
    error=lambda y, z: -2 * (y - z) / (1 + (y - z) ** 2),
)
"""Equation 4."""

half_squared = _loss(
    value=lambda y, z: _per_example((y - z) ** 2) / 2,
    error=lambda y, z: z - y,
    link=identity,
)
"""The cost of equilibrium propagation (Scellier and Bengio 2017)."""

LOCAL_LOSSES = {"gaussian": gaussian, "cauchy": cauchy}
"""What LRA-E compares an activity with its target by, by name."""
