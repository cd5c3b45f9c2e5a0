"""experiments/train.py as a user runs it: a process, its files, its errors."""

import json
import os
import time

import numpy as np
import pytest
from commands import run, run_anew
from test_trackers import read_tensorboard

from lrajax.runs.commands import train as command

SMALL = ("--width=16", "--hidden_layers=2", "--epochs=2")


def train(*flags, env=None):
    environment = {k: v for k, v in os.environ.items() if k != "LRAJAX_DATA_DIR"} | (env or {})
    return (run_anew if env else run)("train.py", *flags, env=environment)


def ok(*flags):
    done = train(*flags)
    assert done.returncode == 0, done.stderr
    return done


def test_the_first_command_learns_the_digits(tmp_path):
    ok("--algo=lra_e", "--opt=adam", "--epochs=30", f"--out_dir={tmp_path}")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_error_mean"] < 4


def test_units_that_fire_at_random_learn_the_digits(tmp_path):
    flags = ("--activation=bernoulli", "--opt=adam", "--epochs=15", f"--out_dir={tmp_path}")
    ok("--algo=backprop", *flags)
    assert json.loads((tmp_path / "summary.json").read_text())["test_error_mean"] < 30


def test_a_precision_that_a_cpu_ignores_is_said_to_be_ignored():
    flags = ("--epochs=1", "--precision=bfloat16")
    done = train(*SMALL, *flags, env={"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    assert "--precision=bfloat16 does nothing on a CPU" in done.stderr


def test_files_agree_with_each_other(tmp_path):
    flags = (
        "--epochs=3",
        "--num_seeds=2",
        f"--out_dir={tmp_path}",
        f"--tensorboard={tmp_path}/logs",
    )
    done = ok("--algo=dtp_sigma", *SMALL, *flags)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "summary.json").read_text())
    config = json.loads((tmp_path / "config.json").read_text())

    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert summary["seeds"] == config["settings"]["seeds"] == [0, 1]
    assert config["settings"]["hyperparameters"]["alpha"] == 0.01
    assert {"python", "jax", "jaxlib", "optax", "lrajax"} <= set(config["versions"])
    for i in range(2):
        valid = [line["valid_error"][i] for line in lines]
        best = summary["best_epoch"][i]
        assert best == 1 + int(np.argmin(valid))
        assert summary["valid_error"][i] == valid[best - 1]
        assert summary["test_error"][i] == lines[best - 1]["test_error"][i]
        events = read_tensorboard(tmp_path / "logs" / f"{tmp_path.name}_seed={i}")
        assert events == dict(enumerate(valid, 1))
    assert summary["test_error_mean"] == pytest.approx(np.mean(summary["test_error"]))
    assert summary["test_error_std"] == pytest.approx(np.std(summary["test_error"], ddof=1))
    assert f"{summary['test_error_mean']:.2f}" in done.stdout


def test_best_params_give_the_reported_test_error(tmp_path):
    from lrajax import data

    ok("--algo=backprop", *SMALL, f"--out_dir={tmp_path}")
    params = np.load(tmp_path / "best_params.npz")
    test = data.load("digits").test
    z = test.x / 16.0
    for l in range(3):
        h = z @ params[f"forward/{l}/w"][0] + params[f"forward/{l}/b"][0]
        z = np.tanh(h)
    error = 100 * np.mean(h.argmax(axis=1) != test.y)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_error"] == [pytest.approx(error, abs=1e-4)]


def test_a_seed_gives_the_same_run_alone_and_in_company(tmp_path):
    ok("--algo=dfa", *SMALL, "--seed=4", "--num_seeds=3", f"--out_dir={tmp_path / 'three'}")
    ok("--algo=dfa", *SMALL, "--seed=5", f"--out_dir={tmp_path / 'one'}")
    three, one = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("three", "one")
    )
    assert three["train_loss"][1] == pytest.approx(one["train_loss"], rel=1e-4)
    assert three["train_loss"][0] != pytest.approx(one["train_loss"], rel=1e-3)


