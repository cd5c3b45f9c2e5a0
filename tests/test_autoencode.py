"""experiments/autoencode.py, on the digits."""

import json

import numpy as np
import pytest
from commands import run

from lrajax import data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    done = run("autoencode.py", "--epochs=8", "--seeds=2", f"--out_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def records(folder):
    return {p.stem: json.loads(p.read_text()) for p in (folder / "autoencoder").iterdir()}


def test_every_rule_learns_to_reconstruct_with_either_output(records):
    assert records.keys() == {
        f"{rule}-{output}" for rule in ("lra_e", "backprop") for output in ("bernoulli", "gaussian")
    }
    # The best that an autoencoder can do which does not look at its input is the mean image.
    spread = np.var(data.load("digits").test.x / 16.0, axis=0).mean()
    for record in records.values():
        assert np.shape(record["valid_loss"]) == (8, 2)
        assert max(record["mean_squared_error"]) < spread / 2


def test_the_images_shown_are_the_test_set_s_and_their_reconstructions_resemble_them(records):
    test = data.load("digits").test.x[:10] / 16.0
    for record in records.values():
        np.testing.assert_allclose(np.array(record["images"]) / 255, test, atol=1 / 255)
        error = np.square(np.array(record["reconstructions"]) / 255 - test).mean()
        assert error < 2 * record["mean_squared_error"][0]


def test_what_is_there_is_left_alone_and_drawn(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "autoencoder").iterdir()}
    assert run("autoencode.py", "--epochs=8", "--seeds=2", f"--out_dir={folder}").returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    other = run("autoencode.py", "--epochs=8", "--seeds=3", f"--out_dir={folder}")
    assert other.returncode == 2
    assert "made with other settings" in other.stderr
    out = folder / "RESULTS.md"
    done = run("results.py", f"--results={folder}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "| LRA-E | gaussian | 8 | 2 |" in out.read_text()
    assert (folder / "figures" / "autoencoder.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--epochs=0", ["--epochs", "at least 1"]),
        ("--seeds=0", ["--seeds", "at least 1"]),
        ("--data_dir=/nowhere", ["--data_dir"]),
        ("--out_dir=/proc", ["--out_dir", "choose another"]),
    ],
)
def test_bad_input_is_refused_in_one_line(flag, words, tmp_path):
    dataset = "--dataset=mnist" if "data_dir" in flag else "--dataset=digits"
    done = run("autoencode.py", f"--out_dir={tmp_path}", dataset, flag)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
