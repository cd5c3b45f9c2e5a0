"""The flags of `lrajax train`, and the settings they ask for.

Those of the rules follow from `lrajax.RULES`: a flag for each hyperparameter, of its type. Numbers
that a rule can trace take several values, with commas, and train every combination with every seed
at once.
"""

import dataclasses
import json
import pathlib
import re
import typing
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from absl import flags

import lrajax
from lrajax import data
from lrajax.algorithms import Hyperparameter
from lrajax.base import Initializer
from lrajax.checks import between
from lrajax.networks import NETWORKS
from lrajax.runs import named, presets
from lrajax.runs.commands import commandline
from lrajax.runs.settings import DTYPES, OPTIMIZERS, SCHEDULES, Settings

WRITTEN = "glorot, orthogonal[:GAIN], gaussian:STD or unit_gain:BETA"  # initialisers


class Numbers(flags.ArgumentParser):
    """A number, or several with commas, as a tuple."""

    def parse(self, argument: str) -> tuple[float, ...]:
        """Raises ValueError for anything else."""
        try:
            found = tuple(map(float, argument.split(",")))
        except ValueError:
            raise ValueError("write a number, or several with commas") from None
        if len(set(found)) < len(found):
            raise ValueError("write every value once: --num_seeds repeats runs")
        return found


def define(algo: str = "") -> flags.FlagValues:
    """The command's flags, not yet parsed. A setting that is None is not given.

    Args:
      algo: a rule of one's own, MODULE:FUNCTION, whose hyperparameters are flags too.

    Raises:
      ValueError: there is no such rule, or a hyperparameter of it is called as another flag is.
    """
    values = flags.FlagValues()

    def text(name, about, default=None):
        flags.DEFINE_string(name, default, about, flag_values=values)

    def path(name, about):
        commandline.define_path(name, None, about, values)

    def integer(name, about, default=None):
        flags.DEFINE_integer(name, default, about, flag_values=values)

    def switch(name, about, default=None):
        flags.DEFINE_bool(name, default, about, flag_values=values)

    def number(name, about, default=None):
        flags.DEFINE_float(name, default, about, flag_values=values)

    def numbers(name, about):
        flags.DEFINE(Numbers(), name, None, about, flag_values=values)

    text("algo", f"learning rule: {', '.join(lrajax.RULES)}, or {named.OWN}", "lra_e")
    path("preset", "file of settings that lrajax tune chose; what other flags say goes before it")
    text("network", f"{', '.join(NETWORKS)}, or {named.OWN}; default: mlp")
    integer("hidden_layers", "of dense networks: how many; default: 3")
    integer("width", "units in each, 256; of networks for images: feature maps")
    text("activation", "of the hidden layers; bernoulli: units that fire at random; default: tanh")
    text("opt", f"{', '.join(OPTIMIZERS)}; default: the rule's")
    numbers("lr", "learning rate; default: the rule's, at its depth, for --opt")
    text("schedule", f"of the learning rate: {' or '.join(SCHEDULES)}; default: constant")
    number("weight_decay", "of W and learned E, times --lr as in AdamW; one number")
    text(
        "dataset",
        "digits (embedded), a name of --list, FILE.npz or a folder of IDX files; default: digits",
    )
    path(
        "data_dir",
        "folder of the set's files, or TFDS's; default: LRAJAX_DATA_DIR, then TFDS's own",
    )
    flags.DEFINE_list(
        "augment",
        None,
        f"of training images, with commas: {', '.join(data.AUGMENTATIONS)}",
        flag_values=values,
    )
    switch("standardize", "images by channel; default: those with colours")
    integer("valid_size", "examples held out for validation")
    integer("split_seed", "seed of the validation split; default: 0")
    integer("batch_size", "examples in a mini-batch; default: 50")
    integer("epochs", "passes over the training set; default: 100, equil_prop fewer")
    integer("seed", "seed of the first run", 0)
    integer("num_seeds", "runs trained together, seeds --seed and up", 1)
    path("out_dir", "folder for the run's files; default: none kept")
    integer("checkpoint_every", "epochs between checkpoints", 1)
    path("tensorboard", "folder for TensorBoard's event files, written while training")
    path("wandb", "folder for W&B's files; sent while training if WANDB_MODE=online")
    path("mlflow", "folder for MLflow's local store")
    by_type = {bool: switch, int: integer, float: number, Sequence[float]: numbers}
    for name, owners in hyperparameters(algo).items():
        if name in values:
            raise ValueError(f"algo={algo}: its {name} is another flag's name: call it otherwise")
        kind = without_none(next(iter(owners.values())).type)
        define_one = numbers if name in swept(algo) else by_type.get(kind, text)
        define_one(name, about(owners))
    integer("num_devices", "devices to split runs or mini-batches over; default: what divides them")
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16"],
        "of matrix products; bfloat16: that on a TPU, TF32 on a GPU that has it, no effect on a "
        "CPU",
        flag_values=values,
    )
    text("dtype", f"of parameters and all that is computed: {', '.join(DTYPES)}; default: float32")
    text("coordinator", "several processes: HOST:PORT of process 0")
    integer("num_processes", "several processes: how many")
    integer("process_id", "several processes: this one, from 0")
    integer("timeout", "several processes: seconds to wait for the others", 60)
    switch("check_finite", "say where a run stops being finite", False)
    return values


