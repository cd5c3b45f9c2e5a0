"""What one looks at to see whether, and how, a rule learns. Pure functions, jittable."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from lrajax.base import Algorithm, Batch, Calculations, Loss, Network, Params, PyTree
from lrajax.losses import gaussian
from lrajax.training import TrainState, all_finite
from lrajax.transforms import to_unit_range


@jax.jit
def angle(a: PyTree, b: PyTree) -> Array:
    """Angle in degrees, [], between two trees of the same structure, each taken as one vector.

    NaN where either is zero or empty: there is no angle then.
    """
    (a, _), (b, _) = to_unit_range(a), to_unit_range(b)
    norm_a, norm_b = optax.tree.norm(a), optax.tree.norm(b)
    a, b = optax.tree.scale(norm_b, a), optax.tree.scale(norm_a, b)
    # By the half angle: a small one's cosine rounds to 1 or to its neighbour, 0.02 degrees off.
    apart, together = optax.tree.norm(optax.tree.sub(a, b)), optax.tree.norm(optax.tree.add(a, b))
    half = jnp.where(norm_a * norm_b > 0, jnp.arctan2(apart, together), jnp.nan)
    return jnp.degrees(2 * half)


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
    orientation of W. Feedback that has not the shape of W (DFA's, that of several rules) is left
    out.
    """
    has_mirror = np.array([_mirrors(theta, e) for theta, e in zip(*params, strict=True)])
    return mirror_angles(params)[has_mirror]


def mirror_angles(params: Params) -> Array:
    """As `feedback_angles`, but for every layer, [n_layers]: NaN where no E mirrors W."""
    return jnp.stack(list(map(_mirror_angle, *params)))


def _mirror_angle(theta: PyTree, e: PyTree) -> Array:
    return angle({name: theta[name] for name in e}, e) if _mirrors(theta, e) else jnp.array(jnp.nan)


def _mirrors(theta: PyTree, e: PyTree) -> bool:
    """Whether there is an E, and of the names and shapes of what it mirrors."""
    return (
        isinstance(e, dict)
        and len(e) > 0
        and all(name in theta and theta[name].shape == value.shape for name, value in e.items())
    )


def total_discrepancy(
    network: Network, lambda_: Calculations, local_loss: Loss = gaussian
) -> Array:
    """D(y, x) of each example, [B]: the sum of every layer's local loss (Figure 1b).

    Args:
      network: gives the output's loss.
      lambda_: what `compute_targets` found, of a rule whose last target is the label.
      local_loss: loss of the hidden layers.
    """
    hidden = map(local_loss.value, lambda_.targets[:-1], lambda_.z[:-1])
    return sum(hidden, network.output_loss.value(lambda_.targets[-1], lambda_.z[-1]))


def update_angles_to_backprop(
    backprop: Algorithm,
    algo: Algorithm,
    params: Params,
    batch: Batch,
    *,
    key: PRNGKeyArray | None = None,
) -> tuple[Array, Array]:
    """Per-layer and overall angle between a rule's update and backprop's on the same parameters.

    Args:
      backprop: `lrajax.backprop` on the same network.
      algo: the rule to compare.
      params: the rule's parameters.
      batch: a mini-batch.
      key: passed to both, so that layers that draw (`lrajax.stochastic`) draw the same for both.

    Returns:
      Degrees, [n_layers] and [].
    """
    updates = algo.calc_updates(params, algo.compute_targets(params, batch, key=key))
    reference = backprop.calc_updates(params, backprop.compute_targets(params, batch, key=key))
    return layer_angles(updates, reference), update_angle(updates, reference)


def begin_watch(state: TrainState) -> TrainState:
    """A state in which `watch` can keep its record."""
    return state._replace(observed=jnp.zeros(len(_names(state.params)), int))


def end_watch(state: TrainState) -> TrainState:
    """The state without the record."""
    return state._replace(observed=())


def watch(state: TrainState, lambda_: Calculations, updates: Params) -> Array:
    """Records where non-finite numbers first appear: an observer for `make_train_step`.

    Returns:
      The first step, from 1 at the start of the run, at which each of `quantities` was not finite,
      int32 [n]; 0 for never.
    """
    values = quantities(lambda_, updates, state.params).values()
    finite = jnp.stack(list(map(all_finite, values)))
    return jnp.where((state.observed == 0) & ~finite, state.step, state.observed)


def quantities(lambda_: Calculations, updates: Params, params: Params) -> dict[str, PyTree]:
    """What a step computes, by name (layers from 0), in the order in which it does."""
    depth = range(len(lambda_.h))
    named: dict[str, PyTree] = {}
    for l in depth:
        named |= {f"h/{l}": lambda_.h[l], f"z/{l}": lambda_.z[l]}
    for l in reversed(depth):
        named |= {f"targets/{l}": lambda_.targets[l], f"errors/{l}": lambda_.errors[l]}
    for kind, tree in (("updates", updates), ("params", params)):
        for part, entries in tree._asdict().items():
            named |= {
                f"{kind}/{part}/{l}": entry
                for l, entry in enumerate(entries)
                if jax.tree.leaves(entry)
            }
    return named


def first_nonfinite(params: Params, first: Array) -> str | None:
    """The earliest step and quantity that `watch` has recorded, in words; None if there is none.

    Args:
      params: of the watched state, for its structure.
      first: what `watch` gave, int32 [n].
    """
    steps = np.asarray(first)
    if not steps.any():
        return None
    step = steps[steps > 0].min()
    # Of the quantities that went wrong in that step, the one computed first is the culprit.
    return f"step {step}, {_names(params)[np.argmax(steps == step)]}"


def _names(params: Params) -> list[str]:
    # The names depend on the structure alone, so anything with an entry a layer stands in for Λ.
    lambda_ = Calculations(params.forward[0], *[params.forward] * 4)
    return list(quantities(lambda_, params, params))
