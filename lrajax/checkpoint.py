"""Checkpoints: a tree of arrays in one file, which is there whole or not at all.

A file is `MAGIC`, the SHA-256 of everything after it, the format's version (little-endian uint32),
and a NumPy `.npz` archive with one array for each leaf, named by its path in the tree. Of PRNG keys
it holds their numbers, and beside the arrays, in `keys.json`, the generators that they are of. What
NumPy has no format for, such as bfloat16, is there as float32, and in `dtypes.json` what it was.
Nothing in it is ever executed: pickles are refused.

A file is written under a temporary name, flushed to the disk, then renamed, so that a process that
dies, or a disk that fills up, at any moment leaves the previous checkpoint as it was. The last two
are kept, so that one that the disk has damaged can be passed over.
"""

import hashlib
import io
import json
import operator
import os
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lrajax.base import PyTree

MAGIC = b"lrajax checkpoint\n"
ZIP = b"PK"  # with which .npz archives begin
VERSION = 2
READABLE = (1, 2)  # the first did not say which generator its keys were of

_KEYS, _DTYPES = "keys.json", "dtypes.json"
_TEMPORARY = ".tmp"
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
      tree: of arrays on the host or fully addressable, PRNG keys and numbers included.
      keep: how many are kept, >= 1.

    Raises:
      ValueError: `step` or `keep` is no whole number >= 1; nothing is written.
      OSError: it cannot be written; the checkpoints before it are untouched.
      TypeError: a leaf of a type that is no number.
    """
    step, keep = _count("step", step), _count("keep", keep)
    folder = Path(folder)
    content = struct.pack("<I", VERSION) + to_npz(tree)
    write(path_of(folder, step), MAGIC + hashlib.sha256(content).digest() + content)
    remove(folder, except_for=[old for old in steps(folder) if old <= step][-keep:])


def restore(folder: str | os.PathLike[str], like: PyTree, last: int | None = None) -> Restored:
    """Reads the newest checkpoint that is undamaged.

    Args:
      folder: where `save` wrote.
      like: a tree of the same structure, shapes, dtypes and generators: arrays, or
        `jax.eval_shape`'s. A Python number comes back as one.
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
    """Deletes the checkpoints of all steps but some, and what a dead process left half written.

    Only files by exactly the names that `save` gives are touched.
    """
    for path in Path(folder).iterdir():
        step = _step_of(path.with_name(path.name.removesuffix(_TEMPORARY)))
        unfinished = path.name.endswith(_TEMPORARY)
        if step is not None and (unfinished or step not in except_for) and path.is_file():
            path.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """Reads one checkpoint; see `restore`.

    Raises:
      DamagedError: it is not what was written.
      CheckpointError: it is no checkpoint, of another format version, or does not fit `like`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
    content = data[_DIGEST.stop :]
    if data.startswith(ZIP):
        raise CheckpointError(
            f"{path} is a NumPy archive, no checkpoint: lrajax.runs.load reads a run's parameters"
        )
    if not data.startswith(MAGIC) or hashlib.sha256(content).digest() != data[_DIGEST]:
        raise DamagedError(f"{path} is damaged")
    (version,) = struct.unpack("<I", content[:4])
    if version not in READABLE:
        raise CheckpointError(
            f"{path} has format {version}, and this version of lrajax reads {VERSION}: "
            "use the version that wrote it, or delete the file"
        )
    arrays, keys = _from_npz(content[4:])
    return _fit(arrays, None if version == 1 else keys, like, path)


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """The steps that a folder has checkpoints of, ascending."""
    found = ((_step_of(path), path) for path in Path(folder).iterdir())
    return sorted(step for step, path in found if step is not None and path.is_file())


def path_of(folder: str | os.PathLike[str], step: int) -> Path:
    """The file of a step's checkpoint."""
    return Path(folder) / f"checkpoint-{step:08}"


def _count(name: str, value) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name}={value!r} must be a whole number, at least 1")
    return count


def _step_of(path: Path) -> int | None:
    """The step whose checkpoint has this name; None for any other name."""
    match = re.fullmatch("checkpoint-([0-9]{8,})", path.name)
    return int(match[1]) if match and path_of(path.parent, int(match[1])) == path else None