def own_rule(argv: Sequence[str]) -> str:
    """The MODULE:FUNCTION that the words of a command line give for --algo, or nothing."""
    found = re.findall(r"^--?algo[=\n](.*:.*)$", "\n".join(argv), re.MULTILINE)
    return found[-1] if found else ""


def without_none(type_: Any) -> Any:
    """Of `float | None` float."""
    members = typing.get_args(type_)
    return members[0] if type(None) in members else type_


def hyperparameters(algo: str = "") -> dict[str, dict[str, Hyperparameter]]:
    """The hyperparameters of all rules, of `algo` too, by name, each by the rules that have it."""
    found: dict[str, dict[str, Hyperparameter]] = defaultdict(dict)
    for rule in named.rules(algo):
        for name, one in rule.hyperparameters.items():
            found[name][rule.name] = one
    return dict(sorted(found.items()))


def swept(algo: str = "") -> set[str]:
    """What takes several numbers."""
    return {"lr"}.union(*(rule.traced for rule in named.rules(algo)))


def read_preset(values: flags.FlagValues) -> dict[str, Any]:
    """The settings that a search chose for a rule, each as its flag would be read.

    Raises:
      ValueError: the file is not such a preset, or of another rule.
    """
    path, algo = values.preset, values.algo
    try:
        chosen = dict(json.loads(pathlib.Path(path).read_text())["settings"])
        of = chosen.pop("algo")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"preset={path} is no preset of lrajax tune ({error}): name its preset.json"
        ) from error
    if of != algo:
        raise ValueError(f"preset={path} is of {of}: write --algo={of}")
    types = typing.get_type_hints(Settings)
    types |= {name: one.type for name, one in named.rule(algo).hyperparameters.items()}
    if others := sorted(name for name in chosen if name not in types or name not in values):
        raise ValueError(f"preset={path}: no search chooses {others[0]}: drop it")
    for name, value in chosen.items():
        if value is None and type(None) in typing.get_args(types[name]):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            chosen[name] = values[name].parser.parse(text)
        except ValueError as error:
            raise ValueError(f"preset={path}: --{name} cannot be {text}: drop it") from error
    return chosen


def about(owners: dict[str, Hyperparameter]) -> str:
    """What the rules' docstrings say of a hyperparameter, and whose it is unless every rule's."""
    texts: dict[str, list[str]] = defaultdict(list)
    for algo, one in owners.items():
        sentence = re.split(r"\. (?=[A-Z(])", one.about)[0]
        texts[sentence].append(algo)
    if len(owners) == len(lrajax.RULES) and len(texts) == 1:
        said = next(iter(texts))
    else:
        said = "; ".join(f"{', '.join(algos)}: {text}" for text, algos in texts.items())
    return said + (f"; {WRITTEN}" if one.type == Initializer else "")


def settings(values: flags.FlagValues) -> Settings:
    """The settings that parsed flags ask for.

    Raises:
      ValueError: they cannot be run.
    """
    named.rule(values.algo)
    between("num_seeds", values.num_seeds, 1, 100_000)
    names = (*(field.name for field in dataclasses.fields(Settings)), *hyperparameters(values.algo))
    given: dict[str, Any] = {name: values[name].value for name in names if name in values}
    given = {name: value for name, value in given.items() if value is not None}
    if values.preset:
        chosen = read_preset(values)
        if values.network not in (None, chosen.get("network")):  # which has sizes of its own
            chosen = {
                name: v for name, v in chosen.items() if name not in ("hidden_layers", "width")
            }
        given = {**chosen, **given}
    if "augment" in given:
        given["augment"] = tuple(given["augment"])
    several = {name: value for name, value in given.items() if name in swept(values.algo)}
    made = presets.resolve(
        **{**given, **{name: value[0] for name, value in several.items()}},
        sweep={name: value for name, value in several.items() if len(value) > 1},
        seeds=tuple(range(values.seed, values.seed + values.num_seeds)),
    )
    made.check()
    return made
