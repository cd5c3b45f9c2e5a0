"""Direct feedback alignment (Nøkland 2016).

e^{l-1} = E^l (z^L - y),   E^l random and fixed, from the output straight to layer l - 1
ΔW^l    = (e^l ⊗ φ′(h^l)) (z^{l-1})ᵀ,   ΔW^L = (z^L - y) (z^{L-1})ᵀ
"""

import jax

from lrajax import initializers, layers
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network, Params
from lrajax.steps import (
    check_reduction,
    fixed_feedback_updates,
    flat,
    forward,
    from_errors,
    init_feedback,
    init_forward,
    output_error,
    predict,
)


@factory
def dfa(
    network: Network,
    *,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes direct feedback alignment for a network.

    Args:
      network: the network to train.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` is `{"w": [n_below, n_output]}`, the matrix that carries the
      output's error to the activity below layer `l`, and its updates are zero.

    Raises:
      ValueError: an unknown reduction.
    """
    check_reduction(reduction)
    n_output = layers.size(network.layers[-1].out_shape)
    # Layer l's shortcut stands between the activity below l and the output; only its feedback is
    # used. A dense one serves every kind of layer, its activity flattened.
    shortcuts = [layers.dense(layers.size(layer.in_shape), n_output) for layer in network.layers]

    def init(key):
        w_key, e_key = jax.random.split(key)
        return Params(
            forward=init_forward(network, w_key, w_init),
            feedback=init_feedback(shortcuts, e_key, e_init),
        )

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        output_delta = output_error(network, batch, h[-1], z[-1])
        delta = flat(output_delta)

        def carried(shortcut, e, z_below):
            """e^{l-1} = E^l (z^L - y)."""
            return layers.feedback(shortcut, e, flat(z_below), delta).reshape(z_below.shape)

        hidden = map(carried, shortcuts[1:], params.feedback[1:], z[:-1])
        return from_errors(batch, h, z, (*hidden, output_delta))

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
