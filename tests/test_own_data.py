"""Own data: .npz files and folders of IDX files, good and bad."""

import gzip
import struct

import numpy as np
import pytest

from lrajax import data

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
GREY = RNG.integers(256, size=(90, 4, 6), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(90, 4, 6, 3), dtype=np.uint8)


def write(tmp_path, **arrays):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return str(path)


def refused(name):
    with pytest.raises(data.DataError) as error:
        data.load(name)
    text = str(error.value)
    assert "\n" not in text
    assert name in text
    return text


@pytest.mark.parametrize(
    ("x", "image_shape", "max_pixel"),
    [
        (GREY, (4, 6), 255.0),
        (GREY[..., None], (4, 6), 255.0),
        (COLOUR, (4, 6, 3), 255.0),
        (GREY.reshape(90, 24), (24,), 255.0),
        (GREY / 255, (4, 6), 1.0),
        (COLOUR.astype(np.float16), (4, 6, 3), 1.0),
    ],
)
def test_npz_with_its_own_test_part(tmp_path, x, image_shape, max_pixel):
    name = write(tmp_path, x_train=x[:60], y_train=LABELS[:60], x_test=x[60:], y_test=LABELS[60:])
    dataset = data.load(name)
    assert (dataset.image_shape, dataset.max_pixel) == (image_shape, max_pixel)
    assert (dataset.num_classes, dataset.class_names) == (3, ("0", "1", "2"))
    np.testing.assert_allclose(dataset.test.x, x[60:].reshape(30, -1), rtol=1e-6)
    np.testing.assert_array_equal(dataset.test.y, LABELS[60:])
    assert dataset.test.x.dtype == (np.uint8 if x.dtype == np.uint8 else np.float32)
    assert len(dataset.train.y) + len(dataset.valid.y) == 60


def test_npz_without_a_test_part_holds_a_sixth_out_for_ever(tmp_path):
    name = write(tmp_path, x=GREY, y=LABELS.astype(np.uint8), class_names=["cat", "dog", "fox"])
    dataset, other = data.load(name), data.load(name, split_seed=1)
    assert dataset.class_names == ("cat", "dog", "fox")
    assert [len(part.y) for part in dataset[:3]] == [72, 3, 15]
    np.testing.assert_array_equal(np.bincount(dataset.test.y), [5, 5, 5])
    np.testing.assert_array_equal(dataset.test.x, other.test.x)
    rows = {bytes(image): label for image, label in zip(GREY, LABELS, strict=True)}
    for part in dataset[:3]:
        assert [rows[bytes(image)] for image in part.x] == part.y.tolist()


BAD = {
    "no y": ({"x": GREY}, "holds x; it needs x and y"),
    "half a test part": ({"x": GREY, "y": LABELS, "x_test": GREY}, "it needs x and y"),
    "objects": ({"x": GREY, "y": LABELS.astype(object)}, "not unpickled"),
    "fewer labels": ({"x": GREY, "y": LABELS[:60]}, "90 images and 60 labels"),
    "one-hot labels": ({"x": GREY, "y": np.eye(3)[LABELS]}, "argmax"),
    "labels with a fraction": ({"x": GREY, "y": LABELS / 1.0}, "class number"),
    "labels from 1": ({"x": GREY, "y": LABELS + 1}, "1, 2, 3, not 0..C-1"),
    "labels below 0": ({"x": GREY, "y": LABELS - 1}, "-1, 0, 1, not 0..C-1"),
    "a gap": ({"x": GREY, "y": 2 * LABELS}, "0, 2, 4, not 0..C-1"),
    "too few names": ({"x": GREY, "y": LABELS, "class_names": ["a", "b"]}, "outside 0..1"),
    "names in a table": ({"x": GREY, "y": LABELS, "class_names": [["a"], ["b"]]}, "class_names"),
    "channels first": ({"x": COLOUR.transpose(0, 3, 1, 2), "y": LABELS}, "channels"),
    "five axes": ({"x": COLOUR[..., None], "y": LABELS}, "not one shape"),
    "no pixels": ({"x": GREY[:, :, :0], "y": LABELS}, "not one shape"),
    "int64 pixels": ({"x": GREY.astype(int), "y": LABELS}, "uint8"),
    "not finite": ({"x": np.where(GREY > 9, GREY / 9, np.nan), "y": LABELS}, "not finite"),
    "nothing": ({"x": GREY[:0], "y": LABELS[:0]}, "0 images and 0 labels"),
    "channels that differ": (
        {"x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR[..., :2], "y_test": LABELS},
        "not one shape",
    ),
    "types that differ": (
        {"x_train": GREY, "y_train": LABELS, "x_test": GREY / 255, "y_test": LABELS},
        "in both parts",
    ),
}


@pytest.mark.parametrize(("arrays", "words"), BAD.values(), ids=BAD.keys())
def test_npz_that_is_no_data_set(tmp_path, arrays, words):
    assert words in refused(write(tmp_path, **arrays))


def test_damaged_npz(tmp_path):
    name = write(tmp_path, x=GREY, y=LABELS)
    whole = (tmp_path / "own.npz").read_bytes()
    for content in (whole[:-30], whole[:300], b"", b"text", b"PK\3\4" + whole[4:90]):
        (tmp_path / "own.npz").write_bytes(content)
        assert "unreadable, corrupted or pickled" in refused(name)
    with open(name, "wb") as file:
        np.save(file, GREY)
    assert "is one array" in refused(name)
    assert "no such file" in refused(str(tmp_path / "absent.npz"))


def write_idx(folder, **arrays):
    for name, array in arrays.items():
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / name.replace("_", "-")).write_bytes(head + array.tobytes())


Y = LABELS.astype(np.uint8)


def test_idx_files_of_any_names(tmp_path):
    (tmp_path / "README").write_text("others may lie there")
    write_idx(tmp_path, pictures=COLOUR[:60], kinds=Y[:60])
    write_idx(tmp_path, test_pictures=COLOUR[60:], test_kinds=Y[60:])
    dataset = data.load(str(tmp_path))
    assert dataset.image_shape == (4, 6, 3)
    np.testing.assert_array_equal(dataset.test.x, COLOUR[60:].reshape(30, -1))
    np.testing.assert_array_equal(dataset.test.y, Y[60:])
    assert len(dataset.train.y) + len(dataset.valid.y) == 60

    for path in tmp_path.glob("test-*"):
        path.unlink()
    kinds = tmp_path / "kinds"
    kinds.write_bytes(gzip.compress(kinds.read_bytes()))
    assert len(data.load(str(tmp_path)).test.y) == 10


def test_a_folder_that_is_no_data_set(tmp_path):
    assert "it needs one of images" in refused(str(tmp_path))
    write_idx(tmp_path, pictures=GREY)
    assert "it needs one of images" in refused(str(tmp_path))
    write_idx(tmp_path, kinds=Y, latest=Y)
    assert "second file of labels" in refused(str(tmp_path))
    (tmp_path / "latest").unlink()
    write_idx(tmp_path, kinds=Y[:60])
    assert "90 images and 60 labels" in refused(str(tmp_path))
    (tmp_path / "kinds").write_bytes(gzip.compress(bytes(9))[:12])
    with pytest.raises(data.DataError, match=r"kinds.*get the file again"):
        data.load(str(tmp_path))
