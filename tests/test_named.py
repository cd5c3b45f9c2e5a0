"""Networks and rules of one's own, by MODULE:FUNCTION, without a process of their own."""

import json
import pathlib
import sys

import numpy as np
import pytest

from lrajax import data
from lrajax.runs import presets, reading
from lrajax.runs.commands import train

OWN = '''
import jax
import lrajax
from lrajax import layers

number = 3

def network(image_shape, num_classes, *, width=8, activation="tanh"):
    return lrajax.mlp((layers.size(tuple(image_shape)), width, num_classes), activation)

def normed(image_shape, num_classes, *, width=8, activation="tanh"):
    plain = network(image_shape, num_classes, width=width, activation=activation)
    return plain._replace(layers=(layers.batch_norm(plain.layers[0]), plain.layers[1]))

def bare(image_shape, num_classes):
    return network(image_shape, num_classes)

def ten(image_shape, num_classes, *, width=8, activation="tanh"):
    return lrajax.mlp((64, width, 9), activation)

def askew(image_shape, num_classes, *, width=8, activation="tanh"):
    plain = network(image_shape, num_classes, width=width, activation=activation)
    first, output = plain.layers
    return plain._replace(layers=(first._replace(post=lambda h: h[:3]), output))

def no_network(image_shape, num_classes, *, width=8, activation="tanh"):
    return None

def rule(network, *, kappa: float = 0.5, decay=1e-3):
    """Makes backprop whose updates are scaled for a network."""
    algo = lrajax.backprop(network, reduction="mean")
    def calc_updates(params, lambda_):
        updates = algo.calc_updates(params, lambda_)
        return jax.tree.map(lambda u: kappa * u, updates)
    return algo._replace(calc_updates=calc_updates)

def needy(network, *, kappa):
    return rule(network, kappa=kappa)

def clash(network, *, epochs=1):
    return rule(network)

def fixed(network):
    """Makes DFA for a network."""
    return lrajax.dfa(network)

def no_rule(network):
    return 3

record = lrajax.Rule(rule, "scaled", "nowhere", traced={"kappa": (0.1, 1)})
said = lrajax.Rule(fixed, "fixed", "nowhere", fixed_feedback=True)
'''


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Trains for an epoch in a folder that holds a module of one's own."""
    name = "own_" + tmp_path.name.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("def f(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(train.Interruption, "begin", lambda self: None)

    def run(*words):
        words = [word.replace("own:", f"{name}:").replace("own_b", f"{name}_b") for word in words]
        with pytest.raises(SystemExit) as end:
            train.run(["train.py", "--epochs=1", "--width=8", "--opt=sgd", "--lr=0.1", *words])
        out, err = capsys.readouterr()
        return end.value.code, out, err.replace(name, "own")

    return run


def params(folder):
    return {k: v.tobytes() for k, v in np.load(pathlib.Path(folder, "best_params.npz")).items()}


def test_ones_own_are_trained_resumed_and_reported(command, monkeypatch, capsys):
    """Half the update at twice the rate is backprop's own, to the last bit."""
    own = ("--network=own:network", "--algo=own:rule", "--kappa=0.5", "--lr=0.2", "--out_dir=own")
    assert command(*own)[0] == 0
    same = ("--hidden_layers=1", "--algo=backprop", "--out_dir=plain")
    assert command(*same)[0] == 0
    assert params("own") == params("plain")
    settings = json.loads(pathlib.Path("own/config.json").read_text())["settings"]
    assert settings["network"].endswith(":network")
    assert settings["hyperparameters"] == {"kappa": 0.5, "decay": 1e-3}
    assert command(*own, "--epochs=2")[0] == 0
    assert command(*own, "--epochs=2", "--kappa=0.6")[2].count("hyperparameters differ") == 1
    assert reading.Folder("own").settings.network == settings["network"]


def test_batch_norm_predicts_with_the_running_statistics_that_are_kept(command):
    assert command("--network=own:normed", "--algo=backprop", "--out_dir=runs")[0] == 0
    kept = {name: a[0] for name, a in np.load("runs/best_params.npz").items()}
    test = data.load("digits").test
    h = test.x / 16.0 @ kept["forward/0/w"] - kept["forward/0/mean"]
    h = h / np.sqrt(kept["forward/0/var"] + 1e-5) * kept["forward/0/gain"] + kept["forward/0/b"]
    z = np.tanh(h) @ kept["forward/1/w"] + kept["forward/1/b"]
    error = 100 * np.mean(z.argmax(axis=1) != test.y)
    assert error < 85
    summary = json.loads(pathlib.Path("runs/summary.json").read_text())
    assert summary["test_error"] == [pytest.approx(error, abs=1e-4)]


def test_a_record_of_ones_own_is_swept(command):
    assert (
        command("--algo=own:record", "--hidden_layers=1", "--kappa=0.5,1", "--out_dir=runs")[0] == 0
    )
    assert json.loads(pathlib.Path("runs/config.json").read_text())["settings"]["sweep"] == {
        "kappa": [0.5, 1.0]
    }


def test_fixed_feedback_of_ones_own_does_not_decay(command):
    """By a record that says so; backprop alone, which has none, needs no record."""
    decay = ("--hidden_layers=1", "--weight_decay=1")
    assert command("--algo=own:said", *decay, "--out_dir=own")[0] == 0
    assert command("--algo=dfa", *decay, "--reduction=sum", "--out_dir=dfa")[0] == 0
    assert params("own") == params("dfa")
    assert command("--algo=own:rule", *decay)[0] == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--network=own:netwrk", "--network=own:netwrk: module 'own' has no attribute 'netwrk'"),
        ("--network=nowhere:f", "--network=nowhere:f: nowhere cannot be imported (No module"),
        ("--network=own_broken:f", "--network=own_broken:f: own_broken cannot be imported ("),
        ("--network=own:number", "--network=own:number is 3, not a function"),
        ("--network=:f", "--network=':f' is no MODULE:FUNCTION"),
        ("--network=own:bare", "--network=own:bare does not take what it is given (got an une"),
        ("--network=own:no_network", "--network=None must be a lrajax.Network"),
        ("--network=own:ten", "--network=own:ten goes from (64,) to (9,) and dataset=digits from"),
        (
            "--network=own:askew",
            "--network=own:askew: layer 0: h is (8,), z (3,) and out_shape (8,",
        ),
        ("--network=own", "--network='own' is unknown"),
        ("--algo=own:rul", "--algo=own:rul: module 'own' has no attribute 'rul'"),
        ("--algo=nowhere:f", "--algo=nowhere:f: nowhere cannot be imported (No module"),
        ("--algo=own:needy", "--algo=own:needy does not take what it is given: let it be"),
        ("--algo=own:clash", "--algo=own:clash: its epochs is another flag's name"),
        ("--algo=own:fixed --weight_decay=1", "--weight_decay=1.0 and algo=own:fixed: only an E"),
        ("--algo=own:no_rule", "--algo=no_rule gave no lrajax.Algorithm, but 3"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_flag(command, word, message):
    status, out, err = command(*word.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f": {message}" in err


def test_a_network_of_ones_own_takes_the_weights_of_one_for_images(command, tmp_path, monkeypatch):
    name = f"own_{tmp_path.name.replace('-', '_')}:network"
    assert presets.resolve("lra_e", network=name).hyperparameters["w_init"] == "fan_in"
