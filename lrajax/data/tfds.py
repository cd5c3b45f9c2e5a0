"""Sets by way of tensorflow-datasets (TFDS), never of TensorFlow.

TFDS is imported inside the functions: the import takes most of a second and few runs need it.
"""

import contextlib
import difflib
import functools
import http.client
import os
import re
import threading
import urllib.request
from typing import Any, ClassVar

import numpy as np

from lrajax.data import cifar, idx
from lrajax.data.dataset import ENV_DATA_DIR, DataError, Source, explained

PROBE_SECONDS = 5.0
# The sets that are known by name, and what a folder with one of them holds.
WHAT = {
    **dict.fromkeys(idx.SETS, "the four IDX files"),
    **{name: f"{known.folder}/ or {known.archive}" for name, known in cifar.SETS.items()},
}
NAMES = ("digits", *WHAT)
"""The sets that `load` knows by name."""


def _official(name: str) -> idx.IdxSet | cifar.CifarSet:
    return cifar.SETS[name] if name in cifar.SETS else idx.SETS[name]


def _urls(name: str) -> dict[str, str]:
    return cifar.urls(name) if name in cifar.SETS else idx.urls(name)


def fetched(name: str) -> Source:
    """An official set by way of TFDS's download and its folder of prepared sets."""
    builder = official_builder()(config=name, file_format="array_record")
    if not builder.is_prepared():
        require_network(name)
        import tensorflow_datasets as tfds

        remedy = f"pass --data_dir=FOLDER with {WHAT[name]}"
        with explained(f"{name}: tensorflow-datasets failed to prepare it", remedy, Exception):
            # Not from TFDS's bucket: the sets there are in a format that needs TensorFlow.
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    remedy = f"delete {builder.data_dir} or pass --data_dir=FOLDER with {WHAT[name]}"
    train, test = (_read_split(builder, split, remedy) for split in ("train", "test"))
    if name in cifar.SETS:  # its archive was checked, and TFDS's own sums guard the records
        return Source(train, test, cifar.SETS[name].class_names)
    arrays = (array.astype(np.uint8) for array in (*train, *test))  # labels come as int64
    by_file = dict(zip(idx.SETS[name].md5, arrays, strict=True))
    return idx.verified(name, by_file, str(builder.data_dir))


def require_network(name: str) -> None:
    """Raises within seconds if the set's host does not answer; TFDS would retry for minutes.

    A request, not a bare socket, so that a proxy from the environment counts as a network; in a
    thread, because a timeout does not bound the look-up of the host's name.
    """
    *_, url = _urls(name).values()
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.5 * PROBE_SECONDS)
    if not answered.is_set():
        raise DataError(
            f"{name}: no answer from {url} (no network?); pass --data_dir=FOLDER with "
            f"{WHAT[name]}, or set {ENV_DATA_DIR}, or use --dataset=digits, which is embedded"
        )


@functools.cache
def official_builder() -> Any:
    """A TFDS builder, named `lrajax_official`, that prepares the sets without TensorFlow.

    TFDS's own builders of these sets extract the archives through TensorFlow.
    """
    import tensorflow_datasets as tfds

    # TFDS is not typed, so the type checker does not know the base's arguments.
    class LrajaxOfficial(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """The MNISTs and CIFARs in their official order."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS: ClassVar = [
            tfds.core.BuilderConfig(name=name, description=f"{name}, {what}")
            for name, what in WHAT.items()
        ]

        def _info(self) -> Any:
            name = self.builder_config.name
            shape = (32, 32, 3) if name in cifar.SETS else (28, 28)
            features = {
                "image": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
                "label": tfds.features.ClassLabel(num_classes=len(_official(name).class_names)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,  # the order of the files, so the same seeds agree
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            name = self.builder_config.name
            paths = dl_manager.download(_urls(name))
            where = f"{dl_manager.download_dir} (delete it to download again)"
            module = cifar if name in cifar.SETS else idx
            source = module.from_files(name, paths, where)
            return {
                "train": self._generate_examples(*source.train),
                "test": self._generate_examples(*source.test),
            }

        def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Any:
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": image, "label": int(label)}

    return LrajaxOfficial


def prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """Any TFDS set that is on disk in a format with random access."""
    builder = _find_prepared(name, data_dir)
    features = dict(getattr(builder.info.features, "items", dict)())
    splits = builder.info.splits
    names = getattr(features.get("label"), "names", None)
    if "image" not in features or not names or not {"train", "test"} <= set(splits):
        raise DataError(
            f"{name}: has features {sorted(features)} and splits {sorted(splits)}; --dataset "
            "needs features image and label (a class) and splits train and test"
        )
    remedy = f"prepare it again: tfds build {name} --file_format=array_record --overwrite"
    train, test = (_read_split(builder, split, remedy) for split in ("train", "test"))
    return Source(train, test, tuple(names))


def _find_prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    import tensorflow_datasets as tfds

    # TFDS would look for `namespace:name` on the network and read keyword arguments after a slash.
    well_formed = re.fullmatch(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?", name, re.ASCII)
    what = f"--dataset={name}: tensorflow-datasets cannot open it"  # it may need TensorFlow, say
    with explained(what, f"use one of {', '.join(NAMES)}", Exception):
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
    with explained(what, remedy, Exception):  # no random access, damage, no image decoder, ...
        source = builder.as_data_source(split=split)
        examples = source.__getitems__(range(len(source)))  # twice as fast as one by one
        images = np.stack([example["image"] for example in examples])  # fails on ragged or none
        return images, np.asarray([example["label"] for example in examples])
