"""Back-propagation of errors (Rumelhart, Hinton and Williams 1988), through local products.

    e^{l-1} = (W^l)ᵀ δ^l,   δ^l = e^l ⊗ φ′(h^l),   δ^L = z^L - y
    ΔW^l    = δ^l (z^{l-1})ᵀ

Equal to `jax.grad` of the output loss; the yardstick for the other rules.
"""

from lrajax import initializers, layers
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network, Params
from lrajax.steps import (
    check_reduction,
    fixed_feedback_updates,
    forward,
    from_errors,
    init_forward,
    no_feedback,
    output_error,
    predict,
)


@factory
def backprop(
    network: Network, *, reduction: str = "sum", w_init: Initializer = initializers.GLOROT
) -> Algorithm:
    """Makes back-propagation of errors for a network.

    Args:
      network: the network to train.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.

    Returns:
      The rule; its `params.feedback` is empty.

    Raises:
      ValueError: an unknown reduction.
    """
    check_reduction(reduction)

    def init(key):
        return Params(init_forward(network, key, w_init), no_feedback(network))

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        delta = output_error(network, batch, h[-1], z[-1])
        errors = [delta]
        for l in reversed(range(1, len(network.layers))):
            # e^{l-1} = (W^l)ᵀ δ^l
            error = layers.vjp_below(network.layers[l], params.forward[l], z[l - 1], delta)
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
