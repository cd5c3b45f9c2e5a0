"""The rule of Kolen and Pollack (1994), as Akrout et al. (2019) train deep networks with it.

    e^{l-1} = E^l δ^l,   δ^l = e^l ⊗ φ′(h^l),   δ^L = z^L - y
    ΔW^l    = δ^l (z^{l-1})ᵀ + κ W^l
    ΔE^l    = (δ^l (z^{l-1})ᵀ)ᵀ + κ E^l

Random feedback alignment whose feedback learns: E gets the transpose of W's update, and both decay.
Under SGD with rate λ the difference of E and Wᵀ shrinks by the factor 1 - λκ a step, so that
E comes to equal Wᵀ, and the rule backprop, though neither weight is ever copied.
"""

import jax

from lrajax import initializers
from lrajax.algorithms._rfa import rfa
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network, Params
from lrajax.checks import at_least
from lrajax.steps import mirrored, scaled


@factory
def kolen_pollack(
    network: Network,
    *,
    decay: float = 1e-3,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes the rule of Kolen and Pollack, whose E comes to equal Wᵀ, for a network.

    Args:
      network: the network to train.
      decay: κ, weight decay of every forward and feedback parameter, >= 0, whatever the reduction.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` is E of layer `l`, in the orientation of W.

    Raises:
      ValueError: a negative decay, an unknown reduction.
    """
    at_least("decay", decay, 0)
    random = rfa(network, reduction=reduction, w_init=w_init, e_init=e_init)

    def calc_updates(params, lambda_):
        forward = random.calc_updates(params, lambda_).forward
        # E has the orientation of W, so the transpose of W's update is that update itself.
        updates = Params(forward, mirrored(params.feedback, forward))
        return jax.tree.map(lambda update, p: update + scaled(decay, p), updates, params)

    return random._replace(calc_updates=calc_updates)
