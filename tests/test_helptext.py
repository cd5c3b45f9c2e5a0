"""What `train.py --help` and `--list` print."""

import dataclasses

import pytest

import lrajax
from lrajax import data
from lrajax.runs.commands import train, train_flags
from lrajax.runs.settings import Settings


@pytest.fixture
def printed(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as left:
            train.run(["train.py", *words])
        out, err = capsys.readouterr()
        assert (left.value.code, err) == (None, "")
        return out

    return run


def test_help_begins_with_examples_and_fits_three_screens(printed):
    lines = printed("-h").splitlines()
    assert any("python experiments/train.py" in line for line in lines[:4])
    assert len(lines) < 120
    assert max(map(len, lines)) <= 100


def test_help_shows_every_flag_once(printed):
    text = printed("--epochs=2", "--help")
    flags = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert sorted(flags) == sorted(f"--{name}" for name in train_flags.define())


def test_every_hyperparameter_has_a_flag_that_says_whose_it_is(printed):
    text = " ".join(printed("--help").split())
    for rule in lrajax.RULES.values():
        for name, one in rule.hyperparameters.items():
            assert one.about, f"{rule.name}'s docstring is silent about {name}"
            _, _, entry = text.partition(f"--{name} ")
            entry = entry.partition(" --")[0]
            assert rule.name in entry or name in ("reduction", "w_init")


def test_one_name_is_one_type_and_no_setting_s_name():
    settings = {field.name for field in dataclasses.fields(Settings)}
    for name, owners in train_flags.hyperparameters().items():
        assert len({str(one.type) for one in owners.values()}) == 1
        assert name not in settings


def test_list_shows_rules_optimisers_and_data_sets(printed):
    names = {line.split()[0] for line in printed("--list").splitlines() if line.startswith("  ")}
    assert names >= {
        *lrajax.ALGORITHMS,
        *lrajax.networks.NETWORKS,
        "sgd",
        "adam",
        "rmsprop",
        *data.NAMES,
    }


def test_list_shows_the_settings_that_train_takes_by_default(printed):
    text = printed("--list")
    assert "--opt=adam --lr=0.0003" in text  # of equilibrium propagation with 3 hidden layers
    assert "nudge=centred" in text
