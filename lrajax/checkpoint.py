"""Checkpoints: a tree of arrays in one file, which is there whole or not at all.

A file is `MAGIC`, the SHA-256 of everything after it, the format's version (little-endian uint32),
and a NumPy `.npz` archive with one array for each leaf, named by its path in the tree. Nothing in
it is ever executed: pickles are refused.

A file is written under a temporary name, flushed to the disk, then renamed, so that a process that
dies, or a disk that fills up, at any moment leaves the previous checkpoint as it was. The last two
are kept, so that one that the disk has damaged can be passed over.
"""

import hashlib
import io
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lrajax.base import PyTree

MAGIC = b"lrajax checkpoint\n"
VERSION = 1

_PREFIX = "checkpoint-"
_DIGEST = slice(len(MAGIC), len(MAGIC) + hashlib.sha256().digest_size)


class CheckpointError(ValueError):
    """A checkpoint that this program cannot use: of another format, or of another tree."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was once written: cut short, altered, or unreadable."""


class Restored(NamedTuple):
    """What `restore` found.

    Attributes:
      step: of the checkpoint; 0 if there is none.
      tree: of NumPy arrays, PRNG keys again where they were; None if there is none.
      passed_over: why newer checkpoints were not used, a line each.
    """

    step: int
    tree: PyTree | None
    passed_over: list[str]


def save(folder: str | os.PathLike[str], step: int, tree: PyTree, keep: int = 2) -> None:
    """Writes the checkpoint of a step, then removes all but the last `keep` up to it.

    Checkpoints of later steps are removed too: after a return to `step` they belong to the past.

    Args:
      folder: must exist.
      step: >= 1, and rising unless a run has gone back to an older checkpoint.
      tree: of arrays on the host or fully addressable, PRNG keys included.
      keep: how many are kept.

    Raises:
      OSError: it cannot be written; the checkpoints before it are untouched.
      TypeError: a leaf of a type that NumPy's format does not know, such as bfloat16.
    """
    folder = Path(folder)
    content = struct.pack("<I", VERSION) + to_npz(tree)
    write(path_of(folder, step), MAGIC + hashlib.sha256(content).digest() + content)
    remove(folder, except_for=[old for old in steps(folder) if old <= step][-keep:])


def restore(folder: str | os.PathLike[str], like: PyTree, last: int | None = None) -> Restored:
    """Reads the newest checkpoint that is undamaged.

    Args:
      folder: where `save` wrote.
      like: a tree of the same structure, shapes and dtypes: arrays, or `jax.eval_shape`'s.
      last: the last step that is of use; None for any.

    Raises:
      CheckpointError: an undamaged checkpoint of another format version, or that does not fit.
    """
    passed_over = []
    for step in reversed(steps(folder)):
        path = path_of(folder, step)
        if last is not None and step > last:
            passed_over.append(f"{path} is later than step {last}")
            continue
        try:
            return Restored(step, load(path, like), passed_over)
        except DamagedError as error:
            passed_over.append(str(error))
    return Restored(0, None, passed_over)


def remove(folder: str | os.PathLike[str], except_for: Sequence[int] = ()) -> None:
    """Deletes the checkpoints of all steps but some, and what a dead process left half written."""
    kept = [path_of(folder, step) for step in except_for]
    for path in Path(folder).glob(f"{_PREFIX}*"):
        if path not in kept:
            path.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """Reads one checkpoint; see `restore`.

    Raises:
      DamagedError: it is not what was written.
      CheckpointError: it is of another format version, or does not fit `like`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
    content = data[_DIGEST.stop :]
    if not data.startswith(MAGIC) or hashlib.sha256(content).digest() != data[_DIGEST]:
        raise DamagedError(f"{path} is damaged")
    (version,) = struct.unpack("<I", content[:4])
    if version != VERSION:
        raise CheckpointError(
            f"{path} has format {version}, and this version of lrajax reads {VERSION}: "
            "use the version that wrote it, or delete the file"
        )
    with np.load(io.BytesIO(content[4:]), allow_pickle=False) as file:
        return _fit(dict(file), like, path)


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """The steps that a folder has checkpoints of, ascending."""
    matches = (re.fullmatch(rf"{_PREFIX}(\d+)", path.name) for path in Path(folder).iterdir())
    return sorted(int(match[1]) for match in matches if match)


def path_of(folder: str | os.PathLike[str], step: int) -> Path:
    """The file of a step's checkpoint."""
    return Path(folder) / f"{_PREFIX}{step:08}"


def to_npz(tree: PyTree) -> bytes:
    """A tree as a NumPy archive, the arrays named by their paths, `forward/0/w` say."""
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _named(plain(tree)).items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise TypeError(f"{name} is {array.dtype}, which NumPy's format does not know")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that whoever reads it, now or after a crash, finds the old one or the new.

    Raises:
      OSError: it cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            flush(file)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    _flush_folder(path.parent)


def flush(file) -> None:
    """Brings a file's contents to the disk."""
    file.flush()
    os.fsync(file.fileno())


def plain(tree: PyTree) -> PyTree:
    """The tree with uint32 data in place of PRNG keys. Pure, jittable."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def wrap(tree: PyTree, like: PyTree) -> PyTree:
    """The inverse of `plain`: PRNG keys where `like` has them."""
    return jax.tree.map(
        lambda leaf, key: jax.random.wrap_key_data(leaf) if _is_key(key) else leaf, tree, like
    )


def _flush_folder(folder: Path) -> None:
    # A rename is on the disk once the folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key)


def _named(tree: PyTree) -> dict[str, PyTree]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _fit(arrays: dict[str, np.ndarray], like: PyTree, path) -> PyTree:
    """The arrays as a tree like `like`."""
    expected = {
        name: jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        for name, leaf in _named(like).items()
    }
    for name in sorted(arrays.keys() | expected.keys()):
        found, wanted = (_describe(leaves.get(name)) for leaves in (arrays, expected))
        if found != wanted:
            raise CheckpointError(
                f"{path} does not fit: {name} is {found} there and {wanted} here; "
                "it is of another program, delete the file"
            )
    leaves = [arrays[name] for name in _named(like)]
    return wrap(jax.tree.unflatten(jax.tree.structure(like), leaves), like)


def _describe(leaf) -> str:
    return "missing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
