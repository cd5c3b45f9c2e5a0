"""Image-classification sets as NumPy arrays on the host: train, validation and test.

| name | what | train + valid / test | source, licence |
| --- | --- | --- | --- |
| `digits` | 8x8 handwritten digits, embedded, no download | 1,350 + 150 / 297 | scikit-learn's copy of UCI's Optical Recognition of Handwritten Digits, CC BY 4.0 |
| `mnist` | 28x28 handwritten digits | 58,000 + 2,000 / 10,000 | LeCun, Cortes, Burges, CC BY-SA 3.0 |
| `fashion_mnist` | 28x28 articles of clothing | 58,000 + 2,000 / 10,000 | Xiao, Rasul, Vollgraf 2017, MIT |
| `cifar10`, `cifar100` | 32x32 colour photographs of 10 or 100 kinds of things | 45,000 + 5,000 / 10,000 | Krizhevsky 2009, none declared |
| `FILE.npz` | x and y, or x_train, y_train, x_test and y_test | 29/30 + 1/30 / its own, or a sixth | yours |
| a folder | IDX files of any names | the same | yours |
| any other | a TFDS set with `image` and `label`, already prepared on disk | 29/30 + 1/30 / its own | see its TFDS page |

The MNISTs and CIFARs come from a folder of the official files, or, where no folder is named,
through tensorflow-datasets (TFDS) without TensorFlow. Both ways give the same examples in the same
order, checked against published MD5 sums, so a seed means the same run.
"""  # noqa: E501 - a table row cannot be wrapped

import os
import re
from pathlib import Path

import numpy as np

from lrajax.data import cifar, digits, idx, own, tfds
from lrajax.data.augment import AUGMENTATIONS, augmentation
from lrajax.data.dataset import (
    ENV_DATA_DIR,
    DataError,
    Dataset,
    Examples,
    Source,
    check_examples,
    is_colour,
)
from lrajax.data.idx import read_idx
from lrajax.data.split import stratified
from lrajax.data.standardize import channel_moments, standardizer
from lrajax.data.tfds import NAMES

MOST_CHANNELS = 4

__all__ = [
    "AUGMENTATIONS",
    "ENV_DATA_DIR",
    "NAMES",
    "DataError",
    "Dataset",
    "Examples",
    "augmentation",
    "channel_moments",
    "check_examples",
    "is_colour",
    "load",
    "read_idx",
    "standardizer",
]


def load(
    name: str = "digits",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    valid_size: int | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Loads a set and holds a class-stratified validation part out of its training examples.

    The split depends on `split_seed` alone, not on the seed of a training run: several runs with
    different seeds are vmapped into one compiled program over one copy of the data. Within each
    part the source's order is kept. The test part never depends on either seed.

    Args:
        name: `digits`, `mnist`, `fashion_mnist`, `cifar10`, `cifar100`, a TFDS set that is already
            prepared on disk, or the path of an .npz file or of a folder of IDX files.
        data_dir: for the two MNISTs the folder with the four IDX files, or one holding a folder
            `<name>/` with them; for the CIFARs the folder with the binary batches or the .tar.gz,
            or the one that holds it; default the environment variable `LRAJAX_DATA_DIR`, and
            without it TFDS's own folder and, the first time, a download. For another TFDS set, or
            the CIFARs as TFDS prepares them, TFDS's data folder if it is not the default one.
            `digits` and paths read no folder.
        valid_size: how many training examples to hold out. Default: 150 of digits' 1,500 (10 %,
            for fewer would make one example's error cost more than 1 %), 2,000 of the MNISTs'
            60,000, 5,000 of the CIFARs' 50,000, and a thirtieth of any other set.
        split_seed: of the stratified shuffle.

    Returns:
        A `Dataset` of [N, n_features] images, uint8 or float32, and int32 [N] labels.

    Raises:
        DataError: an unknown name, missing or damaged files, no network, an unfit `valid_size`.
    """
    source, default_valid = _source(name, data_dir)
    image_shape = _image_shape(source, name)
    train = _examples(source.train, source, f"{name}: the training set")
    test = _examples(source.test, source, f"{name}: the test set")
    size = default_valid if valid_size is None else valid_size
    kept, held_out = stratified(train.y, size, split_seed)
    return Dataset(
        train=Examples(train.x[kept], train.y[kept]),
        valid=Examples(train.x[held_out], train.y[held_out]),
        test=test,
        image_shape=image_shape,
        num_classes=len(source.class_names),
        max_pixel=source.max_pixel,
        name=name,
        class_names=source.class_names,
    )


def _source(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Source, int]:
    """The set as its source has it, and how many examples to hold out by default."""
    if name == "digits":
        return digits.load(), 150
    if name in NAMES:
        folder = data_dir or os.environ.get(ENV_DATA_DIR)
        place = Path(os.path.expanduser(folder)) if folder else None
        return _official(name, place), 5000 if name in cifar.SETS else 2000
    _check_spelling(name)
    path = Path(os.path.expanduser(name))
    if name.endswith(".npz"):
        source = own.from_npz(path)
    elif name and path.is_dir():
        source = own.from_idx(path)
    else:
        source = tfds.prepared(name, data_dir)
    return source, max(len(source.train[1]) // 30, len(source.class_names))


def _official(name: str, place: Path | None) -> Source:
    """A set by the files that were published."""
    if place is None:
        return tfds.fetched(name)
    if name in idx.SETS:
        return idx.from_folder(name, place)
    if (place / name).is_dir() and not cifar.lies_in(name, place):
        return tfds.prepared(name, place)  # the same images, in TFDS's order
    return cifar.from_folder(name, place)


def _check_spelling(name: str) -> None:
    """Refuses MNIST, fashion-mnist, CIFAR-10: TFDS would know them, by other files."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    for known in NAMES:
        if bare == known.replace("_", ""):
            raise DataError(f"unknown --dataset={name}: did you mean {known}?")


def _image_shape(source: Source, name: str) -> tuple[int, ...]:
    """The common shape of all images, without a channel axis of size 1."""
    train, test = source.train[0].shape[1:], source.test[0].shape[1:]
    if train != test or len(train) not in (1, 2, 3) or 0 in train:
        raise DataError(
            f"{name}: images have shapes {train} (train) and {test} (test), not one shape "
            "(height, width), (height, width, channels) or (features,); change --dataset"
        )
    if train[2:] > (MOST_CHANNELS,):
        raise DataError(
            f"{name}: images of shape {train} have {train[2]} channels, at most {MOST_CHANNELS} "
            "are read, and they come last: turn --dataset round, x.transpose(0, 2, 3, 1)"
        )
    return train[:2] if train[2:] == (1,) else train


def _examples(pair: tuple[np.ndarray, np.ndarray], source: Source, what: str) -> Examples:
    """Checks and flattens."""
    images, labels = pair
    if not len(images):
        raise DataError(f"{what} has 0 images; it needs one at least: check --data_dir")
    same = images.dtype == source.train[0].dtype
    if not same or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise DataError(
            f"{what} has {images.dtype} pixels; --dataset needs uint8, or numbers with a fraction, "
            "in both parts: convert them"
        )
    x = images.reshape(len(images), -1)
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{what} has pixels that are not finite; mend --dataset")
    try:
        check_examples(Examples(x, labels), len(source.class_names), what)
    except ValueError as error:
        raise DataError(f"{error}; check --data_dir") from None
    return Examples(x, labels.astype(np.int32))
