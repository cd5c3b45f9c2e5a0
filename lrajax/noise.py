"""Standard normal noise, drawn faster on CPUs than `jax.random.normal` draws it.

XLA's CPU runs the rounds of JAX's own threefry as a loop over arrays in memory, and a number of 32
bits takes a block of 64. Here the rounds are written out, so that they compile into one pass, and a
block gives two numbers: about half of the time (docs/evidence/speed.md).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)  # of NumPy: importing lrajax must not start a backend


def standard_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """Draws from N(0, 1), float32 of the given shape.

    Args:
      key: a key of any of JAX's generators; of its own threefry, a key gives the same numbers
        under `vmap` as alone.
      shape: of the result.
    """
    size = math.prod(shape)
    count = jnp.arange(-(-size // 2), dtype=jnp.uint32)
    halves = threefry2x32(_two_words(key), jnp.stack([count, jnp.zeros_like(count)]))
    # Without the barrier the rounds would be computed once for each half.
    words = jax.lax.optimization_barrier(halves).ravel()[:size]
    # 2²³ odd multiples of 2⁻²³, symmetric about 0 and never ±1, whose erf⁻¹ is infinite.
    odd = 2 * (words >> 9).astype(jnp.int32) + (1 - 2**23)
    uniform = odd.astype(jnp.float32) / 2**23
    return (math.sqrt(2) * jax.lax.erf_inv(uniform)).reshape(shape)


def _two_words(key: PRNGKeyArray) -> Array:
    """What `jax.random.bits` draws of two words, without the loop that a threefry key takes it."""
    if jax.random.key_impl(key) != "threefry2x32":
        return jax.random.bits(key, (2,), jnp.uint32)
    counter = jnp.array([[0, 0], [0, 1]], jnp.uint32)
    return jnp.bitwise_xor(*threefry2x32(jax.random.key_data(key), counter))


def threefry2x32(key: Array, counter: Array) -> Array:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011).

    Args:
      key: uint32 [2].
      counter: uint32 [2, n].

    Returns:
      Random words, uint32 [2, n].
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for i in range(5):
        for bits in ROTATIONS[i % 2]:
            x = x + y
            y = ((y << bits) | (y >> (32 - bits))) ^ x
        x = x + schedule[(i + 1) % 3]
        y = y + schedule[(i + 2) % 3] + jnp.uint32(i + 1)
    return jnp.stack([x, y])
