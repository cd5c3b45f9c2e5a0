"""What a layer does to the activity below it before its own weights: pool, standardise, reshape.

All of it belongs to the `pre` of the layer above. So h and z of the layer below keep one shape, a
rule compares it with its target unit by unit, and an error comes down to the very units that a
maximum or an average was taken over.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax.base import Layer
from lrajax.checks import count, one_of
from lrajax.layers.activations import with_slope_of
from lrajax.layers.norms import standardise
from lrajax.layers.products import size as units


def pooled(
    layer: Layer, size: int, kind: str = "max", *, in_shape: tuple[int, ...] | None = None
) -> Layer:
    """The layer fed by blocks of the maps below, the largest value or the average of each.

    Args:
      layer: a layer of images (H, W, C).
      size: side of a block.
      kind: "max" (of equal values each gets its share of the error) or "average".
      in_shape: of the maps below; None for (size H, size W, C). Rows and columns that do not fill a
        last block are dropped.

    Raises:
      ValueError: a layer that takes no images, an unknown kind, a size below 1, or maps whose
        blocks are not what the layer takes.
    """
    one_of("kind", kind, POOLS)
    size = count("size", size)
    if len(layer.in_shape) != 3:
        raise ValueError(f"layer takes {layer.in_shape}; pooled needs one of images (H, W, C)")
    height, width, channels = layer.in_shape
    in_shape = tuple(in_shape or (size * height, size * width, channels))
    if (*(side // size for side in in_shape[:2]), *in_shape[2:]) != layer.in_shape:
        raise ValueError(f"in_shape={in_shape} in blocks of {size} is not {layer.in_shape}")

    def pool(z):
        whole = z[: size * height, : size * width]
        return POOLS[kind](whole.reshape(height, size, width, size, channels))

    return _fed(layer, in_shape, pool)


def globally_pooled(layer: Layer, in_shape: tuple[int, ...]) -> Layer:
    """The layer of (C,) units fed by the average of each of the maps below, in_shape (H, W, C).

    Raises:
      ValueError: not as many maps as the layer takes units.
    """
    if len(in_shape) != 3 or tuple(in_shape[2:]) != layer.in_shape:
        raise ValueError(
            f"in_shape={tuple(in_shape)} must be (H, W, C), with {layer.in_shape} maps"
        )
    return _fed(layer, in_shape, lambda z: z.mean(axis=(0, 1)))


def standardised(layer: Layer) -> Layer:
    """The layer fed by the activity below with mean 0 and variance 1 over an example."""
    return _fed(layer, layer.in_shape, lambda z: standardise(z, tuple(range(z.ndim))))


def reshaped(layer: Layer, in_shape: tuple[int, ...]) -> Layer:
    """The same layer fed by an activity of another shape: flat images, or maps into a dense one.

    Raises:
      ValueError: the shapes differ in size.
    """
    if units(in_shape) != units(layer.in_shape):
        raise ValueError(f"in_shape={in_shape} has not the size of {layer.in_shape}")
    return _fed(layer, in_shape, lambda z: z.reshape(layer.in_shape))


def binary(layer: Layer) -> Layer:
    """The layer fed by nothing but the signs of the activity below, -1 or 1 (0 for 0).

    What the units below send up is binary. Their own activity, which a rule compares with its
    target, stays graded: it has an error on either side of the threshold. What goes down, errors
    and the codes of DTP's decoders, is graded too. Derivatives go straight through the sign, so on
    units with a hard tanh backprop is that of `sign_ste`.

    It goes inside `residual`, whose skip then carries the graded activity.
    """
    return _fed(layer, layer.in_shape, _sign)


def _fed(layer: Layer, in_shape: tuple[int, ...], through: Callable[[Array], Array]) -> Layer:
    """The layer fed by a function of the activity below."""
    return layer._replace(
        in_shape=tuple(in_shape),
        pre=lambda theta, z: layer.pre(theta, through(z)),
        feedback=None,
        remember=lambda theta, state, z: layer.remember(theta, state, through(z)),
    )


# The sign, with the slope 1 everywhere.
_sign = with_slope_of(lambda z: z, jnp.sign)


@jax.custom_vjp
def _largest(blocks: Array) -> Array:
    """The maximum of each block, [H, size, W, size, C] to [H, W, C]."""
    return functools.reduce(jnp.maximum, _places(blocks))


def _places(blocks: Array) -> list[Array]:
    """What stands at each place of the blocks, [H, W, C] each."""
    size = blocks.shape[1]
    return [blocks[:, i, :, j] for i in range(size) for j in range(size)]


def _largest_forward(blocks):
    largest = _largest(blocks)
    return largest, (blocks, largest)


def _largest_backward(saved, error):
    # A comparison with the maximum is quicker than a search for its place.
    blocks, largest = saved
    share = error / sum((place == largest).astype(error.dtype) for place in _places(blocks))
    winners = (blocks == largest[:, None, :, None]).astype(error.dtype)
    return (winners * share[:, None, :, None],)


_largest.defvjp(_largest_forward, _largest_backward)

POOLS: dict[str, Callable[[Array], Array]] = {
    "max": _largest,
    "average": lambda blocks: blocks.mean(axis=(1, 3)),
}
