"""3 × 3 convolutions and both their transposes with fewer products: Winograd's minimal filtering.

F(m × m, 3 × 3) (Lavin and Gray 2016): a tile of m × m outputs comes of the inputs below it, two
more a side. In one dimension, with d the inputs, g the kernel, y the outputs and e an error of y,

    y = Aᵀ [(G g) ⊙ (Bᵀ d)],    Δg = Gᵀ [(A e) ⊙ (Bᵀ d)],    Δd = B [(G g) ⊙ (A e)],

so that each of the three transforms is shared by two of them. The products over channels, features
or tiles are of matrices: 36 for 4 × 4 outputs, which plain sums take 144 for, or 16 for 2 × 2 in
place of 36. docs/evidence/speed.md has their speed and rounding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

Parts = Sequence[Array]


class Transforms(NamedTuple):
    """The matrices for a number of outputs, each as a function of the rows that it multiplies.

    Attributes:
      outputs: m, on a side of a tile.
      g: G, of a kernel.
      g_transposed: Gᵀ.
      a: A, of an error.
      a_transposed: Aᵀ, to outputs.
      b: B, to an error of inputs.
      b_transposed: Bᵀ, of inputs.
    """

    outputs: int
    g: Callable[[Parts], Parts]
    g_transposed: Callable[[Parts], Parts]
    a: Callable[[Parts], Parts]
    a_transposed: Callable[[Parts], Parts]
    b: Callable[[Parts], Parts]
    b_transposed: Callable[[Parts], Parts]

    def kernel(self, kernel: Array) -> Array:
        """G g Gᵀ, [m + 2, m + 2, C, F]."""
        return _twice(self.g, _each, kernel, (0, 0))

    def tiles(self, images: Array) -> Array:
        """Bᵀ d B of every tile, [m + 2, m + 2, T, C]."""
        return _of_all(_twice(self.b_transposed, self._overlapping, images, (1, 2)))

    def errors(self, error: Array) -> Array:
        """A e Aᵀ of every tile, [m + 2, m + 2, T, F]."""
        return _of_all(_twice(self.a, self._apart, error, (1, 2)))

    def _overlapping(self, array: Array, axis: int) -> Parts:
        """The inputs of every tile of a row."""
        m = self.outputs
        last = array.shape[axis] - m - 1
        return [jax.lax.slice_in_dim(array, i, i + last, m, axis) for i in range(m + 2)]

    def _apart(self, array: Array, axis: int) -> Parts:
        """The outputs of every tile of a row."""
        m = self.outputs
        return [jax.lax.slice_in_dim(array, i, None, m, axis) for i in range(m)]


def convolve_tiles(images: Array, kernel: Array) -> Array:
    """[B, H + 2, W + 2, C] with [3, 3, C, F] to [B, H, W, F], H and W even."""
    count, height, width = len(images), images.shape[1] - 2, images.shape[2] - 2
    by = _for(height, width)
    m = by.outputs
    products = jnp.einsum("ijtc,ijcf->ijtf", by.tiles(images), by.kernel(kernel))
    y = _twice(by.a_transposed, _each, products, (0, 0))
    y = y.reshape(m, m, count, height // m, width // m, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(count, height, width, -1)


def update_of_tiles(images: Array, error: Array) -> Array:
    """[B, H + 2, W + 2, C] and an error [B, H, W, F] to [3, 3, C, F]."""
    by = _for(*error.shape[1:3])
    products = jnp.einsum("ijtc,ijtf->ijcf", by.tiles(images), by.errors(error))
    return _twice(by.g_transposed, _each, products, (0, 0))


def error_below_tiles(error: Array, kernel: Array) -> Array:
    """An error [B, H, W, F] with [3, 3, C, F] to [B, H + 2, W + 2, C]."""
    count, height, width = error.shape[:3]
    by = _for(height, width)
    m = by.outputs
    products = jnp.einsum("ijtf,ijcf->ijtc", by.errors(error), by.kernel(kernel))
    tiles = products.reshape(m + 2, m + 2, count, height // m, width // m, -1)
    rows = _summed(by.b(_each(tiles, 0)), m, axis=2)  # [m + 2, B, H + 2, w, C]
    return _summed(by.b(_each(rows, 0)), m, axis=2)


def _summed(parts: Parts, outputs: int, axis: int) -> Array:
    """Tiles of m + 2 parts a row, an array each, over each other: the last two on the next tile."""
    own, over = parts[:outputs], parts[outputs:]
    rows = [_with_zeros(part, axis, 0, 1) for part in own]
    for i, part in enumerate(over):
        rows[i] = rows[i] + _with_zeros(part, axis, 1, 0)
    whole = jnp.stack(rows, axis + 1)
    shape = whole.shape
    whole = whole.reshape(*shape[:axis], -1, *shape[axis + 2 :])
    return jax.lax.slice_in_dim(whole, 0, whole.shape[axis] - outputs + 2, axis=axis)


def _with_zeros(array: Array, axis: int, before: int, after: int) -> Array:
    """An array with a zero more before or after those of an axis."""
    pads = [(0, 0)] * array.ndim
    pads[axis] = (before, after)
    return jnp.pad(array, pads)


def _for(height: int, width: int) -> Transforms:
    """Small images have too few large tiles to pay for the kernels' transforms."""
    whole = height % 4 == 0 and width % 4 == 0
    return FOUR if whole and min(height, width) >= 8 else TWO


