"""Runs read back: rows of data, and networks that predict what was reported."""

import importlib.metadata
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from lrajax import checkpoint, data, runs
from lrajax.runs import records
from lrajax.runs.commands import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of DTP over two rates, two seeds; below it, what is no run of its own."""
    folder = tmp_path_factory.mktemp("runs")
    words = ("--algo=dtp", "--lr=0.001,0.0003", "--num_seeds=2", "--epochs=2", "--width=8")
    with pytest.raises(SystemExit) as end:
        train.run(["train.py", *words, f"--out_dir={folder / 'a b' / 'sweep'}"])
    assert not end.value.code
    other = folder / "a b" / "sweep" / "1_seed"
    other.mkdir()
    (other / "config.json").write_text("{}")
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder / "a b" / "sweep", tmp_path / "run")
    return tmp_path / "run"


def test_folders_above_and_patterns_name_runs(folder):
    run = folder / "a b" / "sweep"
    for place in (run, folder, folder / "a*" / "*", str(folder / "**" / "sweep")):
        assert runs.find(place) == [run]
    assert runs.find(run, folder) == [run]


@pytest.mark.parametrize("place", ["nowhere", "nothing*", "."])
def test_a_place_without_runs_is_named(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"`train --out_dir` wrote$") as error:
        runs.find(place)
    assert place in str(error.value)


def test_rows_are_tidy_and_of_plain_values(folder):
    found = runs.read(folder)
    run = folder / "a b" / "sweep"
    summary = json.loads((run / "summary.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for rows in found:
        assert len({tuple(row) for row in rows}) == 1  # the same columns
        plain = (str, int, float, bool, type(None))
        assert all(isinstance(value, plain) for row in rows for value in row.values())
    assert [(row["seed"], row["lr"]) for row in found.runs] == [
        (0, 0.001),
        (0, 0.0003),
        (1, 0.001),
        (1, 0.0003),
    ]
    assert [row["test_error"] for row in found.runs] == summary["test_error"]
    assert {row["sigma" if "sigma" in row else "noise"] for row in found.runs} != {None}
    assert len(found.epochs) == 4 * 2
    (one,) = (r for r in found.epochs if (r["seed"], r["lr"], r["epoch"]) == (1, 0.001, 2))
    assert one["valid_error"] == lines[1]["valid_error"][2]
    assert one["algo"] == "dtp"
    assert one["folder"] == str(run)


def test_unfinished_runs_have_epochs_and_no_result(copy):
    (copy / "summary.json").unlink()
    found = runs.read(copy)
    assert len(found.epochs) == 4 * 2
    assert {row["test_error"] for row in found.runs} == {None}


def test_a_loaded_run_predicts_as_reported(folder):
    run = folder / "a b" / "sweep"
    loaded = runs.load(run, seed=1, lr=0.0003)
    digits = data.load("digits")
    answers = loaded.algo.predict(loaded.params, jnp.asarray(digits.test.x / 16.0, jnp.float32))
    wrong = np.mean(answers.argmax(axis=-1) != digits.test.y)
    reported = json.loads((run / "summary.json").read_text())["test_error"][3]
    assert 100 * wrong == pytest.approx(reported, abs=1e-4)
    assert len(loaded.network.layers) == 4


def test_runs_of_older_versions_are_loaded_by_their_data_set(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    new = {"command", "commit", "data_dir", "image_shape", "num_classes"}
    assert new <= config.keys()
    path.write_text(json.dumps({k: v for k, v in config.items() if k not in new}))
    old, now = runs.load(copy, lr=0.001), runs.load(copy, seed=0, lr=0.001)
    np.testing.assert_array_equal(old.params.forward[0]["w"], now.params.forward[0]["w"])
    assert runs.read(copy).runs[0]["lr"] == 0.001


@pytest.mark.parametrize("wanted", [{}, {"lr": 0.1}, {"lr": 0.001, "seed": 7}, {"beta": 0.1}])
def test_a_run_that_is_not_meant_by_one_name_is_refused_with_the_choice(folder, wanted):
    with pytest.raises(ValueError, match=r"give seed= one of \[0, 1\], lr= one of \[0.001, 0.0003"):
        runs.load(folder / "a b" / "sweep", **wanted)


def test_config_says_where_a_run_comes_from(folder):
    config = json.loads((folder / "a b" / "sweep" / "config.json").read_text())
    assert config["command"].startswith("train.py --algo=dtp --lr=0.001,0.0003 --num_seeds=2")
    assert config["command"].endswith(f"'--out_dir={folder}/a b/sweep'")
    assert (config["image_shape"], config["num_classes"]) == ([8, 8], 10)


def test_a_package_installed_from_a_repository_knows_its_commit(tmp_path, monkeypatch):
    about = tmp_path / "lrajax-1.0.dist-info"
    about.mkdir()
    (about / "direct_url.json").write_text('{"vcs_info": {"vcs": "git", "commit_id": "abc"}}')
    installed = importlib.metadata.PathDistribution(about)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: installed)
    runs_from = [
        tmp_path / "lrajax" / "records.py",
        tmp_path / "checkout" / "lrajax" / "records.py",
    ]
    assert [records._installed_commit(path) for path in runs_from] == ["abc", None]


def test_parameters_of_a_run_are_no_damaged_checkpoint(folder):
    path = folder / "a b" / "sweep" / "best_params.npz"
    with pytest.raises(
        checkpoint.CheckpointError, match=r"no checkpoint: lrajax.runs.load reads"
    ) as caught:
        checkpoint.load(path, {})
    assert not isinstance(caught.value, checkpoint.DamagedError)
