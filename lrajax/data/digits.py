"""scikit-learn's embedded digits."""

import numpy as np

from lrajax.data.dataset import Source, numbered
from lrajax.data.split import hold_out_test


def load() -> Source:
    """The 1,797 digits of 8x8 pixels, 0 to 16; 1,500 to learn from and 297 to test."""
    from sklearn.datasets import load_digits  # lazy: importing it takes a second

    digits = load_digits()
    train, test = hold_out_test(digits.images.astype(np.uint8), digits.target, 297)
    return Source(train, test, numbered(10), max_pixel=16.0)
