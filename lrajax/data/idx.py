"""IDX files, the format of MNIST, and the two sets that are published in it."""

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lrajax.data.dataset import ENV_DATA_DIR, MAX_BYTES, DataError, Source, explained, numbered

_UINT8 = 0x08  # the IDX type code; the official image and label files use no other


class IdxSet(NamedTuple):
    """How a set of IDX files is published.

    Attributes:
      url: of the folder.
      md5: of each *uncompressed* file.
      class_names: by label.
    """

    url: str
    md5: dict[str, str]
    class_names: tuple[str, ...]


SETS = {
    "mnist": IdxSet(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        numbered(10),
    ),
    "fashion_mnist": IdxSet(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        (
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
    ),
}


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
    reading = explained(f"{path}: unreadable or corrupted", "get the file again", *damaged)
    with reading, path.open("rb") as raw:
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
    # Of no bytes too: NumPy has no array whose other axes are beyond what an integer counts.
    if math.prod(size or 1 for size in shape) > MAX_BYTES:
        raise DataError(f"{path}: declares axes of {shape}, beyond belief; get the official file")
    payload = stream.read(declared + 1)  # one more, to notice trailing bytes (and gzip's checksum)
    if len(payload) != declared:
        found = f"only {len(payload)}" if len(payload) < declared else "more"
        raise DataError(f"{path}: declares {declared} bytes, holds {found}; get the file again")
    return np.frombuffer(payload, np.uint8).reshape(shape)


def md5_of(array: np.ndarray) -> str:
    """MD5 of the uncompressed IDX file that holds `array`, whatever it was read from."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _UINT8, array.ndim, *array.shape)
    digest = hashlib.md5(header, usedforsecurity=False)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def verified(name: str, arrays: Mapping[str, np.ndarray], where: str) -> Source:
    """Checks the four arrays, by official file name, against the set's MD5 sums."""
    for file, expected in SETS[name].md5.items():
        found = md5_of(arrays[file])
        if found == expected:
            continue
        owners = [other for other, known in SETS.items() if found in known.md5.values()]
        guess = f"it is from {owners[0]}" if owners else "corrupted, or another data set"
        raise DataError(
            f"{where}: {file} is not {name}'s: its uncompressed MD5 is {found}, not {expected} "
            f"({guess}); check --dataset and --data_dir, or get {SETS[name].url}{file}.gz"
        )
    train_x, train_y, test_x, test_y = (arrays[file] for file in SETS[name].md5)
    return Source((train_x, train_y), (test_x, test_y), SETS[name].class_names)


def urls(name: str) -> dict[str, str]:
    """Where each of a set's files is published, gzipped."""
    return {file: f"{SETS[name].url}{file}.gz" for file in SETS[name].md5}


def from_files(name: str, paths: Mapping[str, Path], where: str) -> Source:
    """The set in the files of these official names, checked."""
    return verified(name, {file: read_idx(path) for file, path in paths.items()}, where)


def from_folder(name: str, folder: Path) -> Source:
    """The official files in `<folder>/<name>` or `folder`, plain or gzipped."""
    return from_files(name, _find_idx(name, folder), str(folder))


def _find_idx(name: str, folder: Path) -> dict[str, Path]:
    """The four files in `<folder>/<name>` or `folder`, whichever holds more of them."""
    candidates = []
    for place in (folder / name, folder):
        choices = {file: (place / file, place / f"{file}.gz") for file in SETS[name].md5}
        found = {file: [p for p in both if p.is_file()] for file, both in choices.items()}
        candidates.append({file: paths[0] for file, paths in found.items() if paths})
    best = max(candidates, key=len)
    missing = [file for file in SETS[name].md5 if file not in best]
    if missing:
        state = "lacks" if folder.is_dir() else "is not a folder, so it lacks"
        raise DataError(
            f"{name}: --data_dir (or {ENV_DATA_DIR}) {folder} {state} {', '.join(missing)} "
            f"(plain or .gz); get them from {SETS[name].url} or point it elsewhere"
        )
    return best
