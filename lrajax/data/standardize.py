"""Standardising by channel: a pure function of what the training part alone says."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lrajax.data.dataset import Dataset, is_colour

_ROWS = 1000  # converted to float64 at a time


def channel_moments(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel's pixels / `max_pixel` over the training part.

    Returns:
        float64 [C] twice; images (H, W) and other features have one channel.
    """
    x, channels = dataset.train.x, dataset.image_shape[2] if is_colour(dataset.image_shape) else 1
    sums, squares = np.zeros((2, x.shape[1]))
    for start in range(0, len(x), _ROWS):
        pixels = x[start : start + _ROWS].astype(np.float64)
        sums += pixels.sum(axis=0)
        squares += np.square(pixels).sum(axis=0)
    # Channels come last.
    mean, square = (a.reshape(-1, channels).mean(axis=0) / len(x) for a in (sums, squares))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return mean / dataset.max_pixel, deviation / dataset.max_pixel


def standardizer(dataset: Dataset) -> Callable[[Array], Array]:
    """Makes the function that standardises images by the channels of the training part.

    Returns:
        A pure function of pixels / `max_pixel`, [B, n_features]: (x - mean) / standard deviation,
        channel by channel; a channel that never changes becomes 0.
    """
    mean, std = channel_moments(dataset)
    std = np.where(std > 0, std, 1)
    pixels = dataset.train.x.shape[1] // len(mean)
    offset, scale = (np.tile(moment, pixels).astype(np.float32)[None] for moment in (mean, std))
    return lambda x: (x - jnp.asarray(offset, x.dtype)) / jnp.asarray(scale, x.dtype)
