"""CIFAR from small files in the official layout, and from the real ones where they are."""

import hashlib
import io
import os
import pathlib
import tarfile

import numpy as np
import pytest

from lrajax import data
from lrajax.data import cifar

DATA_DIR = os.environ.get("LRAJAX_DATA_DIR")


@pytest.fixture(autouse=True)
def no_named_folder(monkeypatch):
    monkeypatch.delenv("LRAJAX_DATA_DIR", raising=False)


def md5(content):
    return hashlib.md5(content).hexdigest()


def records(name, count, seed):
    """Random records of `count` examples: labels one by one, then the planes of colours."""
    rng = np.random.default_rng(seed)
    known = cifar.SETS[name]
    raw = rng.integers(256, size=(count, known.label_bytes + 3072), dtype=np.uint8)
    raw[:, known.label_bytes - 1] = np.arange(count) % len(known.class_names)
    return raw


@pytest.fixture(params=["cifar10", "cifar100"])
def small(request, tmp_path, monkeypatch):
    """A folder with the set's own, holding few records, and what they are by file."""
    name = request.param
    known = cifar.SETS[name]
    count = 2 * len(known.class_names)
    arrays = {file: records(name, count, seed) for seed, file in enumerate(known.md5)}
    folder = tmp_path / "data" / known.folder
    folder.mkdir(parents=True)
    for file, array in arrays.items():
        (folder / file).write_bytes(array.tobytes())
    adopt(monkeypatch, name, arrays)
    return name, folder, arrays


def adopt(monkeypatch, name, arrays):
    """Makes the MD5 sums of these records the official ones."""
    sums = {file: md5(array.tobytes()) for file, array in arrays.items()}
    monkeypatch.setitem(cifar.SETS, name, cifar.SETS[name]._replace(md5=sums))


