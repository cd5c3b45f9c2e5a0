"""One's own data: an .npz file, or a folder of IDX files."""

import gzip
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lrajax.data.dataset import DataError, Source, explained, numbered
from lrajax.data.idx import read_idx
from lrajax.data.split import Pair, hold_out_test

_PARTS = ("x", "y", "x_train", "y_train", "x_test", "y_test", "class_names")
_TEST = re.compile(r"(?<![a-z])(test|t10k)")


def from_npz(path: Path) -> Source:
    """A file of `numpy.savez`: x, y, or x_train, y_train, x_test, y_test; class_names at will.

    Without a test part a sixth is held out, the same for ever. x is uint8, or numbers with a
    fraction, which are taken as they are: [N, H, W], [N, H, W, C] or [N, n_features].

    Raises:
        DataError: a file that is missing, damaged, pickled, or holds something else.
    """
    if not path.is_file():
        raise DataError(f"--dataset={path}: no such file; name an .npz that numpy.savez wrote")
    damaged = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile)
    remedy = "write arrays of numbers by numpy.savez, no objects: they are not unpickled"
    reading = explained(f"--dataset={path}: unreadable, corrupted or pickled", remedy, *damaged)
    with reading, path.open("rb") as raw:  # NumPy leaves a damaged file open
        file = np.load(raw, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"--dataset={path} is one array; write x and y by numpy.savez")
        arrays = {name: file[name] for name in _PARTS if name in file.files}
        found = ", ".join(file.files) or "nothing"
    names = arrays.pop("class_names", None)
    if {"x", "y"} == arrays.keys():
        return _source(path, (arrays["x"], arrays["y"]), None, names)
    if set(_PARTS[2:6]) == arrays.keys():
        x_train, y_train, x_test, y_test = (arrays[name] for name in _PARTS[2:6])
        return _source(path, (x_train, y_train), (x_test, y_test), names)
    raise DataError(
        f"--dataset={path} holds {found}; it needs x and y, or x_train, y_train, x_test and y_test"
    )


def from_idx(folder: Path) -> Source:
    """The IDX files of a folder, whatever their names: "test" or "t10k" marks the test part.

    Images have two axes or more, labels one. Without a test part a sixth is held out.

    Raises:
        DataError: not one file of images and one of labels for each part, or a damaged one.
    """
    with explained(f"--dataset={folder}: unreadable", "choose another folder", OSError):
        paths = [path for path in sorted(folder.iterdir()) if _is_idx(path)]
    train: dict[str, np.ndarray] = {}
    test: dict[str, np.ndarray] = {}
    for path in paths:
        array = read_idx(path)
        part = test if _TEST.search(path.name.lower()) else train
        kind = "labels" if array.ndim == 1 else "images"
        if kind in part:
            raise DataError(
                f"--dataset={folder}: {path.name} is a second file of {kind}; keep one for "
                "training, and one with test in its name"
            )
        part[kind] = array
    if len(train) != 2 or len(test) == 1:
        raise DataError(
            f"--dataset={folder} holds IDX files {[path.name for path in paths]}; it needs one of "
            "images and one of labels, and none or both with test in their names"
        )
    return _source(folder, _pair(train), _pair(test) if test else None, None)


def _pair(part: Mapping[str, np.ndarray]) -> Pair:
    return part["images"], part["labels"]


def _is_idx(path: Path) -> bool:
    """Whether a file begins as an IDX file does; others may lie in the folder."""
    if not path.is_file():
        return False
    with path.open("rb") as raw:
        magic = raw.read(3)
    if magic[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as stream:
                magic = stream.read(3)
        except (OSError, EOFError, zlib.error):
            return True  # to be refused by name
    return magic[:2] == b"\0\0" and len(magic) == 3


def _source(path: Path, train: Pair, test: Pair | None, names: np.ndarray | None) -> Source:
    for part in filter(None, (train, test)):
        _check_pair(path, *part)
    labels = np.concatenate([part[1] for part in (train, test) if part])
    if names is None:
        class_names = _numbers(path, labels)
    elif names.ndim == 1 and len(names):
        class_names = tuple(map(str, names))
    else:
        raise DataError(f"--dataset={path}: class_names must be a list of names, one a class")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(
            f"--dataset={path}: labels run from {labels.min()} to {labels.max()}, outside "
            f"0..{len(class_names) - 1}: number the classes from 0, or name more in class_names"
        )
    if test is None:
        train, test = hold_out_test(*train, max(len(labels) // 6, len(class_names)))
    return Source(train, test, class_names, 255.0 if train[0].dtype == np.uint8 else 1.0)


def _check_pair(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"--dataset={path}: labels are {labels.dtype} of shape {labels.shape}; give one class "
            "number for each image (one-hot labels: y.argmax(axis=1))"
        )
    if len(images) != len(labels) or not len(labels):
        raise DataError(
            f"--dataset={path}: {len(images)} images and {len(labels)} labels; give one label for "
            "each image"
        )


def _numbers(path: Path, labels: np.ndarray) -> tuple[str, ...]:
    """Names of classes that are numbered from 0 without a gap."""
    classes = np.unique(labels)
    if not np.array_equal(classes, np.arange(len(classes))):
        shown = ", ".join(map(str, classes[:5])) + ", ..." * (len(classes) > 5)
        raise DataError(
            f"--dataset={path}: the labels are {shown}, not 0..C-1 without a gap: number the "
            "classes from 0, or name all of them in class_names"
        )
    return numbered(len(classes))
