"""3 × 3 convolutions with 16 products where there are 36, and their kernels' update.

Winograd's F(2 × 2, 3 × 3) (Lavin and Gray 2016): a tile of 2 × 2 outputs comes of the 4 × 4 inputs
below it. In one dimension, with d the inputs, g the kernel and y the outputs,

    y = Aᵀ [(G g) ⊙ (Bᵀ d)],    and of an error e of y    Δg = Gᵀ [(A e) ⊙ (Bᵀ d)].

The products over channels, or for the update over tiles, are 16 of matrices. Rounding is that of
plain sums, 3e-7 to 9e-7 of the largest output in float32.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

Parts = Sequence[Array]


def convolve_tiles(images: Array, kernel: Array) -> Array:
    """[B, 2h + 2, 2w + 2, C] with [3, 3, C, F] to [B, 2h, 2w, F]."""
    count, height, width = len(images), images.shape[1] // 2 - 1, images.shape[2] // 2 - 1
    g = _twice(_g, _each, kernel, (0, 0))
    y = _twice(_a_transposed, _each, jnp.einsum("ijtc,ijcf->ijtf", _tiles(images), g), (0, 0))
    y = y.reshape(2, 2, count, height, width, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(count, 2 * height, 2 * width, -1)


def update_of_tiles(images: Array, error: Array) -> Array:
    """[B, 2h + 2, 2w + 2, C] and an error [B, 2h, 2w, F] to [3, 3, C, F]."""
    errors = _of_all(_twice(_a, _halves, error, (1, 2)))
    products = jnp.einsum("ijtc,ijtf->ijcf", _tiles(images), errors)
    return _twice(_g_transposed, _each, products, (0, 0))


def _tiles(images: Array) -> Array:
    """Bᵀ d B of every tile, [4, 4, T, C]."""
    return _of_all(_twice(_b_transposed, _overlapping, images, (1, 2)))


def _of_all(tiles: Array) -> Array:
    """[4, 4, B, h, w, C] to [4, 4, T, C]: forward pass and update share the same array."""
    return tiles.reshape(4, 4, -1, tiles.shape[-1])


def _twice(
    transform: Callable[[Parts], Parts],
    parts_of: Callable[[Array, int], Parts],
    array: Array,
    axes: tuple[int, int],
) -> Array:
    """A transform along rows, then along columns, whose indices become the first two dimensions."""
    rows = jnp.stack(transform(parts_of(array, axes[0])))
    return jnp.stack(transform(parts_of(rows, axes[1] + 1)), axis=1)


def _overlapping(array: Array, axis: int) -> Parts:
    """The four inputs of every tile of a row."""
    last = array.shape[axis] - 3
    return [jax.lax.slice_in_dim(array, i, i + last, 2, axis) for i in range(4)]


def _halves(array: Array, axis: int) -> Parts:
    """The two outputs of every tile of a row."""
    return [jax.lax.slice_in_dim(array, i, None, 2, axis) for i in range(2)]


def _each(array: Array, axis: int) -> Parts:
    """The elements of a dimension."""
    return list(jnp.moveaxis(array, axis, 0))


def _b_transposed(d: Parts) -> Parts:
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _g(g: Parts) -> Parts:
    ends = g[0] + g[2]
    return g[0], (ends + g[1]) / 2, (ends - g[1]) / 2, g[2]


def _g_transposed(m: Parts) -> Parts:
    inner = (m[1] + m[2]) / 2
    return m[0] + inner, (m[1] - m[2]) / 2, inner + m[3]


def _a_transposed(m: Parts) -> Parts:
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _a(e: Parts) -> Parts:
    return e[0], e[0] + e[1], e[0] - e[1], -e[1]
