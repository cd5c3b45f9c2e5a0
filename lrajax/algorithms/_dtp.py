"""Difference target propagation, DTP (Lee et al. 2015), and DTP-σ with adaptive noise (this paper).

    g^l(z)    = φ(E^l z + c^l)                                  decoder of layer l
    y^{L-1}   = z^{L-1} - η̂ dL/dz^{L-1}                         topmost hidden target   (Lee et al.)
    y^{l-1}   = z^{l-1} - (g^l(z^l) - g^l(y^l))                 the targets below       (9)
    ŷ^{l-1}   = z^{l-1} + ε,  ε ~ N(0, σ_l²)                    corrupted encoding      (10)
    ẑ^{l-1}   = g^l(f^l(ŷ^{l-1}))                               its reconstruction      (10)
    σ_l       = σ_{l+1} - L_l(ŷ^l, z^l),  σ_{L-1} = α           DTP-σ                   (11)
    ΔW^l      = dL(y^l, z^l)/dW^l,   ΔE^l = dL(ŷ^{l-1}, ẑ^{l-1})/dE^l

L_l is the mean of (ŷ^l - z^l)² over units and examples. Equation 9 is printed with a sign slip, set
right here. "DTP" in BUILD_NOTES.md discusses both.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import initializers, layers
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least, positive
from lrajax.losses import gaussian
from lrajax.noise import standard_normal
from lrajax.steps import (
    check_reduction,
    forward,
    init_feedback,
    init_forward,
    local_deltas,
    local_updates,
    output_error,
    predict,
    reduce_batch,
)

# (sigma of the layer above, corrupted and clean activity of that layer) -> sigma of this layer
NoiseSchedule = Callable[[Array, Array, Array], Array]


class Reconstruction(NamedTuple):
    """One encoding/decoding cycle of equation 10; each field [B, ...].

    Attributes:
      corrupted: ŷ^{l-1}.
      code: f^l(ŷ^{l-1}).
      h: pre-activity of the decoder at the code.
    """

    corrupted: Array
    code: Array
    h: Array


def dtp(
    network: Network,
    *,
    noise: float = 0.36,
    target_rate: float = 0.1,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes difference target propagation for a network.

    Args:
      network: the network to train.
      noise: σ, standard deviation of the noise injected at every layer, >= 0.
      target_rate: η̂, step from the topmost hidden activity to its target, > 0, per example.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the decoders.

    Returns:
      The rule; `params.feedback[l]` is layer `l`'s decoder `{"w": as W, "b": [n_below]}`, `()` for
      the first layer and the output. `compute_targets` needs a key.

    Raises:
      ValueError: no hidden layer, a hyperparameter out of range, an unknown reduction.
    """
    at_least("noise", noise, 0)
    return _dtp(network, noise, lambda sigma, *_: sigma, target_rate, reduction, w_init, e_init)


