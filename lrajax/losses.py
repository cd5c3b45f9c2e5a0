"""Losses and their error units, each pair side by side with its equation number in the paper.

`y` is the target, `z` the activity, both [B, ...]; `value` sums over all but the first dimension.
"""

import jax.numpy as jnp
from jaxtyping import Array

from lrajax.base import Loss


def _per_example(terms: Array) -> Array:
    return terms.reshape(terms.shape[0], -1).sum(axis=1)


def _above_zero(z: Array) -> Array:
    # A float32 softmax reaches 0 for a confident mistake; its loss is then large, not infinite.
    return jnp.maximum(z, jnp.finfo(z.dtype).tiny)


def _log(z: Array) -> Array:
    return jnp.log(_above_zero(z))


# Equation 2, without the factor 1/2 that the paper's loss has and its error unit has not.
# With a softmax, -y/z becomes z - y with respect to the pre-activity, which is what rules use.
categorical = Loss(
    value=lambda y, z: _per_example(-y * _log(z)),
    error=lambda y, z: -y / _above_zero(z),
)

# Its canonical link is the sigmoid: outputs, such as pixels, that are each on or off.
bernoulli = Loss(
    value=lambda y, z: _per_example(-y * _log(z) - (1 - y) * _log(1 - z)),
    error=lambda y, z: (1 - y) / _above_zero(1 - z) - y / _above_zero(z),
)

# Equation 3 with the paper's fixed variance, sigma^2 = 1/2.
gaussian = Loss(
    value=lambda y, z: _per_example((y - z) ** 2),
    error=lambda y, z: -2 * (y - z),
)

# Equation 4.
cauchy = Loss(
    value=lambda y, z: _per_example(jnp.log1p((y - z) ** 2)),
    error=lambda y, z: -2 * (y - z) / (1 + (y - z) ** 2),
)

# The cost of equilibrium propagation (Scellier and Bengio 2017); its link is the identity.
half_squared = Loss(
    value=lambda y, z: _per_example((y - z) ** 2) / 2,
    error=lambda y, z: z - y,
)

LOCAL_LOSSES = {"gaussian": gaussian, "cauchy": cauchy}
