"""A trial of a layer of one's own: what does not hold is named."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lrajax import initializers
from lrajax.base import Layer, PyTree
from lrajax.layers import products


def check_layer(layer: Layer, *, affine: bool = True, tolerance: float = 1e-3) -> None:
    """Tries a layer on two drawn examples.

    Its functions must take and give its shapes, E must have names and shapes of theta's entries, an
    error must come down, linearly, as by the transpose of `pre`'s derivative when E holds the
    forward weights, and `pre` must be affine in the weights.

    Args:
      layer: the layer.
      affine: False for one that is not meant to be affine in its weights, such as a `chain` or a
        norm with a gain.
      tolerance: relative to the largest number compared.

    Raises:
      ValueError: something does not hold; the message says what.
    """
    keys = jax.random.split(jax.random.key(0), 6)
    theta = layer.init(keys[0], initializers.GLOROT)
    e = layer.init_feedback(keys[1], initializers.GLOROT)
    z = jax.random.uniform(keys[2], (2, *layer.in_shape))
    error = jax.random.normal(keys[3], (2, *layer.out_shape))
    _check_mirrors(e, theta, "")

    h = _try("pre(theta, z_below)", lambda: products.pre(layer, theta, z))
    _same_shape("pre", h, error)
    _same_shape("post", _try("post(h)", lambda: products.post(layer, h)), error)

    def down(error):
        return products.feedback(layer, _taken(e, theta), z, error)

    below = _try("feedback(e, z_below, error)", lambda: down(error))
    _same_shape("feedback", below, z)
    transpose = products.vjp_below(layer, theta, z, error)
    if not _close(below, transpose, tolerance):
        raise ValueError(
            "layer: feedback with the forward weights for e is not the transpose of pre's "
            "derivative at z_below: set feedback=None, which derives it"
        )
    if not _close(down(2 * error), 2 * below, tolerance):
        raise ValueError("layer: feedback is not linear in the error")
    if affine:
        _check_affine(layer, theta, z, tolerance)


def _check_affine(layer: Layer, theta: PyTree, z: Array, tolerance: float) -> None:
    """Raises ValueError unless `pre` is affine in every array of theta by itself."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(theta)
    values = [leaf for _, leaf in leaves]
    for i, (path, leaf) in enumerate(leaves):

        def at(factor, i=i, leaf=leaf):
            changed = [*values[:i], factor * (leaf + 1), *values[i + 1 :]]
            return products.pre(layer, jax.tree.unflatten(tree, changed), z)

        if not _close(at(3.0) - at(1.0), 2 * (at(1.0) - at(0.0)), tolerance):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"layer: pre is not affine in theta's {name}")


def _check_mirrors(e: PyTree, theta: PyTree, name: str) -> None:
    where = f"[{name}]" if name else ""
    if isinstance(e, dict):
        for part, entry in e.items():
            if not isinstance(theta, dict) or part not in theta:
                raise ValueError(f"layer: init_feedback has {part!r}, init's theta{where} has not")
            _check_mirrors(entry, theta[part], part)
    elif isinstance(theta, dict):
        raise ValueError(f"layer: init_feedback gives one array for theta{where}'s {[*theta]}")
    elif jnp.shape(e) != jnp.shape(theta):
        raise ValueError(
            f"layer: init_feedback gives e{where} of shape {jnp.shape(e)}, theta's has "
            f"{jnp.shape(theta)}: E has the orientation of W"
        )


def _taken(e: PyTree, theta: PyTree) -> PyTree:
    """Of theta what e mirrors."""
    if not isinstance(e, dict):
        return theta
    return {name: _taken(part, theta[name]) for name, part in e.items()}


def _try(what: str, call):
    try:
        return call()
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"layer: {what} fails on an example of its shapes: {error}") from error


def _same_shape(name: str, found: Array, expected: Array) -> None:
    if found.shape != expected.shape:
        raise ValueError(
            f"layer: {name} gives {found.shape[1:]} for an example, not {expected.shape[1:]}"
        )


def _close(found: Array, expected: Array, tolerance: float) -> bool:
    scale = float(jnp.abs(expected).max()) or 1.0
    return bool(np.allclose(found, expected, rtol=0, atol=tolerance * scale))
