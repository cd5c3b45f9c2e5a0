"""Recursive LRA, rec-LRA (Ororbia, Mali, Kifer and Giles 2023).

    d^l   = E^{L→l} e^L              displacement, if l is a multiple of the stride m
    d^l   = E^{l+1→l} e^{l+1}        displacement of the other hidden layers
    y^l   = φ(h^l - β d^l)           target
    e^l   = -2 (y^l - z^l),   e^L = z^L - y
    ΔW^l  = (e^l ⊗ φ′(h^l)) (z^{l-1})ᵀ

    ΔE^{l+1→l} = γ (ΔW^{l+1})ᵀ,   ΔE^{L→l} = γ z^l (e^L)ᵀ

Error skip connections take the output's error straight to every m-th hidden layer, counted from the
lowest; the targets in between follow one from another as in LRA-E. No error crosses more than m
connections, however deep the network.

Written from descriptions of the publication and its public ports, not from its text: theirs are the
skip connections and this recursion of targets. Different here: its networks have residual
connections forward too, which are the network's affair and not the rule's. Error units, updates
and the learning of E^{l+1→l} are those of `lra_e`, so that with a stride of all layers the two
rules are one. A skip connection has no W to follow: it gets the update, transposed, that a linear
shortcut from z^l to the output would get.
"""

import jax

from lrajax import initializers, layers, losses
from lrajax.algorithms._lra_e import align, lra_e
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least
from lrajax.steps import (
    forward,
    init_feedback,
    init_forward,
    labels,
    output_error,
    reduce_batch,
    scaled,
)


@factory
def rec_lra(
    network: Network,
    *,
    stride: int = 2,
    beta: float = 0.1,
    gamma: float = 1.0,
    local_loss: str = "gaussian",
    derivative: bool = True,
    reduction: str = "sum",
    w_init: Initializer = initializers.LRA_W,
    e_init: Initializer = initializers.LRA_E,
) -> Algorithm:
    """Makes recursive local representation alignment, rec-LRA, for a network.

    Args:
      network: the network to train.
      stride: m, hidden layers from one error skip connection to the next, >= 1.
      beta: modulation of the displacement, > 0.
      gamma: rate of the error weights relative to the forward weights, >= 0.
      local_loss: "gaussian" (equation 3) or "cauchy" (equation 4) loss of the hidden layers.
      derivative: whether ΔW has the factor φ′(h^l): True is CalcUpdates-V1, False V2.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` carries an error to the activity below layer `l`: from layer
      `l`, in the orientation of W, or, if `l` is a multiple of the stride, from the output,
      `{"w": [n_below, n_output]}`.

    Raises:
      ValueError: a hyperparameter out of range, an unknown local loss or reduction.
    """
    at_least("stride", stride, 1)
    chain = lra_e(
        network,
        beta=beta,
        gamma=gamma,
        local_loss=local_loss,
        derivative=derivative,
        reduction=reduction,
    )
    error_unit = losses.LOCAL_LOSSES[local_loss].error
    top = len(network.layers) - 1
    n_output = layers.size(network.layers[top].out_shape)
    # The topmost hidden layer has the output as its neighbour: a skip would be the same connection.
    skips = range(stride, top, stride)
    # A skip is the feedback of a dense layer, which serves every kind, its activity flattened.
    carriers = [
        layers.dense(layers.size(layer.in_shape), n_output) if l in skips else layer
        for l, layer in enumerate(network.layers)
    ]

    def init(key):
        w_key, e_key = jax.random.split(key)
        return Params(
            forward=init_forward(network, w_key, w_init),
            feedback=init_feedback(carriers, e_key, e_init),
        )

    def displace(e, l, errors, z_below):
        """Displacement d of the activity below layer l, given the errors from layer l up."""
        if l not in skips:
            return layers.feedback(carriers[l], e, z_below, errors[0])
        flat, error = (a.reshape(len(a), -1) for a in (z_below, errors[-1]))
        return layers.feedback(carriers[l], e, flat, error).reshape(z_below.shape)

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        errors = [output_error(network, batch, h[-1], z[-1])]
        targets = [labels(batch, z[-1])]
        for l in reversed(range(1, len(network.layers))):
            displacement = displace(params.feedback[l], l, errors, z[l - 1])
            target, error = align(
                network.layers[l - 1], h[l - 1], z[l - 1], scaled(beta, displacement), error_unit
            )
            targets.insert(0, target)
            errors.insert(0, error)
        return Calculations(batch.x, h, z, tuple(targets), tuple(errors))

    def skip_update(e, l, lambda_):
        """γ z^l (e^L)ᵀ."""
        below, error = (a.reshape(len(a), -1) for a in (lambda_.z[l - 1], lambda_.errors[-1]))
        delta = scaled(gamma, reduce_batch(below, reduction, e))
        return layers.vjp_feedback(carriers[l], e, below, error, delta)

    def calc_updates(params, lambda_):
        mirrors = tuple(() if l in skips else e for l, e in enumerate(params.feedback))
        updates = chain.calc_updates(params._replace(feedback=mirrors), lambda_)
        feedback = [
            skip_update(params.feedback[l], l, lambda_) if l in skips else update
            for l, update in enumerate(updates.feedback)
        ]
        return updates._replace(feedback=tuple(feedback))

    return chain._replace(init=init, compute_targets=compute_targets, calc_updates=calc_updates)
