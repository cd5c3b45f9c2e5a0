"""Image-classification sets as NumPy arrays on the host: train, validation and test.

| name | what | train + valid / test | source, licence |
| --- | --- | --- | --- |
| `digits` | 8x8 handwritten digits, embedded, no download | 1,350 + 150 / 297 | scikit-learn's copy of UCI's Optical Recognition of Handwritten Digits, CC BY 4.0 |
| `mnist` | 28x28 handwritten digits | 58,000 + 2,000 / 10,000 | LeCun, Cortes, Burges, CC BY-SA 3.0 |
| `fashion_mnist` | 28x28 articles of clothing | 58,000 + 2,000 / 10,000 | Xiao, Rasul, Vollgraf 2017, MIT |
| any other | a TFDS set with `image` and `label`, already prepared on disk | 29/30 + 1/30 / its own | see its TFDS page |

The two MNISTs come from a folder of the four official IDX files, plain or gzipped, or, where no
folder is named, through tensorflow-datasets (TFDS) without TensorFlow. Both ways give the same
examples in the same order, checked against the same MD5 sums, so a seed means the same run.
"""  # noqa: E501 - a table row cannot be wrapped

import contextlib
import difflib
import functools
import gzip
import hashlib
import http.client
import math
import os
import re
import struct
import threading
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

ENV_DATA_DIR = "LRAJAX_DATA_DIR"
NAMES = ("digits", "mnist", "fashion_mnist")

_UINT8 = 0x08  # the IDX type code; the official image and label files use no other
_MAX_IDX_BYTES = 1 << 30  # 20 times MNIST: a header that declares more is not believed
_PROBE_SECONDS = 5.0


class Examples(NamedTuple):
    """x: uint8 [N, n_features] (images flattened, row by row), y: int32 [N] class index."""

    x: np.ndarray
    y: np.ndarray


class Dataset(NamedTuple):
    """Three disjoint sets of examples and what is needed to interpret them.

    Attributes:
        train: the examples to learn from.
        valid: examples held out of the training set, to select the epoch by.
        test: the set's own test examples.
        image_shape: of one example before flattening: (28, 28), or (32, 32, 3) with colours.
        num_classes: labels are in 0 .. num_classes - 1.
        max_pixel: pixels divided by it are in [0, 1]: 255., for digits 16.
        name: as given to `load`.
    """

    train: Examples
    valid: Examples
    test: Examples
    image_shape: tuple[int, ...]
    num_classes: int
    max_pixel: float
    name: str


class DataError(ValueError):
    """Bad data or a bad request for it, in one line: what is wrong, which flag, the remedy."""


class _IdxSet(NamedTuple):
    """Where a set's IDX files are published, and the MD5 of each *uncompressed* file."""

    url: str
    md5: dict[str, str]