def test_same_command_gives_the_same_numbers(tmp_path):
    for name in ("a", "b"):
        ok(*SMALL, "--algo=dtp", f"--out_dir={tmp_path / name}")
    a, b = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("a", "b")
    )
    timing = {"seconds", "examples_per_second"}
    for line_a, line_b in zip(a, b, strict=True):
        assert all(line_a[name] == line_b[name] for name in line_a.keys() - timing)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--algo=lra"], ["--algo", "lra_e"]),
        (["--opt=adamm"], ["--opt", "did you mean 'adam'"]),
        (["--dataset=mnits"], ["--dataset", "mnist"]),
        (["--dataset=MNIST"], ["--dataset=MNIST", "did you mean mnist?"]),
        (["--dataset=absent.npz"], ["--dataset=absent.npz", "numpy.savez"]),
        (["--augment=flop"], ["--augment", "did you mean 'flip'"]),
        (["--dataset=mnist", "--data_dir=/nowhere"], ["--data_dir", "train-images-idx3-ubyte"]),
        (["--batch_size=2000"], ["--batch_size", "at most 1350"]),
        (["--width=0"], ["--width", "at least 1"]),
        (["--hidden_layers=-1"], ["--hidden_layers", "at least 1"]),
        (["--epochs=0"], ["--epochs", "at least 1"]),
        (["--num_seeds=0"], ["--num_seeds", "at least 1"]),
        (["--valid_size=0"], ["--valid_size"]),
        (["--epochs=ten"], ["--epochs", "ten"]),
        (["--epoch=10"], ["epoch", "epochs"]),
        (["epochs=10"], ["epochs=10", "--name=value"]),
        (["--lr=nan"], ["--lr", "above 0"]),
        (["--lr=-1"], ["--lr", "above 0"]),
        (["--schedule=cosin"], ["--schedule", "did you mean 'cosine'"]),
        (["--weight_decay=-0.1"], ["--weight_decay", "at least 0"]),
        (["--beta=inf"], ["--beta", "above 0"]),
        (["--algo=dfa", "--gamma=0.5"], ["--gamma", "dfa", "lra_e", "drop it"]),
        (["--local_loss=gauss"], ["--local_loss", "gaussian"]),
        (["--w_init=gaussian"], ["--w_init", "gaussian:STD"]),
        (["--e_init=uniform"], ["--e_init", "glorot"]),
        (["--activation=tan"], ["--activation", "tanh"]),
        (["--algo=equil_prop", "--rates=0.1"], ["--rates", "4 layers"]),
        (["--network=lenett"], ["--network", "did you mean 'lenet'"]),
        (
            ["--network=lenet", "--hidden_layers=9"],
            ["--hidden_layers", "network=lenet", "drop it"],
        ),
        (["--network=resnet_small", "--hidden_layers=2"], ["--hidden_layers", "drop it"]),
        (["--network=resnet_small", "--width=0"], ["--width", "at least 1"]),
        (["--activation=bernoulli", "--network=lenet"], ["--activation", "network=mlp"]),
        (["--activation=kwta:2"], ["--activation", "kwta:0.1"]),
        (["--out_dir=/proc/nowhere"], ["--out_dir", "choose another folder"]),
    ],
)
def test_bad_input_is_refused_in_one_line(flags, words, monkeypatch, capsys):
    monkeypatch.delenv("LRAJAX_DATA_DIR", raising=False)
    with pytest.raises(SystemExit) as left:
        command.run(["train.py", *flags])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line


def test_no_network_is_answered_with_the_remedy(tmp_path):
    began = time.monotonic()
    done = train("--dataset=mnist", *SMALL, env={"TFDS_DATA_DIR": str(tmp_path)})
    if done.returncode == 0:
        pytest.skip("there is a network")
    assert done.returncode == 2
    assert "--data_dir" in done.stderr
    # tensorflow-datasets alone would retry for minutes; the start of Python is included here.
    assert time.monotonic() - began < 60


def test_out_dir_of_another_run_is_left_alone(tmp_path):
    ok(*SMALL, f"--out_dir={tmp_path}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    different = train(*SMALL, "--beta=0.2", f"--out_dir={tmp_path}")
    assert different.returncode == 2
    assert "hyperparameters" in different.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
