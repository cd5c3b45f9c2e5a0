"""Error-driven local representation alignment, LRA-E (this paper, Algorithm 1).

    e^L       = z^L - y                               error unit of the output        (2)
    Δh^{l-1}  = E^l e^l                               displacement                    (5)
    y^{l-1}   = φ(h^{l-1} - β Δh^{l-1})               target                          (6)
    e^{l-1}   = -2 (y^{l-1} - z^{l-1})                Gaussian error unit             (3)
    ΔW^l      = (e^l ⊗ φ′(h^l)) (z^{l-1})ᵀ            update with derivatives, V1     (7)
    ΔW^l      = e^l (z^{l-1})ᵀ                        update without, V2              (8)
    ΔE^l      = γ (ΔW^l)ᵀ

Two conventions differ from the print; docs/evidence/lra_e.md gives the evidence. The output's
error unit is taken with respect to its pre-activity, in V2 as well. ΔE has the sign of ΔW, so that
E, subtracted from like W, comes to align with Wᵀ.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import initializers, layers, losses
from lrajax.algorithms._rounding import lengthened
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Calculations, Initializer, Layer, Network, Params
from lrajax.checks import at_least, one_of, positive
from lrajax.steps import (
    check_reduction,
    forward,
    init_feedback,
    init_forward,
    labels,
    local_deltas,
    local_updates,
    mirrored,
    output_error,
    predict,
    scaled,
)


@factory
def lra_e(
    network: Network,
    *,
    beta: float = 0.1,
    gamma: float = 1.0,
    local_loss: str = "gaussian",
    derivative: bool = True,
    reduction: str = "sum",
    w_init: Initializer = initializers.LRA_W,
    e_init: Initializer = initializers.LRA_E,
) -> Algorithm:
    """Makes error-driven local representation alignment, LRA-E, for a network.

    Args:
      network: the network to train.
      beta: modulation of the displacement, > 0.
      gamma: rate of the error weights relative to the forward weights, >= 0.
      local_loss: "gaussian" (equation 3) or "cauchy" (equation 4) loss of the hidden layers.
      derivative: whether ΔW has the factor φ′(h^l): True is CalcUpdates-V1, False V2.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` is E of layer `l`, in the orientation of W (E_paper = w.T).

    Raises:
      ValueError: a hyperparameter out of range, an unknown local loss or reduction.
    """
    positive("beta", beta)
    at_least("gamma", gamma, 0)
    one_of("local_loss", local_loss, losses.LOCAL_LOSSES)
    check_reduction(reduction)
    error_unit = losses.LOCAL_LOSSES[local_loss].error

    def init(key):
        w_key, e_key = jax.random.split(key)
        return Params(
            forward=init_forward(network, w_key, w_init),
            feedback=init_feedback(network.layers, e_key, e_init),
        )

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        errors = [output_error(network, batch, h[-1], z[-1])]
        targets = [labels(batch, z[-1])]
        for l in reversed(range(1, len(network.layers))):
            e = params.feedback[l]
            displacement = layers.feedback(network.layers[l], e, z[l - 1], errors[0])  # (5)
            target, error = align(
                network.layers[l - 1], h[l - 1], z[l - 1], scaled(beta, displacement), error_unit
            )
            targets.insert(0, target)
            errors.insert(0, error)
        return Calculations(batch.x, h, z, tuple(targets), tuple(errors))

    def calc_updates(params, lambda_):
        deltas = local_deltas(network, lambda_) if derivative else lambda_.errors
        updates = local_updates(network, params.forward, lambda_, deltas, reduction)  # (7) or (8)
        # ΔE = γ (ΔW)ᵀ; E is stored as its transpose already.
        mirror = mirrored(params.feedback, updates)
        return Params(updates, jax.tree.map(functools.partial(scaled, gamma), mirror))

    return Algorithm(
        init=init,
        compute_targets=compute_targets,
        calc_updates=calc_updates,
        predict=lambda params, x: predict(network, params.forward, x),
        loss=network.output_loss.value,
        network=network,
        errors_first=True,  # E is read for errors and written by updates
    )


def align(
    layer: Layer,
    h: Array,
    z: Array,
    displacement: Array,
    error_unit: Callable[[Array, Array], Array],
) -> tuple[Array, Array]:
    """Target and error of a layer, [B, *out_shape] each, once its pre-activity is displaced.

    A displacement below what h resolves is taken longer, and the change of activity in proportion:
    else errors, which shrink from layer to layer, would end where h - β Δh rounds to h.
    """
    longer, shorten = lengthened(displacement, h)
    change = (layers.post(layer, h - longer) - z) * shorten  # y - z
    return z + change, error_unit(change, jnp.zeros_like(z))  # (6), and (3) or (4) of y - z alone
