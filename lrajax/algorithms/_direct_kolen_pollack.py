"""Direct Kolen-Pollack learning, DKP (Webster, Choi and Ahn 2020).

    e^l   = E^l (z^L - y),   δ^l = e^l ⊗ φ′(h^l)
    ΔW^l  = δ^l (z^{l-1})ᵀ + κ W^l
    ΔE^l  = z^l (z^L - y)ᵀ + κ E^l

Direct feedback alignment whose feedback learns: E gets the transpose of the update that a linear
shortcut from z^l to the output would get, and it decays like W. At the topmost hidden layer that is
the rule of Kolen and Pollack, and E comes to equal (W^L)ᵀ; lower down, to follow what the layers
above make of z^l.
"""

import jax

from lrajax import initializers, layers
from lrajax.algorithms._dfa import dfa
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network
from lrajax.checks import at_least
from lrajax.steps import flat, reduce_batch, scaled


@factory
def direct_kolen_pollack(
    network: Network,
    *,
    decay: float = 1e-3,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes direct Kolen-Pollack learning for a network.

    Args:
      network: the network to train.
      decay: κ, weight decay of every forward and feedback parameter, >= 0, whatever the reduction.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` is `{"w": [n_below, n_output]}`, the matrix that carries the
      output's error to the activity below layer `l`.

    Raises:
      ValueError: a negative decay, an unknown reduction.
    """
    at_least("decay", decay, 0)
    fixed = dfa(network, reduction=reduction, w_init=w_init, e_init=e_init)
    n_output = layers.size(network.layers[-1].out_shape)

    def follow(e, z_below, delta):
        """(z δᵀ) in the orientation of E, as the update of a dense layer from z to the output."""
        below, delta = flat(z_below), reduce_batch(delta, reduction, e)
        shortcut = layers.dense(below.shape[1], n_output)
        return layers.vjp_feedback(shortcut, e, below, delta, below)

    def calc_updates(params, lambda_):
        delta = flat(lambda_.errors[-1])
        pairs = zip(params.feedback[1:], lambda_.z[:-1], strict=True)
        shortcuts = (follow(e, z, delta) for e, z in pairs)
        updates = fixed.calc_updates(params, lambda_)._replace(feedback=((), *shortcuts))
        return jax.tree.map(lambda update, p: update + scaled(decay, p), updates, params)

    return fixed._replace(calc_updates=calc_updates)
