"""Augmentation of images as pure functions, for the compiled epoch.

Each takes a key and images [B, H, W, C]; what comes into view from outside is 0, which is the
channel's mean where channels are standardised.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lrajax.checks import one_of

PADDING = 4  # pixels by which a crop may move an image


def flip(key: PRNGKeyArray, images: Array) -> Array:
    """Mirrors each image left to right with probability 1/2."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def crop(key: PRNGKeyArray, images: Array) -> Array:
    """Pads by 4 pixels on every side and crops to the old size, anywhere."""
    size, height, width, channels = images.shape
    sides = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
    starts = jax.random.randint(key, (size, 2), 0, 2 * PADDING + 1)

    def one(image, start):
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), (height, width, channels))

    return jax.vmap(one)(jnp.pad(images, sides), starts)


def cutout(key: PRNGKeyArray, images: Array) -> Array:
    """Blanks a square of half the shorter side around any pixel (DeVries and Taylor 2017).

    16 pixels of CIFAR-10's 32, as there; near an edge a part of the square alone is seen.
    """
    size, height, width, _ = images.shape
    side = min(height, width) // 2

    def covered(key, length):
        starts = jax.random.randint(key, (size, 1), 0, length) - side // 2
        pixels = jnp.arange(length)[None]
        return (pixels >= starts) & (pixels < starts + side)

    row_key, column_key = jax.random.split(key)
    rows, columns = covered(row_key, height), covered(column_key, width)
    blank = (rows[:, :, None] & columns[:, None])[..., None]
    return jnp.where(blank, 0, images)


AUGMENTATIONS = {"flip": flip, "crop": crop, "cutout": cutout}
"""What is done to training images at random, by name."""


def augmentation(
    names: Sequence[str], image_shape: Sequence[int]
) -> Callable[[PRNGKeyArray, Array], Array]:
    """Makes the function that changes flat images at random, one augmentation after another.

    Args:
        names: keys of `AUGMENTATIONS`.
        image_shape: (H, W) or (H, W, C).

    Returns:
        A pure function `(key, x [B, n_features]) -> x`.

    Raises:
        ValueError: an unknown name, one given twice, or features that are no images.
    """
    check_names(names)
    if len(image_shape) not in (2, 3):
        raise ValueError(
            f"augment={','.join(names)} needs images (H, W) or (H, W, C), not features of shape "
            f"{tuple(image_shape)}: drop it"
        )
    height, width = image_shape[:2]

    def change(key, x):
        images = x.reshape(len(x), height, width, -1)
        for own_key, name in zip(jax.random.split(key, len(names)), names, strict=True):
            images = AUGMENTATIONS[name](own_key, images)
        return images.reshape(x.shape)

    return change


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError for an unknown augmentation or one that is named twice."""
    for name in names:
        one_of("augment", name, AUGMENTATIONS)
    if len(set(names)) < len(names):
        raise ValueError(f"augment={','.join(names)} names one twice: name each once")
