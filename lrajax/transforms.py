"""Optax transformations for local updates."""

import jax
import jax.numpy as jnp
import optax


def normalize_updates(eps: float = 1e-8) -> optax.GradientTransformation:
    """Scales the update of every weight matrix and bias vector to unit Euclidean norm.

    A rule's local updates shrink or grow from layer to layer with the gain of its feedback path;
    normalised, every layer moves by the learning rate. The authors' code of LRA-E contains it,
    commented out. Chain it before the optimiser: `optax.chain(normalize_updates(), optax.sgd(lr))`.

    Args:
      eps: added to the norm, so that the zero updates of fixed parameters stay zero.
    """

    def normalize(update, params):
        del params
        return jax.tree.map(lambda u: u / (jnp.linalg.norm(u.ravel()) + eps), update)

    return optax.stateless(normalize)