_IDX_SETS = {
    "mnist": _IdxSet(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion_mnist": _IdxSet(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}


class _Source(NamedTuple):
    """What every route delivers: images [N, height, width(, channels)], labels [N]."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    num_classes: int = 10
    max_pixel: float = 255.0


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
        name: `digits`, `mnist`, `fashion_mnist`, or a TFDS set that is already prepared on disk.
        data_dir: for the two MNISTs the folder with the four IDX files, or one holding a folder
            `<name>/` with them; default the environment variable `LRAJAX_DATA_DIR`, and without
            it TFDS's own folder and, the first time, a download. For another TFDS set, TFDS's
            data folder if it is not the default one. `digits` is embedded and reads no folder.
        valid_size: how many training examples to hold out. Default: 150 of digits' 1,500 (10 %,
            for fewer would make one example's error cost more than 1 %), 2,000 of the MNISTs'
            60,000, and the MNISTs' proportion, a thirtieth, of any other set.
        split_seed: of the stratified shuffle.

    Returns:
        A `Dataset` of uint8 [N, n_features] images and int32 [N] labels.

    Raises:
        DataError: an unknown name, missing or damaged files, no network, an unfit `valid_size`.
    """
    if name == "digits":
        source, default_valid = _digits(), 150
    elif name in _IDX_SETS:
        folder = data_dir or os.environ.get(ENV_DATA_DIR)
        source = _from_folder(name, folder) if folder else _from_tfds(name)
        default_valid = 2000
    else:
        source = _prepared(name, data_dir)
        default_valid = max(len(source.train[1]) // 30, source.num_classes)
    image_shape = _image_shape(source, name)
    train = _examples(source.train, source.num_classes, f"{name}: the training set")
    test = _examples(source.test, source.num_classes, f"{name}: the test set")
    size = default_valid if valid_size is None else valid_size
    kept, held_out = _stratified(train.y, size, split_seed)
    return Dataset(
        train=Examples(train.x[kept], train.y[kept]),
        valid=Examples(train.x[held_out], train.y[held_out]),
        test=test,
        image_shape=image_shape,
        num_classes=source.num_classes,
        max_pixel=source.max_pixel,
        name=name,
    )


# --- What holds for every source ---------------------------------------------------------------


def _image_shape(source: _Source, name: str) -> tuple[int, ...]:
    """The common shape of all images, without a channel axis of size 1."""
    train, test = source.train[0].shape[1:], source.test[0].shape[1:]
    if train != test or len(train) not in (2, 3) or 0 in train:
        raise DataError(
            f"{name}: images have shapes {train} (train) and {test} (test), not one shape "
            "(height, width) or (height, width, channels); choose another --dataset"
        )
    return train[:2] if train[2:] == (1,) else train


def _examples(pair: tuple[np.ndarray, np.ndarray], num_classes: int, what: str) -> Examples:
    """Checks and flattens; the label check keeps a bad label from one-hot encoding to zeros."""
    images, labels = pair
    if len(images) == 0 or labels.shape != (len(images),):
        raise DataError(
            f"{what} has {len(images)} images and labels of shape {labels.shape}; it needs "
            "at least one image and one label for each: check --data_dir"
        )
    if images.dtype != np.uint8:
        raise DataError(f"{what} has {images.dtype} pixels, not uint8; choose another --dataset")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"{what} has labels from {labels.min()} to {labels.max()}, outside "
            f"0..{num_classes - 1}: check --data_dir"
        )
    return Examples(images.reshape(len(images), -1), labels.astype(np.int32))


def _stratified(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending indices (kept, held out) of a class-stratified shuffle with `size` held out."""
    from sklearn.model_selection import train_test_split  # lazy: importing it takes a second

    if not isinstance(size, int | np.integer) or not 0 < size < len(labels):
        raise DataError(
            f"--valid_size={size} is not a whole number from 1 to {len(labels) - 1} "
            f"(there are {len(labels)} training examples); choose one well below that"
        )
    what = f"--valid_size={size}, split seed {seed}: no class-stratified split of {len(labels)}"
    with _explained(what, "change --valid_size", ValueError):  # fewer than one of each class, say
        kept, held_out = train_test_split(
            np.arange(len(labels)), test_size=int(size), stratify=labels, random_state=seed
        )
    return np.sort(kept), np.sort(held_out)


@contextlib.contextmanager
def _explained(what: str, remedy: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns any of `errors` into a one-line `DataError`; TFDS's own messages run to many lines."""
    try:
        yield
    except DataError:
        raise
    except errors as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise DataError(f"{what} ({reason}); {remedy}") from error


# --- Digits ------------------------------------------------------------------------------------


def _digits() -> _Source:
    """scikit-learn's 1,797 digits; one sixth, 297, is the test set by a split fixed for ever."""
    from sklearn.datasets import load_digits  # lazy: importing it takes a second

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target
    kept, held_out = _stratified(labels, 297, seed=0)
    return _Source(
        train=(images[kept], labels[kept]),
        test=(images[held_out], labels[held_out]),
        max_pixel=16.0,
    )


# --- IDX files ---------------------------------------------------------------------------------


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzipped (told by content, not by name).

    The header is read first and bounds everything after it, so a file that lies about its size,
    or a small gzip file that unpacks to terabytes, costs no more memory than it declares, and it
    may declare at most 1 GiB.

    Args:
        path: of the file.

    Returns:
        A read-only uint8 array of the shape that the header declares.

    Raises:
        DataError: the file is missing, unreadable, truncated, corrupted or not such a file.
    """
    path = Path(path)
    if not path.is_file():  # also keeps a named pipe from blocking the read
        raise DataError(f"{path}: no such file; point --data_dir to the IDX files")
    damaged = (OSError, EOFError, zlib.error)  # BadGzipFile is an OSError
    explained = _explained(f"{path}: unreadable or corrupted", "get the file again", *damaged)
    with explained, path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if zipped else raw as stream:
            return _parse_idx(stream, path)


def _parse_idx(stream: Any, path: Path) -> np.ndarray:
    """Layout: 0, 0, type code, number of axes; the axes' sizes, big-endian uint32; the bytes."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path}: not an IDX file (it starts with {magic!r}); get the file again")
    type_code, ndim = magic[2:]
    if type_code != _UINT8 or not 1 <= ndim <= 4:
        raise DataError(
            f"{path}: IDX type 0x{type_code:02x} with {ndim} axes, where unsigned bytes (0x08) "
            "with 1 to 4 axes are read; get the official file"
        )
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(f"{path}: truncated within the IDX header; get the file again")
    shape = struct.unpack(f">{ndim}I", sizes)
    declared = math.prod(shape)  # Python integers: cannot overflow
    if declared > _MAX_IDX_BYTES:
        raise DataError(f"{path}: declares {declared} bytes, beyond belief; get the official file")
    payload = stream.read(declared + 1)  # one more, to notice trailing bytes (and gzip's checksum)
    if len(payload) != declared:
        found = f"only {len(payload)}" if len(payload) < declared else "more"
        raise DataError(f"{path}: declares {declared} bytes, holds {found}; get the file again")
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _md5(array: np.ndarray) -> str:
    """MD5 of the uncompressed IDX file that holds `array`, whatever it was read from."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _UINT8, array.ndim, *array.shape)
    digest = hashlib.md5(header, usedforsecurity=False)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _verified(name: str, arrays: Mapping[str, np.ndarray], where: str) -> _Source:
    """Checks the four arrays, by official file name, against the set's MD5 sums."""
    for file, expected in _IDX_SETS[name].md5.items():
        found = _md5(arrays[file])
        if found == expected:
            continue
        owners = [other for other, known in _IDX_SETS.items() if found in known.md5.values()]
        guess = f"it is from {owners[0]}" if owners else "corrupted, or another data set"
        raise DataError(
            f"{where}: {file} is not {name}'s: its uncompressed MD5 is {found}, not {expected} "
            f"({guess}); check --dataset and --data_dir, or get {_IDX_SETS[name].url}{file}.gz"
        )
    train_x, train_y, test_x, test_y = (arrays[file] for file in _IDX_SETS[name].md5)
    return _Source(train=(train_x, train_y), test=(test_x, test_y))


def _from_folder(name: str, folder: str | os.PathLike[str]) -> _Source:
    paths = _find_idx(name, Path(os.path.expanduser(folder)))
    return _verified(name, {file: read_idx(path) for file, path in paths.items()}, str(folder))


def _find_idx(name: str, folder: Path) -> dict[str, Path]:
    """The four files in `<folder>/<name>` or `folder`, whichever holds more of them."""
    candidates = []
    for place in (folder / name, folder):
        choices = {file: (place / file, place / f"{file}.gz") for file in _IDX_SETS[name].md5}
        found = {file: [p for p in both if p.is_file()] for file, both in choices.items()}
        candidates.append({file: paths[0] for file, paths in found.items() if paths})
    best = max(candidates, key=len)
    missing = [file for file in _IDX_SETS[name].md5 if file not in best]
    if missing:
        state = "lacks" if folder.is_dir() else "is not a folder, so it lacks"
        raise DataError(
            f"{name}: --data_dir (or {ENV_DATA_DIR}) {folder} {state} {', '.join(missing)} "
            f"(plain or .gz); get them from {_IDX_SETS[name].url} or point it elsewhere"
        )
    return best


# --- tensorflow-datasets ------------------------------------------------------------------------
# Imported inside the functions: the import takes most of a second and few runs need it.


def _from_tfds(name: str) -> _Source:
    """The IDX files by way of TFDS's download and its folder of prepared sets."""
    builder = _idx_builder()(config=name, file_format="array_record")
    if not builder.is_prepared():
        _require_network(name)
        import tensorflow_datasets as tfds

        remedy = "pass --data_dir=FOLDER with the four IDX files"
        with _explained(f"{name}: tensorflow-datasets failed to prepare it", remedy, Exception):
            # Not from TFDS's bucket: the sets there are in a format that needs TensorFlow.
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    remedy = f"delete {builder.data_dir} or pass --data_dir=FOLDER with the IDX files"
    train, test = (_read_split(builder, split, remedy) for split in ("train", "test"))
    arrays = (array.astype(np.uint8) for array in (*train, *test))  # labels come as int64
    by_file = dict(zip(_IDX_SETS[name].md5, arrays, strict=True))
    return _verified(name, by_file, str(builder.data_dir))


def _require_network(name: str) -> None:
    """Raises within seconds if the set's host does not answer; TFDS would retry for minutes.

    A request, not a bare socket, so that a proxy from the environment counts as a network; in a
    thread, because a timeout does not bound the look-up of the host's name.
    """
    url = _IDX_SETS[name].url + "train-labels-idx1-ubyte.gz"
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.5 * _PROBE_SECONDS)
    if not answered.is_set():
        raise DataError(
            f"{name}: no answer from {url} (no network?); pass --data_dir=FOLDER with the four "
            f"IDX files, or set {ENV_DATA_DIR}, or use --dataset=digits, which is embedded"
        )


@functools.cache
def _idx_builder() -> Any:
    """A TFDS builder, named `lrajax_idx`, that prepares the IDX sets without TensorFlow.

    TFDS's own builders of these sets extract the archives through TensorFlow.
    """
    import tensorflow_datasets as tfds

    # TFDS is not typed, so the type checker does not know the base's arguments.
    class LrajaxIdx(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """MNIST and Fashion-MNIST in their official order."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS: ClassVar = [
            tfds.core.BuilderConfig(name=name, description=f"{name} from {source.url}")
            for name, source in _IDX_SETS.items()
        ]

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Tensor(shape=(28, 28), dtype=np.uint8, encoding="bytes"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,  # the order of the IDX route, so the same seeds agree
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            name = self.builder_config.name
            urls = {file: f"{_IDX_SETS[name].url}{file}.gz" for file in _IDX_SETS[name].md5}
            paths = dl_manager.download(urls)
            arrays = {file: read_idx(path) for file, path in paths.items()}
            where = f"{dl_manager.download_dir} (delete it to download again)"
            source = _verified(name, arrays, where)
            return {
                "train": self._generate_examples(*source.train),
                "test": self._generate_examples(*source.test),
            }

        def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Any:
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": image, "label": int(label)}

    return LrajaxIdx


def _prepared(name: str, data_dir: str | os.PathLike[str] | None) -> _Source:
    """Any TFDS set that is on disk in a format with random access."""
    builder = _find_prepared(name, data_dir)
    features = dict(getattr(builder.info.features, "items", dict)())
    splits = builder.info.splits
    num_classes = getattr(features.get("label"), "num_classes", None)
    if "image" not in features or not num_classes or not {"train", "test"} <= set(splits):
        raise DataError(
            f"{name}: has features {sorted(features)} and splits {sorted(splits)}; --dataset "
            "needs features image and label (a class) and splits train and test"
        )
    remedy = f"prepare it again: tfds build {name} --file_format=array_record --overwrite"
    train, test = (_read_split(builder, split, remedy) for split in ("train", "test"))
    return _Source(train, test, num_classes)


def _find_prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    import tensorflow_datasets as tfds

    # TFDS would look for `namespace:name` on the network and read keyword arguments after a slash.
    well_formed = re.fullmatch(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?", name, re.ASCII)
    what = f"--dataset={name}: tensorflow-datasets cannot open it"  # it may need TensorFlow, say
    with _explained(what, f"use one of {', '.join(NAMES)}", Exception):
        try:
            if not well_formed:
                raise tfds.core.DatasetNotFoundError(name)
            folder = os.path.expanduser(data_dir) if data_dir else None
            builder = tfds.builder(name, data_dir=folder)
            prepared = builder.is_prepared()
        except tfds.core.DatasetNotFoundError:
            known = {*NAMES, *tfds.list_builders(with_community_datasets=False)}
            nearest = ", ".join(difflib.get_close_matches(name, known, n=3)) or "none"
            raise DataError(
                f"unknown --dataset={name}; nearest: {nearest}; valid: {', '.join(NAMES)}, or any "
                "image-classification set of tensorflow-datasets that is already prepared"
            ) from None
    if not prepared:
        raise DataError(
            f"--dataset={name} is not prepared in {builder.data_dir}; run: tfds build {name} "
            "--file_format=array_record, or name the folder of prepared sets by --data_dir"
        )
    return builder


def _read_split(builder: Any, split: str, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    what = f"{builder.info.full_name}: cannot read split {split} in {builder.data_dir}"
    with _explained(what, remedy, Exception):  # no random access, damage, no image decoder, ...
        source = builder.as_data_source(split=split)
        examples = source.__getitems__(range(len(source)))  # twice as fast as one by one
        images = np.stack([example["image"] for example in examples])  # fails on ragged or none
        return images, np.asarray([example["label"] for example in examples])
