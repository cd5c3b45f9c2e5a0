"""Random feedback alignment (Lillicrap et al. 2016).

    e^{l-1} = E^l δ^l,   δ^l = e^l ⊗ φ′(h^l),   δ^L = z^L - y,   E^l random and fixed
    ΔW^l    = δ^l (z^{l-1})ᵀ

Back-propagation with a fixed random matrix in place of each (W^l)ᵀ.
"""

import jax

from lrajax import initializers, layers
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network, Params
from lrajax.steps import (
    check_reduction,
    fixed_feedback_updates,
    forward,
    from_errors,
    init_feedback,
    init_forward,
    output_error,
    predict,
)


@factory
def rfa(
    network: Network,
    *,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes random feedback alignment for a network.

    Args:
      network: the network to train.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` is E of layer `l`, in the orientation of W, and its updates
      are zero.

    Raises:
      ValueError: an unknown reduction.
    """
    check_reduction(reduction)

    def init(key):
        w_key, e_key = jax.random.split(key)
        return Params(
            forward=init_forward(network, w_key, w_init),
            feedback=init_feedback(network.layers, e_key, e_init),
        )

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        delta = output_error(network, batch, h[-1], z[-1])
        errors = [delta]
        for l in reversed(range(1, len(network.layers))):
            # e^{l-1} = E^l δ^l
            error = layers.feedback(network.layers[l], params.feedback[l], z[l - 1], delta)
            delta = layers.vjp_post(network.layers[l - 1], h[l - 1], error)
            errors.insert(0, error)
        return from_errors(batch, h, z, errors)

    return Algorithm(
        init=init,
        compute_targets=compute_targets,
        calc_updates=lambda params, lambda_: fixed_feedback_updates(
            network, params, lambda_, reduction
        ),
        predict=lambda params, x: predict(network, params.forward, x),
        loss=network.output_loss.value,
        network=network,
    )
