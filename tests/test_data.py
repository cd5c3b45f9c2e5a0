"""Data: splits, hostile files, and the two routes (folder, TFDS) that must agree."""

import contextlib
import functools
import gzip
import http.server
import io
import os
import socket
import struct
import threading
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lrajax import data
from lrajax.data import idx
from lrajax.data.split import stratified

FILES = tuple(idx.SETS["mnist"].md5)


def idx_bytes(array, type_code=0x08):
    return struct.pack(f">HBB{array.ndim}I", 0, type_code, array.ndim, *array.shape) + bytes(array)


SMALL = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
GOOD = idx_bytes(SMALL)


@pytest.fixture(scope="session")
def real_data():
    """The folder that holds `mnist/` and `fashion_mnist/`, or a skip that says how to name it."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LRAJAX_DATA_DIR") or beside)
    if not (folder / "mnist").is_dir():
        pytest.skip("set LRAJAX_DATA_DIR to a folder with mnist/ and fashion_mnist/ (IDX files)")
    return folder


@pytest.fixture(autouse=True)
def no_named_folder(request, monkeypatch):
    """No test but `real_data` sees the environment's folder."""
    if "real_data" in request.fixturenames:
        request.getfixturevalue("real_data")
    monkeypatch.delenv("LRAJAX_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def digits():
    return data.load()


@pytest.fixture(scope="module")
def mnist(real_data):
    return data.load("mnist", real_data)


def parts(dataset):
    return dataset.train, dataset.valid, dataset.test


def assert_equal(a, b):
    for one, other in zip(parts(a), parts(b), strict=True):
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.y, other.y)
    assert a[3:] == b[3:]


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    assert message
    return message


# --- Splits ------------------------------------------------------------------------------------


def test_digits_sizes_and_types(digits):
    assert [len(part.y) for part in parts(digits)] == [1350, 150, 297]
    for x, y in parts(digits):
        assert x.dtype == np.uint8
        assert y.dtype == np.int32
        assert x.shape == (len(y), 64)
        assert x.min() == 0
        assert x.max() == digits.max_pixel == 16.0
    assert digits.image_shape == (8, 8)
    assert digits.num_classes == 10
    assert digits.name == "digits"


def test_digits_are_all_there_once(digits):
    from sklearn.datasets import load_digits

    def rows(x, y):
        return sorted(map(bytes, np.column_stack([x, y]).astype(np.uint8)))

    raw = load_digits()
    joined = [np.concatenate(arrays) for arrays in zip(*parts(digits), strict=True)]
    assert rows(*joined) == rows(raw.data, raw.target)
    # No image occurs twice in the set, so equal multisets also mean that the parts are disjoint.
    assert len({bytes(x) for x in joined[0]}) == 1797


def test_split_is_reproducible_and_seeded(digits):
    assert_equal(digits, data.load("digits"))
    other = data.load("digits", split_seed=1)
    assert not np.array_equal(other.valid.x, digits.valid.x)
    np.testing.assert_array_equal(other.test.x, digits.test.x)


@pytest.mark.parametrize("valid_size", [None, 10, 400])
def test_split_is_stratified(valid_size):
    dataset = data.load("digits", valid_size=valid_size)
    whole = np.bincount(np.concatenate([part.y for part in parts(dataset)]), minlength=10)
    for part in parts(dataset):
        counts = np.bincount(part.y, minlength=10)
        np.testing.assert_allclose(counts, whole * len(part.y) / 1797, atol=1.5)


@pytest.mark.parametrize("valid_size", [0, -1, 1500, 10**9, 9, 1491, 0.1, "100"])
def test_unfit_valid_size(valid_size):
    with pytest.raises(data.DataError, match=f"--valid_size={valid_size}") as error:
        data.load("digits", valid_size=valid_size)
    one_line(error)


def test_mnist(mnist):
    assert [part.x.shape for part in parts(mnist)] == [(58000, 784), (2000, 784), (10000, 784)]
    assert mnist.image_shape == (28, 28)
    assert mnist.max_pixel == 255.0
    assert all(part.x.min() == 0 and part.x.max() == 255 for part in parts(mnist))
    train_counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    valid_counts = np.bincount(mnist.valid.y)
    np.testing.assert_array_equal(np.bincount(mnist.train.y) + valid_counts, train_counts)
    np.testing.assert_array_equal(np.bincount(mnist.test.y), test_counts)
    np.testing.assert_allclose(valid_counts, np.array(train_counts) / 30, atol=1.0)


