"""Dual propagation (Høier, Staudt and Zach 2023), in one pass down.

    a^{l-1} = (W^l)ᵀ δ^l,   δ^L = z^L - y
    s±^l    = φ(h^l ± (β/2) a^l)                   the two states of a neuron
    δ^l     = (s+^l - s-^l) / β                    their difference is the error
    ΔW^l    = δ^l (z^{l-1})ᵀ

Each unit holds two states, pushed apart by the errors above; their mean goes up, and their
difference down. No derivative is taken of the activation: δ is its difference quotient, and the
rule is backprop up to β². Where h does not resolve (β/2) a, the states are pushed further and their
difference is divided by as much. The publication relaxes both states by further passes, in which
their mean replaces z.
"""

from lrajax import initializers, layers
from lrajax.algorithms._backprop import backprop
from lrajax.algorithms._rounding import lengthened
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network, Params
from lrajax.checks import positive
from lrajax.steps import (
    check_reduction,
    forward,
    from_errors,
    local_updates,
    no_feedback,
    output_error,
    scaled,
)


@factory
def dual_prop(
    network: Network,
    *,
    beta: float = 1.0,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes dual propagation for a network.

    Args:
      network: the network to train.
      beta: β, how far apart the two states are pushed, > 0.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the weights.

    Returns:
      The rule; its `params.feedback` is empty. In Λ, `errors` holds a of the hidden layers, and
      `aux` δ of every layer.

    Raises:
      ValueError: a hyperparameter out of range, an unknown reduction.
    """
    positive("beta", beta)
    check_reduction(reduction)

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        deltas = [output_error(network, batch, h[-1], z[-1])]
        errors = list(deltas)
        for l in reversed(range(1, len(network.layers))):
            below = network.layers[l - 1]
            error = layers.vjp_below(network.layers[l], params.forward[l], z[l - 1], deltas[0])
            nudge, shorten = lengthened(scaled(beta / 2, error), h[l - 1])
            plus, minus = (layers.post(below, h[l - 1] + s * nudge) for s in (1, -1))
            deltas.insert(0, scaled(1 / beta, plus - minus) * shorten)
            errors.insert(0, error)
        return from_errors(batch, h, z, errors)._replace(aux=tuple(deltas))

    def calc_updates(params, lambda_):
        updates = local_updates(network, params.forward, lambda_, lambda_.aux, reduction)
        return Params(updates, no_feedback(network))

    exact = backprop(network, reduction=reduction, w_init=w_init)
    return exact._replace(compute_targets=compute_targets, calc_updates=calc_updates)
