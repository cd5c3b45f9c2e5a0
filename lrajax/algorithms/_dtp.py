"""Difference target propagation, DTP (Lee et al. 2015), and DTP-σ with adaptive noise (this paper).

    g^l(z)    = φ(E^l z + c^l)                                  decoder of layer l
    y^{L-1}   = z^{L-1} - η̂ dL/dz^{L-1}                         topmost hidden target   (Lee et al.)
    y^{l-1}   = z^{l-1} - (g^l(z^l) - g^l(y^l))                 the targets below       (9)
    ŷ^{l-1}   = z^{l-1} + ε,  ε ~ N(0, σ_l²)                    corrupted encoding      (10)
    ẑ^{l-1}   = g^l(f^l(ŷ^{l-1}))                               its reconstruction      (10)
    σ_l       = σ_{l+1} - L_l(y^l, z^l),  σ_{L-1} = α           DTP-σ                   (11)
    ΔW^l      = dL(y^l, z^l)/dW^l,   ΔE^l = dL(ŷ^{l-1}, ẑ^{l-1})/dE^l

L_l(y^l, z^l) is Σ (y^l - z^l)², the mean over the mini-batch. Equation 9 is printed with a sign
slip, set right here. Equation 11 prints y^l without a hat, the sentence below it says "corrupted":
`dtp_sigma` offers both. docs/evidence/dtp.md discusses them.

A decoder whose layer looks at the activity below it, to pool by maximum, say, looks at z^{l-1}: the
codes of targets and of corrupted activities go back to where the clean activity has its maxima.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import initializers, layers
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params, PyTree
from lrajax.checks import at_least, one_of, positive
from lrajax.losses import gaussian
from lrajax.noise import standard_normal
from lrajax.steps import (
    batch_mean,
    check_reduction,
    forward,
    init_feedback,
    init_forward,
    labels,
    local_deltas,
    local_updates,
    once_known,
    output_error,
    predict,
    reduce_batch,
    scaled,
)

SIGMA_LOSSES = ("target", "corrupted")


class Noise(NamedTuple):
    """The standard deviation of the noise, from the topmost decoder down.

    Attributes:
      top: σ of the topmost decoder.
      below: `(params, sigma, target, corrupted, clean) -> sigma`: σ of the next decoder below, from
        this one's, and target, corrupted and clean activity of the layer that its noise fell on.
    """

    top: float
    below: Callable[[Params, Array, Array, Array, Array], Array]


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


@factory
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
    fixed = Noise(noise, lambda params, sigma, *_: sigma)
    return _dtp(network, fixed, target_rate, reduction, w_init, e_init)


@factory
def dtp_sigma(
    network: Network,
    *,
    alpha: float = 0.01,
    sigma_loss: str = "target",
    over_units: str = "sum",
    target_rate: float = 0.1,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
    e_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes DTP-σ, whose noise adapts layer by layer, for a network.

    Args:
      network: the network to train.
      alpha: σ of the topmost decoder's noise, > 0.
      sigma_loss: what equation 11 compares the activity with: "target", as it prints, or
        "corrupted", the activity with its noise, as the sentence below it says.
      over_units: "sum" or "mean" of that loss over a layer's units.
      target_rate: η̂, step from the topmost hidden activity to its target, > 0, per example.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the decoders.

    Returns:
      The rule; see `dtp`.

    Raises:
      ValueError: no hidden layer, a hyperparameter out of range, an unknown reduction.
    """
    positive("alpha", alpha)
    one_of("sigma_loss", sigma_loss, SIGMA_LOSSES)
    one_of("over_units", over_units, ("sum", "mean"))

    def below(params, sigma, target, corrupted, clean):
        loss = gaussian.value(target if sigma_loss == "target" else corrupted, clean)
        units = layers.size(clean.shape[1:]) if over_units == "mean" else 1
        # (11). A negative sigma is as good as a positive one: the noise is symmetric.
        return sigma - batch_mean(loss, params) / units

    return _dtp(network, Noise(alpha, below), target_rate, reduction, w_init, e_init)


def _dtp(
    network: Network,
    noise: Noise,
    target_rate: float,
    reduction: str,
    w_init: Initializer,
    e_init: Initializer,
) -> Algorithm:
    positive("target_rate", target_rate)
    check_reduction(reduction)
    if len(network.layers) < 2:
        raise ValueError("network has no hidden layer: DTP needs one, whose target to propagate")

    def init(key):
        w_key, e_key = jax.random.split(key)
        decoders = _init_decoders(network, e_key, e_init)
        return Params(init_forward(network, w_key, w_init), decoders)

    def compute_targets(params, batch, *, key=None):
        if key is None:
            raise ValueError("key=None: DTP draws noise, so pass compute_targets(..., key=key)")
        h, z = forward(network, params.forward, batch.x)
        output = output_error(network, batch, h[-1], z[-1])
        hidden = _propagate_targets(network, params, z, output, target_rate)
        targets = (*hidden, labels(batch, z[-1]))
        errors = (*map(gaussian.error, hidden, z[:-1]), output)
        cycles = _reconstruct(network, params, z, targets, noise, key)
        return Calculations(batch.x, h, z, targets, errors, aux=cycles)

    def calc_updates(params, lambda_):
        deltas = local_deltas(network, lambda_)
        decoders = (
            _decoder_update(network, params, l, lambda_.z[l - 1], cycle, reduction)
            for l, cycle in zip(_decoded(network), lambda_.aux, strict=True)
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
        network=network,
        errors_first=True,  # W and E are read by the cycles and written by updates
    )


