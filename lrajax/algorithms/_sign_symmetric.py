"""Sign-symmetric feedback (Liao, Leibo and Poggio 2016; Moskovitz, Litwin-Kumar and Abbott 2018).

    e^{l-1} = (sign(W^l) ⊗ |M^l|)ᵀ δ^l,   δ^l = e^l ⊗ φ′(h^l),   δ^L = z^L - y
    ΔW^l    = δ^l (z^{l-1})ᵀ

Random feedback alignment whose feedback weights share the signs of the forward ones at every step,
but not their magnitudes. With |M| = |W| it is backprop. The magnitudes are random and fixed (frSF),
all the same (uSF), or random and drawn anew for every mini-batch (brSF).
"""

import jax
import jax.numpy as jnp

from lrajax import initializers
from lrajax.algorithms._rfa import rfa
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network
from lrajax.checks import one_of
from lrajax.noise import standard_normal
from lrajax.steps import mirrored

MAGNITUDES = ("fixed", "uniform", "redrawn")


@factory
def sign_symmetric(
    network: Network,
    *,
    magnitudes: str = "fixed",
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes sign-symmetric feedback, random but for the signs of W, for a network.

    Args:
      network: the network to train.
      magnitudes: "fixed", "uniform" or "redrawn". Those of M; in each layer the root mean square of
        M; or normal with that root mean square, for which `compute_targets` needs a key.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of M, whose signs do not count.

    Returns:
      The rule; `params.feedback[l]` is M of layer `l`, in the orientation of W, and its updates
      are zero.

    Raises:
      ValueError: unknown magnitudes or an unknown reduction.
    """
    one_of("magnitudes", magnitudes, MAGNITUDES)
    fixed = rfa(network, reduction=reduction, w_init=w_init, e_init=e_init)

    def drawn(m, key):
        """|M| of this mini-batch, before its absolute value."""
        if magnitudes == "fixed":
            return m
        scale = jnp.sqrt(jnp.square(m).mean())
        unit = jnp.ones_like(m) if magnitudes == "uniform" else standard_normal(key, m.shape)
        return (scale * unit).astype(m.dtype)

    def compute_targets(params, batch, *, key=None):
        if magnitudes == "redrawn" and key is None:
            raise ValueError("key=None: the magnitudes are drawn, so pass key= or set magnitudes=")
        leaves, tree = jax.tree.flatten(params.feedback)
        keys = jax.random.split(key, len(leaves)) if magnitudes == "redrawn" else leaves
        m = jax.tree.unflatten(tree, list(map(drawn, leaves, keys)))
        weights = mirrored(m, params.forward)
        feedback = jax.tree.map(lambda w, m: jnp.sign(w) * jnp.abs(m), weights, m)
        return fixed.compute_targets(params._replace(feedback=feedback), batch)

    return fixed._replace(compute_targets=compute_targets)
