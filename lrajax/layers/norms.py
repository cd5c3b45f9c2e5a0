"""Norms of the pre-activity: `layer_norm`, and those with a gain, by groups or by mini-batches.

With a gain, h = gain ⊗ norm(W z) + b: the layer's own bias is the norm's offset, and both gain and
bias are those of a feature map. E mirrors the gain as it mirrors W; what carries an error down is
the derivative of all of it with E for W.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax.base import Layer, PyTree
from lrajax.checks import between, count
from lrajax.layers.products import mean_over_examples

EPSILON = 1e-5  # beside a variance


def standardise(array: Array, axis: tuple[int, ...]) -> Array:
    """The array with mean 0 and variance 1 over some axes.

    Of centred squares: the difference of two large moments, `jax.nn.standardize`'s, would round.
    """
    centred = array - array.mean(axis, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis, keepdims=True) + EPSILON)


def layer_norm(layer: Layer, *, gain: bool = False) -> Layer:
    """The layer with its pre-activity standardised over an example: mean 0 and variance 1.

    Args:
      layer: any layer; with a gain one with a bias "b".
      gain: False for z = φ(standardised h), a part of `post` without parameters, where the layer's
        bias stays before the norm and `residual` may stand inside or outside alike: its skip joins
        before the norm. True for `group_norm` with one group.

    Raises:
      ValueError: a gain for a layer without a bias; as it is applied, a layer of one unit.
    """
    if gain:
        return group_norm(layer, 1)

    def post(h):
        _several(h.size, "layer_norm")
        return layer.post(standardise(h, tuple(range(h.ndim))))

    return layer._replace(post=post)


def group_norm(layer: Layer, groups: int) -> Layer:
    """The layer with gain and standardised pre-activity, by groups of features (Wu and He 2018).

    Args:
      layer: a layer with a bias "b".
      groups: of neighbouring features, the last dimension; 1 is layer normalisation.

    Raises:
      ValueError: groups that do not divide the features, or a layer without a bias; as it is
        applied, groups of one number each.
    """
    groups = count("groups", groups)
    features = layer.out_shape[-1]
    if features % groups:
        raise ValueError(f"groups={groups} must divide the layer's {features} features")

    def normalise(theta, h):
        del theta
        _several(h.size // groups, f"groups={groups}")
        grouped = h.reshape(-1, groups, features // groups)
        return standardise(grouped, (0, 2)).reshape(h.shape)

    return _with_gain(layer, normalise)


def batch_norm(layer: Layer, *, momentum: float = 0.9) -> Layer:
    """The layer with gain and each feature standardised over the mini-batch (Ioffe, Szegedy 2015).

    In training the statistics are those of the mini-batch, over examples and positions; `predict`
    takes running ones, the layer's state (`lrajax.training` keeps it).

    Args:
      layer: a layer with a bias "b".
      momentum: of the running statistics, in [0, 1].

    Raises:
      ValueError: a momentum out of range, or a layer without a bias.
    """
    between("momentum", momentum, 0, 1)
    features = layer.out_shape[-1:]

    def normalise(theta, h):
        mean, var = (theta["mean"], theta["var"]) if "mean" in theta else _statistics(h)
        scale = jax.lax.rsqrt(var + EPSILON)
        return (h - jnp.broadcast_to(mean, h.shape)) * jnp.broadcast_to(scale, h.shape)

    def init_state(theta):
        dtype = theta["gain"].dtype
        return {"mean": jnp.zeros(features, dtype), "var": jnp.ones(features, dtype)}

    def remember(theta, state, z):
        mean, var = _statistics(layer.pre(_without_bias(theta), z))
        found = {"mean": mean, "var": var}
        return jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, state, found)

    return _with_gain(layer, normalise)._replace(init_state=init_state, remember=remember)


def _statistics(h: Array) -> tuple[Array, Array]:
    """Mean and variance of every feature over the mini-batch and its positions."""

    def mean_of(a):
        return mean_over_examples(a.mean(axis=tuple(range(a.ndim - 1))))

    mean = mean_of(h)
    return mean, mean_of((h - jnp.broadcast_to(mean, h.shape)) ** 2)


def _several(numbers: int, said: str) -> None:
    """Raises ValueError where a number would be standardised by itself."""
    if numbers == 1:
        raise ValueError(f"{said} would standardise one number at a time, to 0 whatever it is")


def _with_gain(layer: Layer, normalise: Callable[[PyTree, Array], Array]) -> Layer:
    """The layer with h = gain ⊗ normalise(theta, W z) + b."""
    features = layer.out_shape[-1:]

    def init(key, initializer):
        theta = layer.init(key, initializer)
        if "b" not in theta:
            raise ValueError(f"layer has no bias 'b' but {sorted(theta)}: the norm's offset")
        if "gain" in theta:
            raise ValueError("layer has a 'gain' already: a norm around a norm would share it")
        return {**theta, "gain": jnp.ones(features)}

    def init_feedback(key, initializer):
        return {**layer.init_feedback(key, initializer), "gain": jnp.ones(features)}

    def pre(theta, z):
        h = normalise(theta, layer.pre(_without_bias(theta), z))
        return jnp.broadcast_to(theta["gain"], h.shape) * h + jnp.broadcast_to(theta["b"], h.shape)

    return layer._replace(init=init, init_feedback=init_feedback, pre=pre, feedback=None)


def _without_bias(theta: PyTree) -> PyTree:
    return {**theta, "b": jnp.zeros_like(theta["b"])}