def test_mnist_parts_are_the_official_rows_in_order(mnist, real_data):
    images = data.read_idx(real_data / "mnist" / f"{FILES[0]}.gz").reshape(60000, 784)
    kept, held_out = stratified(data.read_idx(real_data / "mnist" / f"{FILES[1]}.gz"), 2000, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(60000))
    assert np.all(np.diff(kept) > 0)
    assert np.all(np.diff(held_out) > 0)
    np.testing.assert_array_equal(images[kept], mnist.train.x)
    np.testing.assert_array_equal(images[held_out], mnist.valid.x)


def test_fashion_mnist_and_environment(real_data, monkeypatch):
    monkeypatch.setenv("LRAJAX_DATA_DIR", str(real_data))
    dataset = data.load("fashion_mnist", valid_size=5000)
    assert [len(part.y) for part in parts(dataset)] == [55000, 5000, 10000]
    np.testing.assert_array_equal(np.bincount(dataset.train.y), [5500] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.test.y), [1000] * 10)


# --- IDX files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, functools.partial(gzip.compress, mtime=9)])
@pytest.mark.parametrize("array", [SMALL, SMALL[0, 0], SMALL[:0]])
def test_read_idx(tmp_path, pack, array):
    path = tmp_path / "named-anyhow"
    path.write_bytes(pack(idx_bytes(array)))
    found = data.read_idx(str(path))
    assert found.dtype == np.uint8
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def header(*sizes):
    return struct.pack(f">HBB{len(sizes)}I", 0, 0x08, len(sizes), *sizes)


BOMB = gzip.compress(header(1 << 20) + bytes(1 << 26))  # declares 1 MiB, unpacks to 64 MiB
HOSTILE = {
    "empty": b"",
    "three bytes": GOOD[:3],
    "wrong magic": b"PK" + GOOD[2:],
    "text": b"<html>404 Not Found</html>",
    "float type": idx_bytes(SMALL, type_code=0x0D),
    "type 0": bytes(100),
    "no axes": header(),
    "255 axes": b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x",
    "header cut": GOOD[:9],
    "payload cut": GOOD[:-1],
    "no payload": GOOD[:16],
    "trailing byte": GOOD + b"\0",
    "sizes that overflow int64": header(*[0xFFFFFFFF] * 4),
    "sizes that wrap to the right count": header(1 << 16, 1 << 16, 1 << 16, (1 << 16) + 1) + b"x",
    "a gigabyte declared": header(1 << 30) + b"x",
    "gz of hostile": gzip.compress(GOOD[:-1]),
    "gz bomb": BOMB,
    "gz cut in the data": gzip.compress(GOOD)[:-12],
    "gz cut in the checksum": gzip.compress(GOOD)[:-3],
    "gz header only": gzip.compress(GOOD)[:10],
    "gz magic only": b"\x1f\x8b",
    "gz bad method": b"\x1f\x8b\x07" + gzip.compress(GOOD)[3:],
    "gz bad deflate": gzip.compress(GOOD)[:10] + b"\xff" * 30,
    "gz bad checksum": gzip.compress(GOOD)[:-8] + b"\1" * 8,
    "gz trailing garbage": gzip.compress(GOOD) + b"garbage",
    "gz second member": gzip.compress(GOOD) * 2,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_idx(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(data.DataError) as error:
        data.read_idx(path)
    assert str(path) in one_line(error)
    assert "get the" in one_line(error)


def test_gz_bomb_is_not_unpacked(tmp_path, monkeypatch):
    (tmp_path / "bomb").write_bytes(BOMB)
    unpacked = []

    class Counting(gzip.GzipFile):
        def read(self, size=-1):
            chunk = super().read(size)
            unpacked.append(len(chunk))
            return chunk

    monkeypatch.setattr(idx.gzip, "GzipFile", Counting)
    with pytest.raises(data.DataError, match="holds more"):
        data.read_idx(tmp_path / "bomb")
    assert sum(unpacked) == 8 + (1 << 20) + 1


def test_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "pipe"):
        with pytest.raises(data.DataError, match="no such file"):
            data.read_idx(path)


def maybe_truncated_idx():
    return st.builds(
        lambda sizes, tail, cut: (header(*sizes) + tail)[: cut or None],
        st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 1), max_size=5),
        st.binary(max_size=200),
        st.integers(-3, 12),
    )