def to_npz(tree: PyTree) -> bytes:
    """A tree as a NumPy archive, the arrays named by their paths, `forward/0/w` say."""
    leaves = _named(tree)
    arrays: dict[str, Any] = {name: np.asarray(plain(leaf)) for name, leaf in leaves.items()}
    dtypes = {}
    for name, array in arrays.items():
        if jax.numpy.issubdtype(array.dtype, np.floating) and array.dtype.kind != "f":
            dtypes[name] = array.dtype.name
            arrays[name] = array.astype(np.float32)  # of more digits, so that nothing is lost
        elif array.dtype.kind not in "biufc":
            raise TypeError(f"{name} is {array.dtype}, which NumPy's format does not know")
    keys = {name: str(_generator(leaf)) for name, leaf in leaves.items() if _is_key(leaf)}
    buffer = io.BytesIO()
    # As `np.savez` does it, but for names: it takes them as arguments, and has one called "file".
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        for file_name, about in ((_KEYS, keys), (_DTYPES, dtypes)):
            if about:
                archive.writestr(file_name, json.dumps(about))
    return buffer.getvalue()


def _from_npz(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of an archive by name, and the generators of those that are keys."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        keys, dtypes = (
            json.loads(archive.read(name)) if name in names else {} for name in (_KEYS, _DTYPES)
        )
        arrays = {}
        for file_name in names:
            if file_name not in (_KEYS, _DTYPES):
                with archive.open(file_name) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                name = file_name.removesuffix(".npy")
                arrays[name] = array.astype(dtypes.get(name, array.dtype), copy=False)
    return arrays, keys


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that whoever reads it, now or after a crash, finds the old one or the new.

    Raises:
      OSError: it cannot be written; it names the file, and the old one is untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            flush(file)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        error.filename = str(path)  # which it does not name
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
    """The inverse of `plain`: PRNG keys, of the same generator, where `like` has them."""
    return jax.tree.map(
        lambda leaf, key: (
            jax.random.wrap_key_data(leaf, impl=_generator(key)) if _is_key(key) else leaf
        ),
        tree,
        like,
    )


def _flush_folder(folder: Path) -> None:
    # A rename is on the disk once the folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_key(leaf) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _generator(key) -> Any:
    """The generator of PRNG keys, an array of them or its shape; None for anything else."""
    found: list[Any] = []
    if _is_key(key):
        # Traced, because the shape alone is refused.
        jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0] if found else None


def _named(tree: PyTree) -> dict[str, PyTree]:
    """The leaves by their paths; a / within a name is written ~1 and a ~ is ~0 (RFC 6901)."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(_escaped, path)): leaf for path, leaf in leaves}


def _escaped(entry) -> str:
    name = jax.tree_util.keystr((entry,), simple=True)
    return name.replace("~", "~0").replace("/", "~1")


def _fit(arrays: dict[str, np.ndarray], keys: dict[str, str] | None, like: PyTree, path) -> PyTree:
    """The arrays as a tree like `like`; the generators of keys are compared unless None."""
    leaves = _named(like)
    of = {name: _generator(leaf) for name, leaf in leaves.items()}
    expected = {
        name: jax.eval_shape(plain, leaf) if _is_key(leaf) else _array(leaf)
        for name, leaf in leaves.items()
    }
    for name in sorted(arrays.keys() | expected.keys()):
        found = _describe(arrays.get(name), (keys or {}).get(name))
        wanted = _describe(expected.get(name), None if keys is None else of.get(name))
        if found != wanted:
            raise CheckpointError(
                f"{path} does not fit: {name} is {found} there and {wanted} here; "
                "it is of another program, delete the file"
            )
    fitted = [
        arrays[name] if leaf is _array(leaf) else arrays[name].item()
        for name, leaf in leaves.items()
    ]
    return wrap(jax.tree.unflatten(jax.tree.structure(like), fitted), like)


def _array(leaf):
    """The leaf, or an array of it if it is a Python number."""
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _describe(leaf, generator) -> str:
    if leaf is None:
        return "missing"
    return f"{leaf.dtype}{list(leaf.shape)}" + (f" of {generator} keys" if generator else "")