def dtp_sigma(
    network: Network,
    *,
    alpha: float = 0.01,
    target_rate: float = 0.1,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes DTP-σ, whose noise adapts layer by layer, for a network.

    Args:
      network: the network to train.
      alpha: σ of the topmost decoder's noise, > 0.
      target_rate: see `dtp`.
      reduction: see `dtp`.
      w_init: see `dtp`.
      e_init: see `dtp`.

    Returns:
      The rule; see `dtp`.

    Raises:
      ValueError: no hidden layer, a hyperparameter out of range, an unknown reduction.
    """
    positive("alpha", alpha)

    def adapt(sigma, corrupted, clean):
        # (11), with the loss of a unit: summed over a wide layer it makes sigma explode with depth.
        # A negative sigma is as good as a positive one: the noise is symmetric.
        return sigma - gaussian.value(corrupted, clean).mean() / layers.size(clean.shape[1:])

    return _dtp(network, alpha, adapt, target_rate, reduction, w_init, e_init)


def _dtp(
    network: Network,
    sigma_top: float,
    schedule: NoiseSchedule,
    target_rate: float,
    reduction: str,
    w_init: Initializer,
    e_init: Initializer,
) -> Algorithm:
    positive("target_rate", target_rate)
    check_reduction(reduction)
    if len(network.layers) < 2:
        raise ValueError("network has no hidden layer: DTP needs one, whose target to propagate")
    # Decoders stand between hidden layers alone: nothing teaches the input, and the topmost hidden
    # layer takes its target from the output's gradient.
    decoded = range(1, len(network.layers) - 1)

    def init(key):
        w_key, e_key = jax.random.split(key)
        inverse = init_feedback(network.layers, e_key, e_init)
        decoders = (
            {**inverse[l], "b": jnp.zeros(network.layers[l].in_shape)} if l in decoded else ()
            for l in range(len(network.layers))
        )
        return Params(init_forward(network, w_key, w_init), tuple(decoders))

    def decode_pre(params, l, z):
        e = params.feedback[l]
        displacement = layers.feedback(network.layers[l], e, z)
        return displacement + jnp.broadcast_to(e["b"], displacement.shape)

    def decode(params, l, z):
        return layers.post(network.layers[l - 1], decode_pre(params, l, z))

    def encode(params, l, z_below):
        layer = network.layers[l]
        return layers.post(layer, layers.pre(layer, params.forward[l], z_below))

    def propagate_targets(params, batch, z):
        top = len(network.layers) - 1
        gradient = layers.vjp_below(
            network.layers[top], params.forward[top], z[top - 1], output_error(batch, z[top])
        )
        targets = [z[top - 1] - target_rate * gradient, batch.y]
        for l in reversed(decoded):
            difference = decode(params, l, z[l]) - decode(params, l, targets[0])
            targets.insert(0, z[l - 1] - difference)  # (9)
        return tuple(targets)

    def draw_noise(z, key):
        """Standard normal noise for every activity below a decoder, [B, ...] each."""
        shapes = [z[l - 1].shape for l in decoded]
        *ends, total = itertools.accumulate(map(math.prod, shapes), initial=0)
        # In one draw, and then split: it compiles and runs faster than a draw for each layer.
        parts = jnp.split(standard_normal(key, (total,)), ends[1:])
        # Not strict: with nothing to split there is still one part, an empty one.
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=False)]

    def reconstruct(params, z, key):
        sigma, cycles = sigma_top, []
        for l, noise in zip(reversed(decoded), reversed(draw_noise(z, key)), strict=True):
            corrupted = z[l - 1] + sigma * noise  # (10)
            code = encode(params, l, corrupted)
            cycles.insert(0, Reconstruction(corrupted, code, decode_pre(params, l, code)))
            sigma = schedule(sigma, corrupted, z[l - 1])
        return tuple(cycles)

    def compute_targets(params, batch, *, key=None):
        if key is None:
            raise ValueError("key=None: DTP draws noise, so pass compute_targets(..., key=key)")
        h, z = forward(network, params.forward, batch.x)
        targets = propagate_targets(params, batch, z)
        hidden = map(gaussian.error, targets[:-1], z[:-1])
        errors = (*hidden, output_error(batch, z[-1]))
        return Calculations(batch.x, h, z, targets, errors, aux=reconstruct(params, z, key))

    def decoder_update(params, l, cycle):
        below = network.layers[l - 1]
        error = gaussian.error(cycle.corrupted, layers.post(below, cycle.h))
        delta = reduce_batch(layers.vjp_post(below, cycle.h, error), reduction)
        update = layers.vjp_feedback(network.layers[l], params.feedback[l], cycle.code, delta)
        return {**update, "b": delta.sum(axis=0)}

    def calc_updates(params, lambda_):
        deltas = local_deltas(network, lambda_)
        decoders = (
            decoder_update(params, l, cycle) for l, cycle in zip(decoded, lambda_.aux, strict=True)
        )
        return Params(
            forward=local_updates(network, params.forward, lambda_, deltas, reduction),
            feedback=((), *decoders, ()),
        )

    return Algorithm(
        init=init,
        compute_targets=compute_targets,
        calc_updates=calc_updates,
        predict=lambda params, x: predict(network, params.forward, x),
        loss=network.output_loss.value,
    )
