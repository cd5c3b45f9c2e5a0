"""Class-stratified splits."""

import numpy as np

from lrajax.data.dataset import DataError, explained

Pair = tuple[np.ndarray, np.ndarray]  # images and labels


def stratified(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending indices (kept, held out) of a class-stratified shuffle with `size` held out.

    Raises:
        DataError: a size that leaves too few on either side.
    """
    from sklearn.model_selection import train_test_split  # lazy: importing it takes a second

    if not isinstance(size, int | np.integer) or not 0 < size < len(labels):
        raise DataError(
            f"--valid_size={size} is not a whole number from 1 to {len(labels) - 1} "
            f"(there are {len(labels)} training examples); choose one well below that"
        )
    what = f"--valid_size={size}, split seed {seed}: no class-stratified split of {len(labels)}"
    with explained(what, "change --valid_size", ValueError):  # fewer than one of each class, say
        kept, held_out = train_test_split(
            np.arange(len(labels)), test_size=int(size), stratify=labels, random_state=seed
        )
    return np.sort(kept), np.sort(held_out)


def hold_out_test(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[Pair, Pair]:
    """Training and test part of a set that has none of its own, the same for ever."""
    kept, held_out = stratified(labels, size, seed=0)
    return (images[kept], labels[kept]), (images[held_out], labels[held_out])
