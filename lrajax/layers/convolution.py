"""A convolution that XLA's CPU computes quickly: inside a scan, both its transposes, many seeds.

`jax.lax.conv_general_dilated` does not. Its transposes have their dimensions in another order, for
which XLA has fifty times slower loops wherever a program is inside a scan, and a `vmap` over
kernels makes one grouped convolution, five to forty times as slow as one after another
(docs/evidence/speed.md). So it is wrapped in an operation with a rule of its own for either.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from lrajax.layers.minimal_filtering import convolve_tiles, update_of_tiles

# Zeros before and after height and width.
Pads = tuple[tuple[int, int], tuple[int, int]]
# Channels and features from which on tiles of 3 × 3 kernels are quicker (docs/evidence/speed.md).
MANY = 32


def convolution_is_quicker(image: Array) -> bool:
    """Whether `convolve` beats a product with windows, as it was measured to do on CPUs alone.

    XLA's CPU has quick programs for float32; half precision falls back on loops. On a mesh with
    explicit axes JAX does not say how the update of a split mini-batch is summed.
    """
    kind = jax.typeof(image)
    explicit = kind.sharding.mesh.explicit_axes
    return jax.default_backend() == "cpu" and kind.dtype == jnp.float32 and not explicit


def convolve(image: Array, kernel: Array, pads: Pads) -> Array:
    """A convolution with stride 1, [H, W, C] with [kh, kw, C, F] to [H', W', F].

    Of examples with one kernel a `vmap` makes a mini-batch, of kernels runs one after another.
    """
    dtype = jnp.result_type(image, kernel)
    image, kernel = jnp.asarray(image, dtype)[None, None], jnp.asarray(kernel, dtype)[None]
    return _bind(*_varying_alike(image, kernel), pads=pads, update=False)[0, 0]


def _bind(images: Array, others: Array, *, pads: Pads, update: bool) -> Array:
    """A convolution of R runs or, with `update`, its transpose in the kernels.

    Args:
      images: [R, B, H, W, C].
      others: kernels [R, kh, kw, C, F]; or the error [R, B, H', W', F].
      pads: of the images.
      update: which of the two.

    Returns:
      [R, B, H', W', F]; or [R, kh, kw, C, F].
    """
    # An error that someone hands to a vector-Jacobian product may be one of NumPy's.
    operands = jnp.asarray(images), jnp.asarray(others)
    return _convolution.bind(*operands, pads=pads, update=update)


def _in_turn(images: Array, others: Array, *, pads: Pads, update: bool) -> Array:
    """What `_bind` promises, run by run."""
    one_run = _update_of_run if update else _one_run
    runs = zip(images, others, strict=True)
    return jnp.stack([one_run(computed_once(image), other, pads) for image, other in runs])


def computed_once(array: Array) -> Array:
    """The array itself, which XLA does not compute anew as it transposes it.

    An operation on one array, a factor or a maximum over blocks say, it repeats as it transposes,
    over strided memory (docs/evidence/speed.md); not so a choice between two.
    """
    return jnp.where(jnp.isnan(array), jnp.nan, array)


def _one_run(images: Array, kernel: Array, pads: Pads) -> Array:
    """[B, H, W, C] with [kh, kw, C, F] to [B, H', W', F]."""
    if _in_tiles(kernel.shape):
        height, width = (
            side + sum(pad) - 2 for side, pad in zip(images.shape[1:3], pads, strict=True)
        )
        return convolve_tiles(_padded(images, pads), kernel)[:, :height, :width]
    width = images.shape[2]
    excess = 0
    if images.shape[3] < 4:
        # Three channels, or one, take three times as long as four.
        absent = 4 - images.shape[3]
        images = jnp.pad(images, ((0, 0),) * 3 + ((0, absent),))
        kernel = jnp.pad(kernel, ((0, 0),) * 2 + ((0, absent), (0, 0)))
    elif width >= 8 and sum(pads[1]) == kernel.shape[1] - 1:
        # XLA's quickest program runs on one core alone here. One that has them all takes what is
        # wider than the image; a column more is the cheapest way to it.
        excess = 1
    before, after = pads[1]
    h = jax.lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        (pads[0], (before, after + excess)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return h[:, :, : h.shape[2] - excess]


def _update_of_run(images: Array, error: Array, pads: Pads) -> Array:
    """The images' convolution with the error, examples in the place of channels."""
    sides = (
        i + sum(pad) - o + 1
        for i, o, pad in zip(images.shape[1:3], error.shape[1:3], pads, strict=True)
    )
    if _in_tiles((*sides, images.shape[3], error.shape[3])):
        whole = _padded(computed_once(error), ((0, 0), (0, 0)))
        return update_of_tiles(_padded(images, pads), whole)
    of_channels = images.transpose(3, 1, 2, 0)  # [C, H, W, B]
    of_features = computed_once(error).transpose(1, 2, 0, 3)  # [H', W', B, F]
    return _one_run(of_channels, of_features, pads).transpose(1, 2, 0, 3)


