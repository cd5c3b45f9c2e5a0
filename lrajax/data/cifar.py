"""CIFAR-10 and CIFAR-100 from the official binary batches (Krizhevsky 2009).

A record is one label byte (CIFAR-100: the coarse label, then the fine one), then 1,024 red, 1,024
green and 1,024 blue bytes, row by row. CIFAR-100 is read with its fine labels.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from lrajax.data.dataset import ENV_DATA_DIR, MAX_BYTES, DataError, Source, explained

SIDE, CHANNELS = 32, 3
URL = "https://www.cs.toronto.edu/~kriz/"
_TEN = "airplane automobile bird cat deer dog frog horse ship truck"
_HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class CifarSet(NamedTuple):
    """How a set is published.

    Attributes:
      archive: its file name, under `URL`.
      archive_md5: of the archive.
      folder: that the archive holds.
      md5: of each file, those to learn from first, the test file last.
      label_bytes: of a record; the last of them is the label.
      class_names: by label.
    """

    archive: str
    archive_md5: str
    folder: str
    md5: dict[str, str]
    label_bytes: int
    class_names: tuple[str, ...]


SETS = {
    "cifar10": CifarSet(
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
        {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
        1,
        tuple(_TEN.split()),
    ),
    "cifar100": CifarSet(
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary",
        {
            "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
            "test.bin": "4499cfba6c016c1be1438163640a0898",
        },
        2,
        tuple(_HUNDRED.split()),
    ),
}


def urls(name: str) -> dict[str, str]:
    """Where the set's archive is published."""
    return {SETS[name].archive: URL + SETS[name].archive}


def lies_in(name: str, place: Path) -> bool:
    """Whether `from_folder` finds at least a part of the set."""
    known = SETS[name]
    names = (known.archive, *known.md5, *(f"{known.folder}/{file}" for file in known.md5))
    return place.is_file() or any((place / file).is_file() for file in names)


def from_folder(name: str, place: Path) -> Source:
    """The set's folder in `place`, or `place` itself, or the archive in it, or the archive itself.

    Raises:
        DataError: it is nowhere, or it is not what was published.
    """
    known = SETS[name]
    for archive in (place, place / known.archive):
        if archive.is_file() and not (place / known.folder).is_dir():
            return from_files(name, {known.archive: archive}, str(archive))
    folders = (place / known.folder, place)
    folder = max(folders, key=lambda folder: sum((folder / file).is_file() for file in known.md5))
    missing = [file for file in known.md5 if not (folder / file).is_file()]
    if missing:
        raise DataError(
            f"{name}: --data_dir (or {ENV_DATA_DIR}) {place} lacks {', '.join(missing)}: name the "
            f"folder that holds {known.folder}/ or {known.archive}, from {URL}"
        )
    return _source(name, {file: _read(folder / file) for file in known.md5}, str(folder))


def from_files(name: str, paths: Mapping[str, Path], where: str) -> Source:
    """The set in its archive, `paths[archive]`, which is checked as a whole."""
    known = SETS[name]
    path = Path(paths[known.archive])
    damaged = (OSError, EOFError, zlib.error, tarfile.TarError, KeyError)
    with explained(f"{path}: unreadable or corrupted", "get the archive again", *damaged):
        with path.open("rb") as raw:
            found = hashlib.file_digest(raw, _md5).hexdigest()
        _check_md5(name, known.archive, found, known.archive_md5, where)
        with tarfile.open(path, "r:gz") as tar:
            # Only what has a known name is read, and nothing is written.
            members = {file: tar.extractfile(f"{known.folder}/{file}") for file in known.md5}
            contents = {file: _bounded(stream, path) for file, stream in members.items() if stream}
    return _source(name, contents, where, checked=True)


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _check_md5(name: str, file: str, found: str, expected: str, where: str) -> None:
    if found != expected:
        raise DataError(
            f"{where}: {file} is not {name}'s: its MD5 is {found}, not {expected} (corrupted, or "
            f"another data set); check --dataset and --data_dir, or get {URL}{SETS[name].archive}"
        )


def _read(path: Path) -> bytes:
    with explained(f"{path}: unreadable", "get the file again", OSError), path.open("rb") as stream:
        return _bounded(stream, path)


def _bounded(stream: IO[bytes], path: Path) -> bytes:
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: holds more than {MAX_BYTES} bytes; get the official file")
    return content


def _source(name: str, contents: Mapping[str, bytes], where: str, checked: bool = False) -> Source:
    """The set from the files' bytes, by name; `checked` if their MD5 sums are known to be right."""
    known = SETS[name]
    record = known.label_bytes + CHANNELS * SIDE**2
    for file, expected in known.md5.items():
        size = len(contents[file])
        if size % record or not size:
            raise DataError(
                f"{where}: {file} is truncated, or no {name}: {size} bytes are not whole records "
                f"of {record}; get {URL}{known.archive} again"
            )
        if not checked:
            _check_md5(name, file, _md5(contents[file]).hexdigest(), expected, where)
    *train, test = (
        np.frombuffer(contents[file], np.uint8).reshape(-1, record) for file in known.md5
    )
    return Source(_images(known, np.concatenate(train)), _images(known, test), known.class_names)


def _images(known: CifarSet, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3], channels last, and labels [N]."""
    planes = records[:, known.label_bytes :].reshape(-1, CHANNELS, SIDE, SIDE)
    return planes.transpose(0, 2, 3, 1), records[:, known.label_bytes - 1]
