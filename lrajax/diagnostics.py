"""What one looks at to see whether, and how, a rule learns. Pure functions, jittable."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax.base import Batch, Calculations, Loss, Network, Params, PyTree
from lrajax.losses import gaussian


def angle(a: PyTree, b: PyTree) -> Array:
    """Angle in degrees, [], between two trees of the same structure, each taken as one vector.

    NaN where either is zero or empty: there is no angle then.
    """
    dot, norm_a, norm_b = (_inner(u, v) for u, v in ((a, b), (a, a), (b, b)))
    cosine = dot / jnp.sqrt(norm_a * norm_b)
    return jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))


def _inner(a: PyTree, b: PyTree) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda u, v: (u * v).sum(), a, b), jnp.zeros(()))


def layer_angles(updates: Params, reference: Params) -> Array:
    """Angle in degrees between two rules' forward updates, for each layer, [n_layers].

    Figure 1(a) compares a rule with `backprop` on the same forward parameters and mini-batch:
    `layer_angles(updates, bp.calc_updates(params, bp.compute_targets(params, batch)))`.
    Backprop reads `params.forward` alone, so it takes any rule's params.
    """
    return jnp.stack(list(map(angle, updates.forward, reference.forward)))


def update_angle(updates: Params, reference: Params) -> Array:
    """Angle in degrees, [], between two rules' forward updates over all layers at once."""
    return angle(updates.forward, reference.forward)


def feedback_angles(params: Params) -> Array:
    """Angle in degrees between E and Wᵀ, for each layer that has an E, [n_feedback].

    For the rules whose feedback mirrors the forward weights (RFA, LRA-E); both are stored in the
    orientation of W.
    """
    mirrored = [(theta, e) for theta, e in zip(*params, strict=True) if e]
    return jnp.stack([angle({name: theta[name] for name in e}, e) for theta, e in mirrored])


def total_discrepancy(
    network: Network, lambda_: Calculations, local_loss: Loss = gaussian
) -> Array:
    """D(y, x) of each example, [B]: the sum of every layer's local loss (Figure 1b).

    Args:
      network: gives the output's loss.
      lambda_: what a rule's `compute_targets` found.
      local_loss: loss of the hidden layers.
    """
    hidden = map(local_loss.value, lambda_.targets[:-1], lambda_.z[:-1])
    return sum(hidden, network.output_loss.value(lambda_.targets[-1], lambda_.z[-1]))


def update_angles_to_backprop(
    backprop, algo, params: Params, batch: Batch, *, key=None
) -> tuple[Array, Array]:
    """Per-layer and overall angle between a rule's update and backprop's on the same parameters.

    Args:
      backprop: `lrajax.backprop` on the same network.
      algo: the rule to compare.
      params: the rule's parameters.
      batch: a mini-batch.
      key: passed to the rule's `compute_targets`.

    Returns:
      Degrees, [n_layers] and [].
    """
    updates = algo.calc_updates(params, algo.compute_targets(params, batch, key=key))
    reference = backprop.calc_updates(params, backprop.compute_targets(params, batch))
    return layer_angles(updates, reference), update_angle(updates, reference)