def _in_tiles(kernel_shape: tuple[int, ...]) -> bool:
    """Whether a kernel [kh, kw, C, F] is of those that are quicker by minimal filtering."""
    *sides, channels, features = kernel_shape
    return sides == [3, 3] and min(channels, features) >= MANY


def _padded(images: Array, pads: Pads) -> Array:
    """Images with zeros around them, and with one more row and column where they are odd."""
    (top, bottom), (left, right) = pads
    bottom += (images.shape[1] + top + bottom) % 2
    right += (images.shape[2] + left + right) % 2
    return jnp.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _transpose_in_images(cotangent, _, others, *, pads, update):
    """The error's convolution with the kernel turned around."""
    error, kernels = (others, cotangent) if update else (cotangent, others)
    turned = kernels[:, ::-1, ::-1].swapaxes(3, 4)
    (top, bottom), (left, right) = pads
    height, width = (side - 1 for side in kernels.shape[1:3])
    around = (height - top, height - bottom), (width - left, width - right)
    return _bind(error, turned, pads=around, update=False)


def _transpose_in_others(cotangent, images, _, *, pads, update):
    return _bind(images, cotangent, pads=pads, update=not update)


def _vmapped(operands, axes, *, pads, update):
    if axes[1] is None and not update:  # more examples with the same kernels
        images = jnp.moveaxis(operands[0], axes[0], 1)
        runs, count, size = images.shape[:3]
        images = images.reshape(runs, count * size, *images.shape[3:])
        h = _bind(images, operands[1], pads=pads, update=False)
        return h.reshape(runs, count, size, *h.shape[2:]), 1
    mapped = list(zip(operands, axes, strict=True))
    count = next(array.shape[axis] for array, axis in mapped if axis is not None)
    more = (_more_runs(array, axis, count) for array, axis in mapped)
    found = _bind(*more, pads=pads, update=update)
    return found.reshape(count, -1, *found.shape[1:]), 0


def _more_runs(array: Array, axis: int | None, count: int) -> Array:
    """[R, ...] with a mapped axis, or without one, to [count × R, ...]."""
    if axis is None:
        array = jnp.broadcast_to(array, (count, *array.shape))
    else:
        array = jnp.moveaxis(array, axis, 0)
    return array.reshape(-1, *array.shape[2:])


def _varying_alike(*arrays: Array) -> list[Array]:
    """Arrays that vary over the same axes of a mesh, as `jax.shard_map` wants those of a product.

    The transpose of what makes them so sums a kernel's update over devices.
    """
    own = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    wanted = frozenset().union(*own)
    return [
        jax.lax.pcast(array, tuple(sorted(wanted - axes)), to="varying")
        for array, axes in zip(arrays, own, strict=True)
    ]


def _out_type(images, others, **how):
    return jax.make_jaxpr(lambda *operands: _in_turn(*operands, **how))(images, others).out_avals[0]


_convolution = Primitive("convolution_in_turn")
_convolution.def_impl(_in_turn)
_convolution.def_abstract_eval(_out_type)
ad.defbilinear(_convolution, _transpose_in_images, _transpose_in_others)
batching.primitive_batchers[_convolution] = _vmapped
mlir.register_lowering(_convolution, mlir.lower_fun(_in_turn, multiple_results=False))
