"""Optax transformations for local updates."""

import jax
import jax.numpy as jnp
import optax

from lrajax.base import PyTree


def normalize_updates(eps: float = 0.0) -> optax.GradientTransformation:
    """Scales the update of every weight matrix and bias vector to unit Euclidean norm.

    A rule's local updates shrink or grow from layer to layer with the gain of its feedback path;
    normalised, every layer moves by the learning rate, however small or large its update. The zero
    updates of fixed parameters stay zero. The authors' code of LRA-E contains it, commented out.
    Chain it before the optimiser: `optax.chain(normalize_updates(), optax.sgd(lr))`.

    Args:
      eps: added to the norm, >= 0: updates well below it stay small.
    """

    def unit(u):
        scaled, exponent = to_unit_range(u)
        norm = jnp.linalg.norm(scaled.ravel()) + jnp.ldexp(
            jnp.asarray(eps, scaled.dtype), -exponent
        )
        return (scaled / jnp.where(norm > 0, norm, 1)).astype(u.dtype)

    def normalize(update, params):
        del params
        return jax.tree.map(unit, update)

    return optax.stateless(normalize)


def to_unit_range(tree: PyTree) -> tuple[PyTree, jax.Array]:
    """A tree times the power of two that brings its largest magnitude into [½, 1).

    The scaling is exact, and squares of the numbers neither overflow nor vanish, as 1e-30² does in
    float32. Half precision becomes float32.

    Args:
      tree: of floating arrays.

    Returns:
      The scaled tree, and the exponent e of the 2^e, int32 [], that it was divided by.
    """
    tree = jax.tree.map(lambda u: u.astype(jnp.promote_types(u.dtype, jnp.float32)), tree)
    magnitudes = jax.tree.map(lambda u: jnp.abs(u).max(initial=0), tree)
    least: PyTree = 0.0
    largest = jax.tree.reduce(jnp.maximum, magnitudes, least)
    _, exponent = jnp.frexp(largest)
    return jax.tree.map(lambda u: jnp.ldexp(u, -exponent), tree), exponent
