"""What rounding would take from short displacements: by how much longer to take them.

Rules that learn from the change of an activity under a small displacement of h lose it where h does
not resolve that. They take it longer by a power of two, and the change shorter by as much.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import layers


def lengthened(displacement: Array, h: Array) -> tuple[Array, Array]:
    """The displacement, as long as h resolves it, and what shortens the change again."""
    k = resolvable(displacement, h)
    return _two_to(k, h) * displacement, _two_to(-k, h)


def resolvable(displacement: Array, h: Array) -> Array:
    """Powers of two by which each example's displacement is to be longer, >= 0, int [B, 1, ...].

    Its largest number then reaches half of the digits of h's largest: a shorter one loses more to
    rounding, a longer one to the curvature of φ. Of wide layers some units tell, for a look at all
    takes XLA's CPU longer than the rest of the hop; 0 where these have no displacement.
    """
    limits, size = jnp.finfo(h.dtype), _largest(displacement)
    missing = _exponent(_largest(h)) - _exponent(size) - (limits.nmant + 1) // 2
    return jnp.where(size > 0, missing.clip(0, -limits.minexp), 0)


def _largest(array: Array) -> Array:
    """The largest size of some of an example's numbers, eight if it has them, [B, 1, ...]."""
    size, features = layers.size(array.shape[1:]), array.shape[-1]
    # Primes, so that of maps several features are among them: one may have no error at all.
    primes = (prime for prime in (31, 29, 7, 5) if size >= 8 * prime and features % prime)
    stride = next(primes, 1)
    largest = jnp.abs(array.reshape(len(array), size)[:, ::stride]).max(axis=1)
    return largest.reshape(-1, *(1,) * (array.ndim - 1))


# Both from the bits of the numbers: XLA's CPU fuses that with what it is a factor of, jnp.frexp and
# jnp.ldexp, or a quotient, it does not.


def _exponent(array: Array) -> Array:
    """The exponent of numbers >= 0: e of 1.5 · 2ᵉ."""
    limits = jnp.finfo(array.dtype)
    biased = jax.lax.bitcast_convert_type(array, f"int{limits.bits}") >> limits.nmant
    return biased + (limits.minexp - 1)


def _two_to(k: Array, like: Array) -> Array:
    """2ᵏ in the dtype of another array, of integers which it holds as normal numbers."""
    limits = jnp.finfo(like.dtype)
    biased = k.astype(f"int{limits.bits}") + 1 - limits.minexp
    return jax.lax.bitcast_convert_type(biased << limits.nmant, like.dtype)
