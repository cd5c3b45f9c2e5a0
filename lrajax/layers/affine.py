"""Layers with weights: fully connected, convolutional, locally connected."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lrajax.base import Initializer, Layer
from lrajax.checks import count, one_of
from lrajax.layers.activations import Activation, parse_activation
from lrajax.layers.convolution import Pads, computed_once, convolution_is_quicker, convolve


def dense(n_in: int, n_out: int, activation: str | Activation = "tanh") -> Layer:
    """A fully connected layer, h = z W + b (equation 1 with biases; W is [n_in, n_out]).

    Raises:
      ValueError: a width below 1, or an unknown activation.
    """
    n_in, n_out = count("n_in", n_in), count("n_out", n_out)
    init, init_feedback = _matrices(n_in, n_out)
    return Layer(
        in_shape=(n_in,),
        out_shape=(n_out,),
        init=init,
        init_feedback=init_feedback,
        pre=lambda theta, z: z @ theta["w"] + theta["b"],
        post=parse_activation(activation),
        # E is kept in the orientation of W, so that no transpose is ever materialised.
        feedback=lambda e, z_below, error: jnp.tensordot(error, e["w"], (0, 1)),
    )


@functools.cache
def _matrices(n_in: int, n_out: int) -> tuple[Callable, Callable]:
    """What draws W and b, and E: the same functions for layers of one size (`steps.drawn`)."""

    def init(key, initializer):
        return {"w": initializer(key, (n_in, n_out)), "b": jnp.zeros(n_out)}

    def init_feedback(key, initializer):
        return {"w": initializer(key, (n_in, n_out))}

    return init, init_feedback


def conv(
    in_shape: tuple[int, ...],
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    pool: int = 1,
    padding: str = "SAME",
    dilation: int = 1,
    groups: int = 1,
    activation: str | Activation = "tanh",
) -> Layer:
    """A convolution of [H, W, C].

    Pooling averages the pre-activity, before the nonlinearity. So `pre` stays linear in theta, and
    h, z and what a rule adds to h (LRA-E's displacement) share the pooled shape. What pools the
    activity is `layers.pooled` around the layer above.

    Args:
      in_shape: (H, W, C) of the activity below.
      features: feature maps, the output's last dimension.
      kernel: side of the kernel; w is [kernel, kernel, C / groups, features], b is [features].
      stride: pixels from one window to the next.
      pool: side of the blocks that are averaged; what does not fill a last block is dropped.
      padding: "SAME", as much as keeps the image's size at stride 1, or "VALID", none.
      dilation: pixels from one of a window to the next.
      groups: of neighbouring channels; each feature map sees one, neighbouring maps the same.
      activation: as `parse_activation` takes it.

    Raises:
      ValueError: a shape or a size that makes no layer, or an unknown padding or activation.
    """
    _check_image(in_shape)
    features, kernel = count("features", features), count("kernel", kernel)
    stride, pool = count("stride", stride), count("pool", pool)
    dilation, groups = count("dilation", dilation), count("groups", groups)
    one_of("padding", padding, ("SAME", "VALID"))
    over = _Windows(kernel, stride, padding, dilation)
    sides = over.sides(in_shape)
    if min(sides) < 1:
        raise ValueError(
            f"kernel={kernel} spans {over.span} pixels, more than in_shape={tuple(in_shape)} has: "
            "choose padding='SAME'"
        )
    height, width = (side // pool for side in sides)
    if not height * width:
        raise ValueError(f"pool={pool} exceeds the {sides} of the feature maps")
    channels = in_shape[2]
    if channels % groups or features % groups:
        raise ValueError(f"groups={groups} must divide {channels} channels and {features} features")
    shape = (kernel, kernel, channels // groups, features)
    whole = stride == pool == dilation == groups == 1 < kernel

    def product(w, z):
        if whole and convolution_is_quicker(z):
            return convolve(z, w, over.pads(in_shape))
        # Averaging before the product needs pool² times fewer multiplications than after it.
        windows = _cut(z, over, pool)
        if groups == 1:
            return jnp.tensordot(windows, w, 3)
        grouped, kernels = (a.reshape(*a.shape[:-1], groups, -1) for a in (windows, w))
        return jnp.einsum("hwijgc,ijcgf->hwgf", grouped, kernels).reshape(height, width, features)

    return _affine(
        in_shape,
        (height, width, features),
        bias_shape=(features,),
        draw=lambda key, initializer: initializer(key, shape),
        product=product,
        activation=activation,
    )


def locally_connected(
    in_shape: tuple[int, ...],
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    activation: str | Activation = "tanh",
) -> Layer:
    """A convolution whose every position has weights and biases of its own.

    Args:
      in_shape: (H, W, C) of the activity below.
      features: feature maps.
      kernel: side of the windows; w is [H', W', kernel, kernel, C, features], b is [H', W',
        features]. Each position's kernel is drawn by itself, with the fans of one kernel.
      stride: see `conv`.
      activation: see `conv`.

    Raises:
      ValueError: see `conv`.
    """
    _check_image(in_shape)
    features, kernel = count("features", features), count("kernel", kernel)
    stride = count("stride", stride)
    over = _Windows(kernel, stride)
    sides = over.sides(in_shape)
    shape = (kernel, kernel, in_shape[2], features)

    def draw(key, initializer):
        keys = jax.random.split(key, sides)
        return jax.vmap(jax.vmap(lambda key: initializer(key, shape)))(keys)

    def product(w, z):
        return jnp.einsum("hwijc,hwijcf->hwf", _cut(z, over), w)

    out_shape = (*sides, features)
    return _affine(
        in_shape, out_shape, bias_shape=out_shape, draw=draw, product=product, activation=activation
    )


def _affine(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    bias_shape: tuple[int, ...],
    draw: Callable[[PRNGKeyArray, Initializer], Array],
    product: Callable[[Array, Array], Array],
    activation: str | Activation,
) -> Layer:
    """A layer h = product(w, z) + b."""
    return Layer(
        in_shape=tuple(in_shape),
        out_shape=out_shape,
        init=lambda key, initializer: {"w": draw(key, initializer), "b": jnp.zeros(bias_shape)},
        init_feedback=lambda key, initializer: {"w": draw(key, initializer)},
        pre=lambda theta, z: _errors_computed_once(
            product(theta["w"], z) + jnp.broadcast_to(theta["b"], out_shape)
        ),
        post=parse_activation(activation),
    )


@jax.custom_vjp
def _errors_computed_once(h: Array) -> Array:
    """The pre-activity itself, whose error XLA does not compute anew for every product with it.

    The update of a kernel is a product with the error transposed.
    """
    return h


_errors_computed_once.defvjp(lambda h: (h, None), lambda _, error: (computed_once(error),))


def _check_image(in_shape: tuple[int, ...]) -> None:
    if len(in_shape) != 3 or min(in_shape) < 1:
        raise ValueError(f"in_shape={tuple(in_shape)} must be (H, W, C)")


class _Windows(NamedTuple):
    """The windows of an image that a kernel is laid over; see `conv`."""

    kernel: int
    stride: int
    padding: str = "SAME"
    dilation: int = 1

    @property
    def span(self) -> int:
        """Side of a window in pixels, those between its own included."""
        return (self.kernel - 1) * self.dilation + 1

    def pads(self, in_shape: tuple[int, ...]) -> Pads:
        """Pixels before and after each side."""
        sizes = in_shape[:2], (self.span,) * 2, (self.stride,) * 2
        height, width = jax.lax.padtype_to_pads(*sizes, self.padding)
        return height, width

    def sides(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """How many there are along height and width; below 1 where none fits."""
        padded = (n + sum(pads) for n, pads in zip(in_shape, self.pads(in_shape), strict=False))
        return tuple((side - self.span) // self.stride + 1 for side in padded)


def _cut(image: Array, over: _Windows, pool: int = 1) -> Array:
    """The windows of an image [H, W, C], averaged over blocks of pool × pool.

    Sliced, so that what follows is a matrix product: XLA has a quick one for many seeds at once
    and for weight gradients, on CPUs too, which does not hold of its convolutions.

    Returns:
      [H', W', kernel, kernel, C]; windows that do not fill a last block are dropped.
    """
    windows = jnp.pad(image, (*over.pads(image.shape), (0, 0)))
    # The average of a block of windows is a window of the averaged image, which is far smaller.
    for axis in range(2):
        length = windows.shape[axis] - (pool - 1) * over.stride
        starts = range(0, pool * over.stride, over.stride)
        first, *others = _slices(windows, axis, starts, length)
        windows = sum(others, start=first) / pool
    starts = range(0, over.span, over.dilation)
    for axis, side in enumerate(over.sides(image.shape)):
        slices = _slices(windows, axis, starts, side // pool, over.stride * pool)
        windows = jnp.stack(slices, axis=2 + axis)  # [H', W + padding, kernel, C] after the rows
    return windows


def _slices(array: Array, axis: int, starts: range, length: int, step: int = 1) -> list[Array]:
    """Slices of an axis, `length` long, that begin at each of the starts."""
    reach = (length - 1) * step + 1
    return [jax.lax.slice_in_dim(array, start, start + reach, step, axis) for start in starts]