@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    content=st.binary(max_size=200) | maybe_truncated_idx(),
    pack=st.sampled_from([bytes, gzip.compress, lambda b: b"\x1f\x8b\x08\0" + b]),
    flip=st.none() | st.tuples(st.integers(0, 400), st.integers(1, 255)),
)
@hypothesis.example(GOOD, gzip.compress, None)
@hypothesis.example(b"\0\0\x08\x03" + struct.pack(">3I", 0, 2**31, 2**31), bytes, None)  # no bytes
def test_any_bytes_give_an_array_or_a_data_error(tmp_path, content, pack, flip):
    packed = bytearray(pack(content))
    if flip and packed:
        packed[flip[0] % len(packed)] ^= flip[1]
    (tmp_path / "any").write_bytes(packed)
    with contextlib.suppress(data.DataError):
        found = data.read_idx(tmp_path / "any")
        assert found.dtype == np.uint8
        if not packed.startswith(b"\x1f\x8b"):
            assert idx_bytes(found) == packed


# --- Folders of IDX files ----------------------------------------------------------------------


@pytest.fixture
def tiny_set(tmp_path, monkeypatch):
    """A folder of four small files that stands in for MNIST, MD5 sums and all."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "idx"
    folder.mkdir()
    arrays = [
        rng.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        np.arange(60, dtype=np.uint8) % 10,
        rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        np.arange(20, dtype=np.uint8) % 10,
    ]
    for file, array in zip(FILES, arrays, strict=True):
        (folder / file).write_bytes(idx_bytes(array))
    adopt(monkeypatch, arrays)
    return folder, arrays


def adopt(monkeypatch, arrays):
    """Makes the MD5 sums of `arrays` the official ones."""
    md5 = {file: idx.md5_of(array) for file, array in zip(FILES, arrays, strict=True)}
    monkeypatch.setitem(idx.SETS, "mnist", idx.SETS["mnist"]._replace(md5=md5))


def test_plain_zipped_and_recompressed_copies_agree(tiny_set):
    folder, arrays = tiny_set
    plain = data.load("mnist", folder, valid_size=10)
    np.testing.assert_array_equal(plain.test.x, arrays[2].reshape(20, 784))
    for level in (1, 9):
        for file, array in zip(FILES, arrays, strict=True):
            (folder / file).unlink(missing_ok=True)
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx_bytes(array), level))
        assert_equal(data.load("mnist", folder, valid_size=10), plain)
    folder.rename(folder.parent / "mnist")
    assert_equal(data.load("mnist", str(folder.parent), valid_size=10), plain)


def test_wrong_md5(tiny_set):
    folder, arrays = tiny_set
    (folder / FILES[2]).write_bytes(idx_bytes(arrays[2] ^ 1))
    with pytest.raises(data.DataError, match="corrupted, or another data set") as error:
        data.load("mnist", folder, valid_size=10)
    assert FILES[2] in one_line(error)
    assert "--data_dir" in one_line(error)
    (folder / FILES[2]).write_bytes(idx_bytes(arrays[2].transpose(0, 2, 1).reshape(20, 14, 56)))
    with pytest.raises(data.DataError, match="MD5"):
        data.load("mnist", folder, valid_size=10)


def test_the_other_mnist(real_data):
    with pytest.raises(data.DataError, match="it is from mnist"):
        data.load("fashion_mnist", real_data / "mnist")


@pytest.mark.parametrize("by_environment", [False, True])
def test_missing_files(tiny_set, monkeypatch, by_environment):
    folder, _ = tiny_set
    (folder / FILES[1]).unlink()
    (folder / FILES[3]).unlink()
    monkeypatch.setenv("LRAJAX_DATA_DIR", str(folder))
    with pytest.raises(data.DataError, match="--data_dir") as error:
        data.load("mnist", None if by_environment else folder)
    assert FILES[1] in one_line(error)
    assert FILES[3] in one_line(error)
    assert FILES[0] not in one_line(error)
    assert str(folder) in one_line(error)
    with pytest.raises(data.DataError, match="is not a folder"):
        data.load("mnist", folder / "absent")


def test_bad_labels_shapes_and_empty_sets(tiny_set, monkeypatch):
    folder, arrays = tiny_set

    def load_with(position, array):
        changed = [*arrays[:position], array, *arrays[position + 1 :]]
        (folder / FILES[position]).write_bytes(idx_bytes(array))
        adopt(monkeypatch, changed)
        with pytest.raises(data.DataError) as error:
            data.load("mnist", folder, valid_size=10)
        (folder / FILES[position]).write_bytes(idx_bytes(arrays[position]))
        return one_line(error)

    assert "outside 0..9" in load_with(1, arrays[1] + 1)
    assert "labels of shape (59,)" in load_with(1, arrays[1][:59])
    assert "not one shape" in load_with(2, arrays[2][:, :27])
    assert "not one shape" in load_with(2, arrays[2][:, 0])
    assert "0 images" in load_with(2, arrays[2][:0])
    for i in (0, 2):
        arrays[i] = arrays[i][:, :, :0]
    (folder / FILES[0]).write_bytes(idx_bytes(arrays[0]))
    assert "not one shape" in load_with(2, arrays[2])


# --- tensorflow-datasets -----------------------------------------------------------------------


@pytest.fixture
def tfds(tmp_path, monkeypatch):
    """The module, with a temporary folder as the default for prepared sets."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    return tfds


