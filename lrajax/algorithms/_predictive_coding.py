"""Predictive coding (Whittington and Bogacz 2017): inference, then learning.

    F    = Σ_{l<L} ½ ‖x^l - μ^l‖² + loss(y, μ^L),   μ^l = φ(h^l),   h^l = W^l x^{l-1} + b^l
    e^l  = dF/dμ^l = μ^l - x^l,   e^L = dF/dh^L = μ^L - y              error units
    x^l <- x^l - ε dF/dx^l = x^l + ε (e^l - (W^{l+1})ᵀ δ^{l+1}),   δ^l = e^l ⊗ φ′(h^l),   δ^L = e^L
    ΔW^l = dF/dW^l = δ^l (x^{l-1})ᵀ

The input x^0 and the label are clamped. The states x^l of the hidden layers begin as the
feed-forward activities, where no unit but the output's has an error, and descend F together; the
update follows at the states they reach. As in equilibrium propagation the feedback path is the
transpose of the forward one. With n small steps the k-th layer below the output gets backprop's
update times (n choose k) ε^k; settled states have taken part of the output's error upon themselves,
and the update is another.

The publication's states are pre-activities that predict by W φ(x), and its output is Gaussian; here
they are post-activities, as the layers have them, and the output has the network's loss.
"""

import jax
import jax.numpy as jnp

from lrajax import initializers, layers
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least, between, positive
from lrajax.steps import (
    check_reduction,
    forward,
    init_forward,
    labels,
    local_updates,
    no_feedback,
    output_error,
    predict,
)


def predictive_coding(
    network: Network,
    *,
    steps: int = 20,
    step_size: float = 0.05,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes predictive coding for a network.

    Args:
      network: the network to train.
      steps: steps of relaxation, >= 1. An error moves down one layer a step: with fewer steps than
        hidden layers the lowest layers learn nothing.
      step_size: Euler step ε of the relaxation, in (0, 1].
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the weights.

    Returns:
      The rule; its `params.feedback` is empty. In Λ, `z` holds the feed-forward activities,
      `targets` the relaxed states, `errors` their difference, and `aux` δ at the relaxed states.

    Raises:
      ValueError: a hyperparameter out of range, an unknown reduction.
    """
    at_least("steps", steps, 1)
    positive("step_size", step_size)
    between("step_size", step_size, 0, 1)
    check_reduction(reduction)

    def init(key):
        return Params(init_forward(network, key, w_init), no_feedback(network))

    def errors_at(params, h_first, x, batch):
        """e^l of the hidden layers and δ^l of every one, given the states of the hidden ones."""
        h = (h_first, *map(layers.pre, network.layers[1:], params.forward[1:], x))
        *mu, output = map(layers.post, network.layers, h)
        hidden = tuple(map(jnp.subtract, mu, x))
        deltas = map(layers.vjp_post, network.layers[:-1], h[:-1], hidden)
        return hidden, (*deltas, output_error(network, batch, h[-1], output))

    def relax(params, h_first, x, batch):
        def step(_, x):
            errors, deltas = errors_at(params, h_first, x, batch)
            above = map(layers.vjp_below, network.layers[1:], params.forward[1:], x, deltas[1:])
            return tuple(
                x_l + step_size * (e - feedback)
                for x_l, e, feedback in zip(x, errors, above, strict=True)
            )

        return jax.lax.fori_loop(0, steps, step, x)

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        output = output_error(network, batch, h[-1], z[-1])
        # The input is clamped, so the first pre-activity stays what it is.
        x = relax(params, h[0], z[:-1], batch)
        _, deltas = errors_at(params, h[0], x, batch)
        errors = (*map(jnp.subtract, z[:-1], x), output)
        return Calculations(batch.x, h, z, (*x, labels(batch, z[-1])), errors, aux=deltas)

    def calc_updates(params, lambda_):
        relaxed = lambda_._replace(z=lambda_.targets)
        updates = local_updates(network, params.forward, relaxed, lambda_.aux, reduction)
        return Params(updates, no_feedback(network))

    return Algorithm(
        init=init,
        compute_targets=compute_targets,
        calc_updates=calc_updates,
        predict=lambda params, x: predict(network, params.forward, x),
        loss=network.output_loss.value,
        network=network,
    )
