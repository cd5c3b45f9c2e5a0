"""A convolution that XLA's CPU computes quickly: inside a scan, both its transposes, many seeds.

`jax.lax.conv_general_dilated` does not. Its transposes have their dimensions in another order, for
which XLA has fifty times slower loops wherever a program is inside a scan, and a `vmap` over
kernels makes one grouped convolution, five to forty times as slow as one after another
(docs/evidence/speed.md). So it is wrapped in an operation with a rule of its own for either.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

# Zeros before and after height and width.
Pads = tuple[tuple[int, int], tuple[int, int]]


def convolution_is_quicker(image: Array) -> bool:
    """Whether `convolve` beats a product with windows, as it was measured to do on CPUs alone.

    On a mesh with explicit axes JAX does not say how the update of a split mini-batch is summed.
    """
    explicit = jax.typeof(image).sharding.mesh.explicit_axes
    return jax.default_backend() == "cpu" and not explicit


def convolve(image: Array, kernel: Array, pads: Pads) -> Array:
    """A convolution with stride 1, [H, W, C] with [kh, kw, C, F] to [H', W', F].

    Of examples with one kernel a `vmap` makes a mini-batch, of kernels runs one after another.
    """
    dtype = jnp.result_type(image, kernel)
    image = _computed_once(jnp.asarray(image, dtype))[None, None]
    kernel = jnp.asarray(kernel, dtype)[None]
    return _bind(*_varying_alike(image, kernel), pads=pads)[0, 0]


@jax.custom_vjp
def _computed_once(image: Array) -> Array:
    """The image itself, whose pixels XLA does not compute anew as it transposes them.

    As of the errors in `lrajax.layers.affine`: a maximum over blocks, say, would be taken again in
    strided memory for the kernel's update.
    """
    return jnp.where(jnp.isnan(image), jnp.nan, image)


_computed_once.defvjp(lambda image: (_computed_once(image), None), lambda _, error: (error,))


def _bind(images: Array, kernels: Array, *, pads: Pads) -> Array:
    """[R, B, H, W, C] and [R, kh, kw, C, F] to [R, B, H', W', F]."""
    # An error that someone hands to a vector-Jacobian product may be one of NumPy's.
    return _convolution.bind(jnp.asarray(images), jnp.asarray(kernels), pads=pads)


def _in_turn(images: Array, kernels: Array, *, pads: Pads) -> Array:
    """What `_bind` promises, run by run."""
    return jnp.stack([_one_run(*run, pads) for run in zip(images, kernels, strict=True)])


def _one_run(images: Array, kernel: Array, pads: Pads) -> Array:
    """[B, H, W, C] with [kh, kw, C, F] to [B, H', W', F]."""
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


def _transpose_in_images(error: Array, _: Any, kernels: Array, *, pads: Pads) -> Array:
    """The error's convolution with the kernel turned around."""
    turned = kernels[:, ::-1, ::-1].swapaxes(3, 4)
    (top, bottom), (left, right) = pads
    height, width = (side - 1 for side in kernels.shape[1:3])
    around = (height - top, height - bottom), (width - left, width - right)
    return _bind(error, turned, pads=around)


def _transpose_in_kernels(error: Array, images: Array, _: Any, *, pads: Pads) -> Array:
    """The images' convolution with the error, examples in the place of channels."""
    of_channels = images.transpose(0, 4, 2, 3, 1)  # [R, C, H, W, B]
    of_features = error.transpose(0, 2, 3, 1, 4)  # [R, H', W', B, F]
    return _bind(of_channels, of_features, pads=pads).transpose(0, 2, 3, 1, 4)


def _vmapped(operands, axes, *, pads):
    images, kernels = operands
    if axes[1] is None:  # more examples
        images = jnp.moveaxis(images, axes[0], 1)
        runs, count, size = images.shape[:3]
        h = _bind(images.reshape(runs, count * size, *images.shape[3:]), kernels, pads=pads)
        return h.reshape(runs, count, size, *h.shape[2:]), 1
    kernels = jnp.moveaxis(kernels, axes[1], 0)  # more runs
    count, runs = kernels.shape[:2]
    if axes[0] is None:
        images = jnp.broadcast_to(images, (count, *images.shape))
    else:
        images = jnp.moveaxis(images, axes[0], 0)
    h = _bind(*(a.reshape(count * runs, *a.shape[2:]) for a in (images, kernels)), pads=pads)
    return h.reshape(count, runs, *h.shape[1:]), 0


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


def _out_type(images, kernels, *, pads):
    traced = jax.make_jaxpr(lambda *operands: _in_turn(*operands, pads=pads))(images, kernels)
    return traced.out_avals[0]


_convolution = Primitive("convolution_in_turn")
_convolution.def_impl(_in_turn)
_convolution.def_abstract_eval(_out_type)
ad.defbilinear(_convolution, _transpose_in_images, _transpose_in_kernels)
batching.primitive_batchers[_convolution] = _vmapped
mlir.register_lowering(_convolution, mlir.lower_fun(_in_turn, multiple_results=False))