@pytest.fixture
def serve(monkeypatch):
    """Serves a folder as MNIST's official address, so that TFDS's own downloader is at work."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        source = idx.SETS["mnist"]._replace(url=f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setitem(idx.SETS, "mnist", source)
        monkeypatch.setattr(data.tfds, "official_builder", data.tfds.official_builder.__wrapped__)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_tfds_route_equals_folder_route(tfds, serve, mnist, real_data):
    serve(real_data / "mnist")
    assert_equal(data.load("mnist"), mnist)


def test_prepared_once_needs_no_network(tfds, serve, tiny_set, monkeypatch):
    folder, arrays = tiny_set
    for file in FILES:
        (folder / f"{file}.gz").write_bytes(gzip.compress((folder / file).read_bytes()))
    serve(folder)
    downloaded = data.load("mnist", valid_size=10)
    assert_equal(downloaded, data.load("mnist", folder, valid_size=10))
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert_equal(downloaded, data.load("mnist", valid_size=10))
    assert "lrajax_official" not in tfds.list_builders(with_community_datasets=False)
    # What is prepared is checked as well: the records of a changed set are not taken for MNIST.
    adopt(monkeypatch, [arrays[0] ^ 1, *arrays[1:]])
    with pytest.raises(data.DataError, match="MD5"):
        data.load("mnist", valid_size=10)


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: gzip.compress(GOOD)])
def test_damaged_download(tfds, serve, tiny_set, damage):
    folder, _ = tiny_set
    for file in FILES:
        (folder / f"{file}.gz").write_bytes(damage(gzip.compress((folder / file).read_bytes())))
    serve(folder)
    with pytest.raises(data.DataError, match=FILES[0]) as error:
        data.load("mnist", valid_size=10)
    one_line(error)


def refuse(*_, **__):
    raise OSError("Network is unreachable")


def test_download_that_fails_after_the_probe(tfds, serve, tiny_set, monkeypatch):
    folder, _ = tiny_set
    (folder / f"{FILES[-1]}.gz").write_bytes(b"x")  # the probed file
    serve(folder)
    # In TFDS's place, for its threads would go on retrying after the test.
    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)
    with pytest.raises(data.DataError, match=r"failed to prepare it .*--data_dir=FOLDER") as error:
        data.load("mnist")
    one_line(error)


def test_no_network(tfds, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", refuse)
    start = time.monotonic()
    with pytest.raises(data.DataError, match=r"--data_dir=FOLDER.*LRAJAX_DATA_DIR") as error:
        data.load("fashion_mnist")
    assert time.monotonic() - start < 5
    one_line(error)


def hang(*_, **__):
    time.sleep(4)
    raise OSError("timed out")


def test_network_that_never_answers(tfds, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(data.tfds, "PROBE_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(data.DataError, match="no answer"):
        data.load("mnist")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_network_answers_within_bounds(name):
    start = time.monotonic()
    try:
        data.tfds.require_network(name)
    except data.DataError:
        assert time.monotonic() - start < 10
    else:
        pytest.skip("the network is there")


def test_unknown_names(tfds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("minst", "", "../minst", "huggingface:mnist", "a/b=1"):
        with pytest.raises(data.DataError, match=r"unknown --dataset=.*digits, mnist") as error:
            data.load(name)
        one_line(error)
    with pytest.raises(data.DataError, match=r"nearest: .*mnist"):
        data.load("minst")
    with pytest.raises(data.DataError, match=r"svhn_cropped is not prepared.*tfds build svhn_"):
        data.load("svhn_cropped", tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MNIST", "mnist"),
        ("mnist/", "mnist"),
        ("Digits", "digits"),
        ("fashion-mnist", "fashion_mnist"),
        ("FashionMNIST", "fashion_mnist"),
        ("CIFAR-10", "cifar10"),
        ("Cifar100", "cifar100"),
    ],
)
def test_a_set_spelt_otherwise_is_named(name, meant):
    with pytest.raises(data.DataError, match=f"did you mean {meant}") as error:
        data.load(name)
    one_line(error)


def prepare_images(tfds, folder, images, labels, *, label="label", feature=None):
    """Prepares a set `tiny_images` of another origin, with its records shuffled."""

    class TinyImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A few images."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            shape = np.shape(images[0])
            features = {
                "image": feature or tfds.features.Tensor(shape=shape, dtype=np.uint8),
                label: tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(60), "test": self._generate_examples(9)}

        def _generate_examples(self, count):
            for i in range(count):
                image = io.BytesIO(images[i]) if isinstance(images[i], bytes) else images[i]
                yield i, {"image": image, label: int(labels[i])}

    builder = TinyImages(data_dir=folder, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


def assert_holds(dataset, images, labels):
    """Whatever the order, every image of `images` is there with its label."""
    by_image = {bytes(image): label for image, label in zip(images, labels, strict=True)}
    assert set(map(bytes, np.concatenate([dataset.train.x, dataset.valid.x]))) == set(by_image)
    for x, y in parts(dataset):
        assert [by_image[bytes(image)] for image in x] == y.tolist()


COLOURED = np.random.default_rng(1).integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)
KINDS = np.arange(60) % 3


def test_any_prepared_set(tfds, tmp_path):
    folder = prepare_images(tfds, tmp_path, COLOURED, KINDS)
    dataset = data.load("tiny_images", tmp_path)
    assert dataset.image_shape == (4, 5, 3)
    assert dataset.num_classes == 3
    assert [part.x.shape for part in parts(dataset)] == [(57, 60), (3, 60), (9, 60)]
    assert_holds(dataset, COLOURED, KINDS)

    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(data.DataError, match="--file_format=array_record") as error:
        data.load("tiny_images", tmp_path)
    one_line(error)


def test_prepared_set_of_png_images(tfds, tmp_path):
    png = pytest.importorskip("PIL.Image", reason="TFDS decodes image files with Pillow")

    def encoded(image):
        file = io.BytesIO()
        png.fromarray(image).save(file, "PNG")
        return file.getvalue()

    feature = tfds.features.Image(shape=(4, 5, 3), encoding_format="png")
    prepare_images(tfds, tmp_path, [encoded(i) for i in COLOURED], KINDS, feature=feature)
    assert_holds(data.load("tiny_images", tmp_path), COLOURED, KINDS)


def test_unfit_prepared_sets(tfds, tmp_path):
    prepare_images(tfds, tmp_path / "a", COLOURED, KINDS, label="kind")
    with pytest.raises(data.DataError, match="features image and label"):
        data.load("tiny_images", tmp_path / "a")
    prepare_images(tfds, tmp_path / "b", COLOURED[:, None], KINDS)
    with pytest.raises(data.DataError, match="not one shape"):
        data.load("tiny_images", tmp_path / "b")
    ragged = [image[: 1 + i % 4] for i, image in enumerate(COLOURED)]
    feature = tfds.features.Tensor(shape=(None, 5, 3), dtype=np.uint8)
    prepare_images(tfds, tmp_path / "c", ragged, KINDS, feature=feature)
    with pytest.raises(data.DataError, match="cannot read split train"):
        data.load("tiny_images", tmp_path / "c")
    prepare_images(tfds, tmp_path / "d", COLOURED[..., :1], KINDS)
    assert data.load("tiny_images", tmp_path / "d").image_shape == (4, 5)