def pack(monkeypatch, name, folder):
    """The archive of the folder, beside it, and no folder any more."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, folder.name)
    archive = folder.parent / cifar.SETS[name].archive
    archive.write_bytes(buffer.getvalue())
    changed = cifar.SETS[name]._replace(archive_md5=md5(buffer.getvalue()))
    monkeypatch.setitem(cifar.SETS, name, changed)
    folder.rename(folder.parent / "elsewhere")
    return archive


def load(name, place):
    classes = len(cifar.SETS[name].class_names)
    return data.load(name, place, valid_size=classes)


def message(name, place):
    with pytest.raises(data.DataError) as error:
        load(name, place)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_records_are_decoded_pixel_by_pixel(small):
    name, folder, arrays = small
    dataset = load(name, folder)
    known = cifar.SETS[name]
    assert dataset.image_shape == (32, 32, 3)
    assert dataset.class_names == known.class_names
    assert dataset.num_classes == len(known.class_names)
    assert dataset.max_pixel == 255
    raw = list(arrays.values())[-1]
    label, pixels = known.label_bytes - 1, known.label_bytes
    for number in (0, 7):
        image = dataset.test.x[number].reshape(32, 32, 3)
        assert dataset.test.y[number] == raw[number, label]
        for row, column, channel in ((0, 0, 0), (0, 1, 2), (31, 0, 1), (17, 5, 2)):
            position = pixels + 1024 * channel + 32 * row + column
            assert image[row, column, channel] == raw[number, position]
    learnt = len(dataset.train.y) + len(dataset.valid.y)
    assert learnt == sum(map(len, list(arrays.values())[:-1]))


def test_folder_parent_and_archive_agree(small, monkeypatch):
    name, folder, _ = small
    inside = load(name, folder)
    parent = load(name, folder.parent)
    monkeypatch.setenv("LRAJAX_DATA_DIR", str(folder.parent))
    by_environment = load(name, None)
    archive = pack(monkeypatch, name, folder)
    for other in (parent, by_environment, load(name, archive), load(name, archive.parent)):
        for a, b in zip(inside[:3], other[:3], strict=True):
            np.testing.assert_array_equal(a.x, b.x)
            np.testing.assert_array_equal(a.y, b.y)


def test_a_damaged_or_foreign_set_is_refused(small, monkeypatch):
    name, folder, arrays = small
    file = list(arrays)[-1]
    path, whole = folder / file, arrays[file].tobytes()
    path.write_bytes(whole[:-1])
    assert "truncated" in message(name, folder)
    assert file in message(name, folder)
    path.write_bytes(whole[: -arrays[file].shape[1]])
    assert "MD5" in message(name, folder)
    path.write_bytes(b"")
    assert "truncated" in message(name, folder)
    path.unlink()
    text = message(name, folder)
    assert file in text
    assert "--data_dir" in text
    assert cifar.SETS[name].archive in text
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert "--data_dir" in message(name, folder.parent)

    wrong = {**arrays, file: arrays[file].copy()}
    wrong[file][0, cifar.SETS[name].label_bytes - 1] = 200
    path.write_bytes(wrong[file].tobytes())
    adopt(monkeypatch, name, wrong)
    assert "labels run from 0 to 200" in message(name, folder)


@pytest.mark.parametrize("small", ["cifar10"], indirect=True)
def test_a_damaged_archive_is_refused(small, monkeypatch):
    name, folder, _ = small
    archive = pack(monkeypatch, name, folder)
    content = archive.read_bytes()
    archive.write_bytes(content[:-100])
    assert "MD5" in message(name, archive)
    changed = cifar.SETS[name]._replace(archive_md5=md5(content[:-100]))
    monkeypatch.setitem(cifar.SETS, name, changed)
    assert str(archive) in message(name, archive.parent)


@pytest.mark.parametrize("small", ["cifar10"], indirect=True)
def test_tensorflow_datasets_gives_the_same_in_the_same_order(small, monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    name, folder, _ = small
    plain = load(name, folder)
    archive = pack(monkeypatch, name, folder)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(data.tfds, "require_network", lambda name: None)
    downloads = []

    def download(self, urls):
        downloads.append(urls)
        return {archive.name: str(archive)}

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    monkeypatch.setattr(data.tfds, "official_builder", data.tfds.official_builder.__wrapped__)
    for _ in range(2):
        dataset = load(name, None)
        assert dataset[3:] == plain[3:]
        for a, b in zip(dataset[:3], plain[:3], strict=True):
            np.testing.assert_array_equal(a.x, b.x)
            np.testing.assert_array_equal(a.y, b.y)
    assert downloads == [{archive.name: f"https://www.cs.toronto.edu/~kriz/{archive.name}"}]


@pytest.mark.parametrize("small", ["cifar10"], indirect=True)
def test_a_set_that_tensorflow_datasets_prepared_is_read_from_its_folder(small, monkeypatch):
    name, folder, arrays = small
    asked = []

    def prepared(name, place):
        asked.append((name, place))
        images = np.zeros((20, 32, 32, 3), np.uint8)
        labels = np.arange(20) % 10
        return data.dataset.Source((images, labels), (images, labels), cifar.SETS[name].class_names)

    monkeypatch.setattr(data.tfds, "prepared", prepared)
    (folder.parent / name / "3.0.2").mkdir(parents=True)
    load(name, folder.parent)
    assert not asked  # the official files go first
    for file in arrays:
        (folder / file).unlink()
    assert load(name, folder.parent).test.x.sum() == 0
    assert asked == [(name, folder.parent)]


def test_the_real_cifar10():
    """The published moments of its training set; they are of all 50,000 images."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    place = pathlib.Path(DATA_DIR or beside)
    if not (place / "cifar-10-batches-bin").is_dir():
        pytest.skip("set LRAJAX_DATA_DIR to a folder with cifar-10-batches-bin/, unpacked")
    dataset = data.load("cifar10", place)
    assert [len(part.y) for part in dataset[:3]] == [45000, 5000, 10000]
    np.testing.assert_array_equal(np.bincount(dataset.train.y), [4500] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.test.y), [1000] * 10)
    mean, std = data.channel_moments(dataset)
    np.testing.assert_allclose(255 * mean, [125.3, 122.9, 113.9], atol=0.5)
    np.testing.assert_allclose(255 * std, [63.0, 62.1, 66.7], atol=0.5)
