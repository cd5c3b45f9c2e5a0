"""Sign-symmetric feedback (Liao, Leibo and Poggio 2016; Moskovitz, Litwin-Kumar and Abbott 2018).

    e^{l-1} = (sign(W^l) ⊗ |M^l|)ᵀ δ^l,   δ^l = e^l ⊗ φ′(h^l),   δ^L = z^L - y
    ΔW^l    = δ^l (z^{l-1})ᵀ,   M^l random and fixed

Random feedback alignment whose feedback weights share the signs of the forward ones at every step,
but not their magnitudes. With |M| = |W| it is backprop.
"""

import jax
import jax.numpy as jnp

from lrajax import initializers
from lrajax.algorithms._rfa import rfa
from lrajax.base import Algorithm, Initializer, Network
from lrajax.steps import mirrored


def sign_symmetric(
    network: Network,
    *,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes sign-symmetric feedback for a network.

    Args:
      network: the network to train.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of M, whose signs do not count.

    Returns:
      The rule; `params.feedback[l]` is M of layer `l`, in the orientation of W, and its updates
      are zero.

    Raises:
      ValueError: an unknown reduction.
    """
    fixed = rfa(network, reduction=reduction, w_init=w_init, e_init=e_init)

    def signed(w, magnitude):
        return jnp.sign(w) * jnp.abs(magnitude)

    def compute_targets(params, batch, *, key=None):
        weights = mirrored(params.feedback, params.forward)
        feedback = jax.tree.map(signed, weights, params.feedback)
        return fixed.compute_targets(params._replace(feedback=feedback), batch, key=key)

    return fixed._replace(compute_targets=compute_targets)