def _decoded(network: Network) -> range:
    """The layers with a decoder: all hidden ones but the first.

    Nothing teaches the input, and the topmost hidden layer takes its target from the output's
    gradient.
    """
    return range(1, len(network.layers) - 1)


def _init_decoders(network: Network, key: Array, e_init: Initializer) -> tuple[PyTree, ...]:
    inverse = init_feedback(network.layers, key, e_init)
    decoders = (
        {**inverse[l], "b": jnp.zeros(network.layers[l].in_shape)} for l in _decoded(network)
    )
    return ((), *decoders, ())


def _decode_pre(network: Network, decoder: PyTree, l: int, z_below: Array, code: Array) -> Array:
    weights = {name: e for name, e in decoder.items() if name != "b"}
    displacement = layers.feedback(network.layers[l], weights, z_below, code)
    return displacement + jnp.broadcast_to(decoder["b"], displacement.shape)


def _decode(network: Network, params: Params, l: int, z_below: Array, code: Array) -> Array:
    """g^l(code)."""
    h = _decode_pre(network, params.feedback[l], l, z_below, code)
    return layers.post(network.layers[l - 1], h)


def _encode(network: Network, params: Params, l: int, z_below: Array) -> Array:
    """f^l(z^{l-1})."""
    layer = network.layers[l]
    return layers.post(layer, layers.pre(layer, params.forward[l], z_below))


def _propagate_targets(
    network: Network, params: Params, z: tuple[Array, ...], output: Array, target_rate: float
) -> tuple[Array, ...]:
    """The targets of the hidden layers, [B, ...] each, from the output's error."""
    gradient = layers.vjp_below(network.layers[-1], params.forward[-1], z[-2], output)
    targets = [z[-2] - scaled(target_rate, gradient)]
    for l in reversed(_decoded(network)):
        decode = jax.vmap(functools.partial(_decode, network, params, l, z[l - 1]))
        of_z, of_y = decode(jnp.stack([z[l], targets[0]]))  # in one product: quicker than in two
        targets.insert(0, z[l - 1] - (of_z - of_y))  # (9)
    return tuple(targets)


def _draw_noise(below: list[Array], key: Array) -> list[Array]:
    """Standard normal noise of the shapes of some activities."""
    *ends, total = itertools.accumulate((z.size for z in below), initial=0)
    # In one draw, and then split: it compiles and runs faster than a draw for each layer.
    parts = jnp.split(standard_normal(key, (total,)), ends[1:])
    # Not strict: with nothing to split there is still one part, an empty one.
    return [part.reshape(z.shape).astype(z.dtype) for part, z in zip(parts, below, strict=False)]


def _reconstruct(
    network: Network,
    params: Params,
    z: tuple[Array, ...],
    targets: tuple[Array, ...],
    noise: Noise,
    key: Array,
) -> tuple[Reconstruction, ...]:
    """The cycle of every decoder, from the lowest up; σ comes from the top down."""
    decoded = _decoded(network)
    drawn = _draw_noise([z[l - 1] for l in decoded], key)
    sigma, above = jnp.asarray(noise.top, z[0].dtype), targets[-2]
    cycles = list[Reconstruction]()
    for l, normal in zip(reversed(decoded), reversed(drawn), strict=True):
        # One after another, or XLA's CPU has all cycles under way at once, and is slower by it.
        sigma = once_known(above, sigma)
        corrupted = above = z[l - 1] + sigma * normal  # (10)
        code = _encode(network, params, l, corrupted)
        h = _decode_pre(network, params.feedback[l], l, z[l - 1], code)
        cycles.insert(0, Reconstruction(corrupted, code, h))
        sigma = noise.below(params, sigma, targets[l - 1], corrupted, z[l - 1])
    return tuple(cycles)


def _decoder_update(
    network: Network,
    params: Params,
    l: int,
    z_below: Array,
    cycle: Reconstruction,
    reduction: str,
) -> PyTree:
    """ΔE^l and Δc^l."""
    below = network.layers[l - 1]
    error = gaussian.error(cycle.corrupted, layers.post(below, cycle.h))
    decoder = params.feedback[l]
    delta = reduce_batch(layers.vjp_post(below, cycle.h, error), reduction, decoder)
    _, vjp = jax.vjp(lambda e: _decode_pre(network, e, l, z_below, cycle.code), decoder)
    return vjp(delta)[0]
