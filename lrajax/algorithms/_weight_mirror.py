"""The weight mirror (Akrout, Wilson, Humphreys, Lillicrap and Tweed 2019).

    e^{l-1} = E^l δ^l,   δ^l = e^l ⊗ φ′(h^l),   δ^L = z^L - y,   ΔW^l = δ^l (z^{l-1})ᵀ     engaged
    ξ ~ N(0, 1),   r = W^l ξ,   ΔE^l = η (E^l - ξ rᵀ)                                       mirror

Random feedback alignment whose feedback learns from noise: units below a layer fire at random,
those of the layer answer, and the connection back between two of them grows with the product of
what they did. As the mean of ξ rᵀ is (W^l)ᵀ, E comes to equal Wᵀ, whatever the network is taught.

The publication's two modes take turns, each a step here; its units answer by their activation, less
their mean activity, where here they answer by what their weights alone make of the noise.
"""

import jax
import jax.numpy as jnp

from lrajax import initializers, layers
from lrajax.algorithms._rfa import rfa
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Initializer, Network, Params
from lrajax.checks import at_least
from lrajax.noise import standard_normal
from lrajax.steps import batch_size, mirrored, reduce_batch, scaled


@factory
def weight_mirror(
    network: Network,
    *,
    mirror_rate: float = 0.1,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes the weight mirror for a network.

    Args:
      network: the network to train.
      mirror_rate: η, rate of E relative to the forward weights, >= 0.
      reduction: "sum" or "mean" of the updates over the mini-batch. And over as many noises.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` is E of layer `l`, in the orientation of W. In Λ, `aux` is ξ of
      every layer but the first. `compute_targets` needs a key.

    Raises:
      ValueError: a negative mirror_rate, an unknown reduction.
    """
    at_least("mirror_rate", mirror_rate, 0)
    random = rfa(network, reduction=reduction, w_init=w_init, e_init=e_init)

    def compute_targets(params, batch, *, key=None):
        if key is None:
            raise ValueError("key=None: the mirror draws noise, so pass key=")
        lambda_ = random.compute_targets(params, batch)
        below = lambda_.z[:-1]
        pairs = zip(jax.random.split(key, len(below)), below, strict=True)
        noise = tuple(standard_normal(key, z.shape).astype(z.dtype) for key, z in pairs)
        return lambda_._replace(aux=noise)

    def mirror(layer, theta, e, z_below, noise):
        """η (E - ξ rᵀ), in the orientation of W: the mean, or that times the examples."""
        if not e:
            return e
        answer = layers.pre(layer, theta, noise) - layers.pre(layer, theta, jnp.zeros_like(noise))
        one = jnp.ones_like(noise[:1]), jnp.ones_like(answer[:1])
        seen = layers.vjp_theta(layer, theta, noise, reduce_batch(answer, "mean", theta))
        # A weight that a layer shares between positions answers at each of them.
        places = layers.vjp_theta(layer, theta, *one)
        examples = batch_size(z_below, theta) if reduction == "sum" else 1
        return jax.tree.map(
            lambda e, seen, places: (
                examples * scaled(mirror_rate, e - seen / jnp.maximum(places, 1))
            ),
            *(e, *mirrored((e, e), (seen, places))),
        )

    def calc_updates(params, lambda_):
        forward = random.calc_updates(params, lambda_).forward
        upper = (network.layers[1:], params.forward[1:], params.feedback[1:])
        return Params(forward, ((), *map(mirror, *upper, lambda_.z[:-1], lambda_.aux)))

    return random._replace(compute_targets=compute_targets, calc_updates=calc_updates)