def _of_all(tiles: Array) -> Array:
    """[n, n, B, h, w, C] to [n, n, T, C]: forward pass and update share the same array."""
    return tiles.reshape(*tiles.shape[:2], -1, tiles.shape[-1])


def _twice(
    transform: Callable[[Parts], Parts],
    parts_of: Callable[[Array, int], Parts],
    array: Array,
    axes: tuple[int, int],
) -> Array:
    """A transform along rows, then along columns, whose indices become the first two dimensions."""
    rows = jnp.stack(transform(parts_of(array, axes[0])))
    return jnp.stack(transform(parts_of(rows, axes[1] + 1)), axis=1)


def _each(array: Array, axis: int) -> Parts:
    """The elements of a dimension."""
    return list(jnp.moveaxis(array, axis, 0))


def _g_2(g: Parts) -> Parts:
    ends = g[0] + g[2]
    return g[0], (ends + g[1]) / 2, (ends - g[1]) / 2, g[2]


def _g_2_transposed(m: Parts) -> Parts:
    inner = (m[1] + m[2]) / 2
    return m[0] + inner, (m[1] - m[2]) / 2, inner + m[3]


def _a_2(e: Parts) -> Parts:
    return e[0], e[0] + e[1], e[0] - e[1], -e[1]


def _a_2_transposed(m: Parts) -> Parts:
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _b_2_transposed(d: Parts) -> Parts:
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _b_2(m: Parts) -> Parts:
    return m[0], m[1] - m[2] + m[3], m[1] + m[2] - m[0], -m[3]


def _g_4(g: Parts) -> Parts:
    ends, far = -(g[0] + g[2]) / 6, g[0] / 24 + g[2] / 6
    return g[0] / 4, ends - g[1] / 6, ends + g[1] / 6, far + g[1] / 12, far - g[1] / 12, g[2]


def _g_4_transposed(m: Parts) -> Parts:
    near, far = (m[1] + m[2]) / 6, m[3] + m[4]
    return (
        m[0] / 4 - near + far / 24,
        (m[2] - m[1]) / 6 + (m[3] - m[4]) / 12,
        far / 6 - near + m[5],
    )


def _a_4(e: Parts) -> Parts:
    even, odd = e[0] + e[2], e[1] + e[3]
    far_even, far_odd = e[0] + 4 * e[2], 2 * e[1] + 8 * e[3]
    return e[0], even + odd, even - odd, far_even + far_odd, far_even - far_odd, e[3]


def _a_4_transposed(m: Parts) -> Parts:
    near, far = m[1] + m[2], m[3] + m[4]
    near_odd, far_odd = m[1] - m[2], m[3] - m[4]
    return (
        m[0] + near + far,
        near_odd + 2 * far_odd,
        near + 4 * far,
        near_odd + 8 * far_odd + m[5],
    )


def _b_4_transposed(d: Parts) -> Parts:
    even, odd = d[4] - 4 * d[2], d[3] - 4 * d[1]
    far_even, far_odd = d[4] - d[2], 2 * (d[3] - d[1])
    return (
        4 * d[0] - 5 * d[2] + d[4],
        even + odd,
        even - odd,
        far_even + far_odd,
        far_even - far_odd,
        4 * d[1] - 5 * d[3] + d[5],
    )


def _b_4(m: Parts) -> Parts:
    near, far = m[1] + m[2], m[3] + m[4]
    near_odd, far_odd = m[1] - m[2], 2 * (m[3] - m[4])
    return (
        4 * m[0],
        4 * (m[5] - near_odd) - far_odd,
        -5 * m[0] - 4 * near - far,
        near_odd + far_odd - 5 * m[5],
        m[0] + near + far,
        m[5],
    )


TWO = Transforms(2, _g_2, _g_2_transposed, _a_2, _a_2_transposed, _b_2, _b_2_transposed)
FOUR = Transforms(4, _g_4, _g_4_transposed, _a_4, _a_4_transposed, _b_4, _b_4_transposed)
