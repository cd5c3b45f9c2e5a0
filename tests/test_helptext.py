"""What `train.py --help` and `--list` print."""

import pathlib

from commands import run

import lrajax
from lrajax import data

TRAIN = pathlib.Path(__file__).parents[1] / "experiments" / "train.py"


def printed(*words):
    done = run("train.py", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_help_begins_with_examples_and_fits_two_screens():
    lines = printed("-h").splitlines()
    assert any("python experiments/train.py" in line for line in lines[:4])
    assert len(lines) < 70
    assert max(map(len, lines)) <= 100


def test_help_shows_every_flag_once():
    text = printed("--epochs=2", "--help")
    flags = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    source = TRAIN.read_text()
    assert sorted(flags) == sorted(set(flags))
    assert len(flags) == source.count("flags.DEFINE_")


def test_list_shows_rules_optimisers_and_data_sets():
    names = {line.split()[0] for line in printed("--list").splitlines() if line.startswith("  ")}
    assert names >= {
        *lrajax.ALGORITHMS,
        *lrajax.networks.NETWORKS,
        "sgd",
        "adam",
        "rmsprop",
        *data.NAMES,
    }


def test_list_shows_the_settings_that_train_takes_by_default():
    text = printed("--list")
    assert "--opt=adam --lr=0.0003" in text  # of equilibrium propagation with 3 hidden layers
    assert "nudge=centred" in text
