"""A convolution that XLA's CPU computes quickly: inside a scan, both its transposes, many seeds.

`jax.lax.conv_general_dilated` does not. Its transposes have their dimensions in another order, for
which XLA has fifty times slower loops wherever a program is inside a scan, and a `vmap` over
kernels makes one grouped convolution, five to forty times as slow as one after another
(docs/evidence/speed.md). So it is wrapped in an operation with a rule of its own for either.
"""

import functools

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from lrajax.layers.minimal_filtering import convolve_tiles, error_below_tiles, update_of_tiles

# Zeros before and after height and width.
Pads = tuple[tuple[int, int], tuple[int, int]]
# Fewer channels than this have no quick program.
FEW = 4
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
    return _bind(*_varying_alike(image, kernel), pads=pads, gives="maps")[0, 0]


def _bind(firsts: Array, seconds: Array, *, pads: Pads, gives: str) -> Array:
    """A convolution of R runs, or one of its transposes.

    Args:
      firsts: images [R, B, H, W, C]; for "images" an error of the maps.
      seconds: kernels [R, kh, kw, C, F]; for "kernels" an error of the maps [R, B, H', W', F].
      pads: of the images.
      gives: "maps", the convolution; "images" or "kernels", the transpose in these.

    Returns:
      What `gives` says, of the shape above.
    """
    # An error that someone hands to a vector-Jacobian product may be one of NumPy's.
    operands = jnp.asarray(firsts), jnp.asarray(seconds)
    return _convolution.bind(*operands, pads=pads, gives=gives)


def _in_turn(firsts: Array, seconds: Array, *, pads: Pads, gives: str) -> Array:
    """What `_bind` promises, run by run."""
    runs = zip(firsts, seconds, strict=True)
    return jnp.stack([OF_RUN[gives](computed_once(one), other, pads) for one, other in runs])


def computed_once(array: Array) -> Array:
    """The array itself, which XLA does not compute anew as it transposes it.

    An operation on one array, a factor or a maximum over blocks say, it repeats as it transposes,
    over strided memory (docs/evidence/speed.md); not so a choice between two.
    """
    return jnp.where(jnp.isnan(array), jnp.nan, array)


def _maps(images: Array, kernel: Array, pads: Pads) -> Array:
    """[B, H, W, C] with [kh, kw, C, F] to [B, H', W', F]."""
    if _in_tiles(kernel.shape):
        height, width = (
            side + sum(pad) - 2 for side, pad in zip(images.shape[1:3], pads, strict=True)
        )
        return convolve_tiles(_padded(images, pads), kernel)[:, :height, :width]
    width = images.shape[2]
    excess = 0
    if images.shape[3] < FEW:
        # Three channels, or one, take three times as long as four.
        absent = FEW - images.shape[3]
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


def _below(error: Array, kernel: Array, pads: Pads) -> Array:
    """The error's convolution with the kernel turned around, [B, H', W', F] to [B, H, W, C]."""
    (top, bottom), (left, right) = pads
    height, width = (side - 1 for side in kernel.shape[:2])
    if _in_tiles(kernel.shape):
        padded = error_below_tiles(_padded(error), kernel)
        images = padded[:, top : error.shape[1] + height - bottom]
        return images[:, :, left : error.shape[2] + width - right]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return _maps(error, turned, ((height - top, height - bottom), (width - left, width - right)))


def _kernel(images: Array, error: Array, pads: Pads) -> Array:
    """The images' convolution with the error, examples in the place of channels."""
    sides = (
        i + sum(pad) - o + 1
        for i, o, pad in zip(images.shape[1:3], error.shape[1:3], pads, strict=True)
    )
    kernel_shape = (*sides, images.shape[3], error.shape[3])
    if images.shape[3] < FEW:
        return _update_of_windows(images, error, pads, kernel_shape)
    if _in_tiles(kernel_shape):
        return update_of_tiles(_padded(images, pads), _padded(computed_once(error)))
    of_channels = images.transpose(3, 1, 2, 0)  # [C, H, W, B]
    of_features = computed_once(error).transpose(1, 2, 0, 3)  # [H', W', B, F]
    return _maps(of_channels, of_features, pads).transpose(1, 2, 0, 3)


def _update_of_windows(
    images: Array, error: Array, pads: Pads, kernel_shape: tuple[int, ...]
) -> Array:
    """The same for few channels: a product for each example, of its windows, a row each, with e."""
    rows, columns, _, features = kernel_shape
    count, height, width = error.shape[:3]
    planes = jnp.pad(images, ((0, 0), *pads, (0, 0))).transpose(0, 3, 1, 2)
    across = jnp.stack([planes[..., j : j + width] for j in range(columns)], 1)
    windows = jnp.stack([across[..., i : i + height, :] for i in range(rows)], 1)
    products = jnp.einsum(
        "bkt,btf->bkf",
        windows.reshape(count, -1, height * width),
        error.reshape(count, -1, features),
    )
    return products.sum(0).reshape(kernel_shape)


def _in_tiles(kernel_shape: tuple[int, ...]) -> bool:
    """Whether a kernel [kh, kw, C, F] is of those that are quicker by minimal filtering."""
    *sides, channels, features = kernel_shape
    return sides == [3, 3] and min(channels, features) >= MANY


def _padded(images: Array, pads: Pads = ((0, 0), (0, 0))) -> Array:
    """Images with zeros around them, and with one more row and column where they are odd."""
    (top, bottom), (left, right) = pads
    bottom += (images.shape[1] + top + bottom) % 2
    right += (images.shape[2] + left + right) % 2
    return jnp.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _transpose_in_firsts(cotangent, _, seconds, *, pads, gives):
    if gives == "kernels":
        return _bind(seconds, cotangent, pads=pads, gives="images")
    return _bind(cotangent, seconds, pads=pads, gives="images" if gives == "maps" else "maps")


def _transpose_in_seconds(cotangent, firsts, _, *, pads, gives):
    if gives == "images":
        return _bind(cotangent, firsts, pads=pads, gives="kernels")
    return _bind(firsts, cotangent, pads=pads, gives="maps" if gives == "kernels" else "kernels")


def _vmapped(operands, axes, *, pads, gives):
    if axes[1] is None and gives != "kernels":  # more examples with the same kernels
        images = jnp.moveaxis(operands[0], axes[0], 1)
        runs, count, size = images.shape[:3]
        images = images.reshape(runs, count * size, *images.shape[3:])
        h = _bind(images, operands[1], pads=pads, gives=gives)
        return h.reshape(runs, count, size, *h.shape[2:]), 1
    mapped = list(zip(operands, axes, strict=True))
    count = next(array.shape[axis] for array, axis in mapped if axis is not None)
    more = (_more_runs(array, axis, count) for array, axis in mapped)
    found = _bind(*more, pads=pads, gives=gives)
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


@functools.cache  # asked for again at every trace and every map
def _out_type(*operands, **how):
    return jax.make_jaxpr(lambda *given: _in_turn(*given, **how))(*operands).out_avals[0]


OF_RUN = {"maps": _maps, "images": _below, "kernels": _kernel}
_convolution = Primitive("convolution_in_turn")
_convolution.def_impl(_in_turn)
_convolution.def_abstract_eval(_out_type)
ad.defbilinear(_convolution, _transpose_in_firsts, _transpose_in_seconds)
batching.primitive_batchers[_convolution] = _vmapped
mlir.register_lowering(_convolution, mlir.lower_fun(_in_turn, multiple_results=False))
