"""What every source of data gives, and what holds for all of them."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

ENV_DATA_DIR = "LRAJAX_DATA_DIR"
"""The environment variable that stands in for a `data_dir` that is not given."""
MAX_BYTES = 1 << 30  # 20 times MNIST: a file that declares or holds more is not believed


class Examples(NamedTuple):
    """Examples of a set.

    Attributes:
      x: uint8 or float32 [N, n_features], images flattened row by row, channels last.
      y: int32 [N], class numbers.
    """

    x: np.ndarray
    y: np.ndarray


class Dataset(NamedTuple):
    """Three disjoint sets of examples and what is needed to interpret them.

    Attributes:
      train: the examples to learn from.
      valid: examples held out of the training set, to select the epoch by.
      test: the set's own test examples.
      image_shape: of one example before flattening: (28, 28), or (32, 32, 3) with colours; of
          features that are no image, (n_features,).
      num_classes: labels are in 0 .. num_classes - 1.
      max_pixel: pixels divided by it are in [0, 1]: 255., for digits 16.; 1. for pixels that are
          numbers with a fraction, which are taken as they are.
      name: as given to `load`.
      class_names: by label; empty where nobody named them.
    """

    train: Examples
    valid: Examples
    test: Examples
    image_shape: tuple[int, ...]
    num_classes: int
    max_pixel: float
    name: str
    class_names: tuple[str, ...] = ()


class DataError(ValueError):
    """Bad data or a bad request for it, in one line: what is wrong, which flag, the remedy."""


class Source(NamedTuple):
    """What every route delivers.

    Attributes:
      train: images [N, *image_shape] and labels [N].
      test: likewise.
      class_names: by label.
      max_pixel: as in `Dataset`.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    class_names: tuple[str, ...]
    max_pixel: float = 255.0


def numbered(num_classes: int) -> tuple[str, ...]:
    """Names of classes that have none: their numbers."""
    return tuple(map(str, range(num_classes)))


def is_colour(image_shape: tuple[int, ...]) -> bool:
    """Whether images have channels; those of one channel, (H, W), have none."""
    return len(image_shape) == 3


def check_examples(examples: Examples, num_classes: int, what: str = "examples") -> None:
    """Checks that there is one class number for each image.

    Args:
        examples: may be traced: their numbers are then looked at nowhere, their shapes always.
        num_classes: labels are in 0 .. num_classes - 1.
        what: begins the message.

    Raises:
        ValueError: other numbers of images and labels, labels that are no whole numbers, or
            outside the classes; JAX would clamp the row, or encode the label as zeros.
    """
    x, y = examples
    if np.ndim(y) != 1 or len(x) != len(y):
        raise ValueError(
            f"{what}: {len(x)} images and labels of shape {np.shape(y)}: give each image one label"
        )
    if y.dtype.kind not in "iub":
        raise ValueError(f"{what}: labels are {y.dtype}: give class numbers, 0..{num_classes - 1}")
    if isinstance(y, jax.core.Tracer) or not len(y):
        return
    labels = np.asarray(y)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{what}: labels run from {labels.min()} to {labels.max()}, outside "
            f"0..{num_classes - 1}: number the classes from 0, or name more of them"
        )


@contextlib.contextmanager
def explained(what: Any, remedy: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns any of `errors` into a one-line `DataError`; some messages run to many lines."""
    try:
        yield
    except DataError:
        raise
    except errors as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise DataError(f"{what} ({reason}); {remedy}") from error
