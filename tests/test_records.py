"""The records of the rules, `lrajax.RULES`: a rule is added by its file and its record."""

import importlib.util
import inspect
import json

import jax
import pytest
import reference

import lrajax
from lrajax import networks
from lrajax.algorithms import _kolen_pollack
from lrajax.runs import presets
from lrajax.runs.commands import train


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """`kolen_pollack` under another name, and with another name for its decay, as a record."""
    source = inspect.getsource(_kolen_pollack)
    for old, new in (("kolen_pollack", "copied"), ("decay", "leak")):
        source = source.replace(old, new)
    path = tmp_path / "_copied.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("_copied", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rule = lrajax.Rule(
        module.copied, "a copy", "nowhere", traced={"leak": (0.1, 10.0)}, plain={"leak": 0.0}
    )
    monkeypatch.setitem(lrajax.RULES, "copied", rule)
    return rule


def said(capsys, *words):
    with pytest.raises(SystemExit) as end:
        train.run(["train.py", *words])
    assert not end.value.code
    return " ".join(capsys.readouterr().out.split())


def test_a_rule_is_added_by_its_file_and_its_record(copied, tmp_path, capsys):
    """Listed, with a flag for its hyperparameter, swept over it, and trained as the original."""
    assert f"copied {copied.about}" in said(capsys, "--list")
    assert "--leak copied: κ, weight leak of every" in said(capsys, "--help")
    small = ("--width=8", "--hidden_layers=1", "--epochs=1", "--opt=sgd")
    said(capsys, "--algo=copied", "--leak=0.001,0.1", *small, f"--out_dir={tmp_path / 'copy'}")
    said(
        capsys, "--algo=kolen_pollack", "--decay=0.001,0.1", *small, f"--out_dir={tmp_path / 'it'}"
    )
    copy, original = (
        json.loads((tmp_path / name / "summary.json").read_text())["valid_error"]
        for name in ("copy", "it")
    )
    assert copy == original
    assert len(set(copy)) == 2


def test_another_rule_s_hyperparameter_is_refused_with_its_owners(copied, capsys):
    with pytest.raises(SystemExit):
        train.run(["train.py", "--algo=rfa", "--leak=0.1"])
    assert (
        "--leak= is not a setting of algo=rfa, only of copied: drop it" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", lrajax.RULES)
def test_a_record_names_hyperparameters_of_its_rule(name):
    rule = lrajax.RULES[name]
    assert rule.name == name
    assert {*rule.traced, *rule.plain} <= rule.hyperparameters.keys()
    assert all(isinstance(rule.hyperparameters[traced].default, float) for traced in rule.traced)
    assert all(hyperparameter.about for hyperparameter in rule.hyperparameters.values())
    assert len(rule.about.split()) > 1
    assert rule.title
    assert rule.paper


@pytest.mark.parametrize("network", networks.NETWORKS)
@pytest.mark.parametrize("algo", ["dtp", "lra_e", "dfa"])
def test_weights_decay_and_nothing_else(algo, network):
    """The weights of every layer there is are called w; a bias of DTP's decoders has any rank."""
    settings = presets.resolve(algo, network=network, weight_decay=0.1)
    made, key = settings.make_network((16, 16), 3), jax.random.key(0)
    params = jax.eval_shape(settings.make_algorithm((16, 16), 3, {}).init, key)
    decays = settings._decays(made, params)
    leaves = jax.tree_util.tree_leaves_with_path(decays)
    assert jax.tree.structure(decays) == jax.tree.structure(params)
    for path, decay in leaves:
        kept = algo == "dfa" and path[0].name == "feedback"
        assert decay == (path[-1].key == "w" and not kept), path


def test_weights_decay_by_what_e_mirrors_whatever_they_are_called(key):
    def rename(tree):
        return {{"w": "kernel", "b": "offset"}[name]: value for name, value in tree.items()}

    def back(tree):
        return {{"kernel": "w", "offset": "b"}[name]: value for name, value in tree.items()}

    def renamed(layer):
        return layer._replace(
            init=lambda key, draw: rename(layer.init(key, draw)),
            init_feedback=lambda key, draw: rename(layer.init_feedback(key, draw)),
            pre=lambda theta, z: layer.pre(back(theta), z),
        )

    network = lrajax.mlp((5, 4, 3, 2))
    network = network._replace(layers=tuple(map(renamed, network.layers)))
    params = reference.make_params(lrajax.lra_e(network))
    decays = presets.resolve("lra_e")._decays(network, params)
    assert decays.forward == ({"kernel": True, "offset": False},) * 3
    assert decays.feedback == ((), {"kernel": True}, {"kernel": True})


def test_the_application_leaves_the_precision_of_others_alone(monkeypatch):
    """Importing it sets nothing; what an experiment compiles has its own."""
    from lrajax import data
    from lrajax.runs.experiment import Experiment

    assert jax.config.jax_default_matmul_precision is None
    seen, init = [], Experiment.init

    def spied(self, *arguments):
        seen.append(jax.config.jax_default_matmul_precision)
        return init(self, *arguments)

    monkeypatch.setattr(Experiment, "init", spied)
    settings = presets.resolve("backprop", hidden_layers=1, width=2)
    Experiment(settings, data.load("digits"), precision="bfloat16").start()
    assert set(seen) == {"bfloat16"}
    assert jax.config.jax_default_matmul_precision is None
