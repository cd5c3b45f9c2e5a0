"""What `train.py --help` and `train.py --list` print: grouped, drawn from flags and records."""

import inspect
import textwrap
from collections.abc import Callable, Sequence

from absl import flags

import lrajax
from lrajax import data
from lrajax.networks import NETWORKS
from lrajax.runs import named, presets, settings
from lrajax.runs.commands import train_flags

EXAMPLES = """\
Trains a network with one learning rule.

  python experiments/train.py                                   LRA-E on the embedded digits
  python experiments/train.py --algo=dfa --opt=adam --num_seeds=5 --out_dir=runs/dfa
  python experiments/train.py --dataset=mnist --data_dir=FOLDER --lr=0.003,0.01,0.03
  python experiments/train.py --list                            rules, networks, data sets"""

# A flag that no group names is shown in the last one.
GROUPS = {
    "What to train": ("algo", "network", "hidden_layers", "width", "activation"),
    "How": ("opt", "lr", "schedule", "weight_decay"),
    "On what": (
        "dataset",
        "data_dir",
        "augment",
        "standardize",
        "valid_size",
        "split_seed",
        "batch_size",
        "epochs",
    ),
    "How often, and where to": ("seed", "num_seeds", "out_dir", "checkpoint_every"),
    "Trackers, besides": ("tensorboard", "wandb", "mlflow"),
    "Settings of the rules (of some rules only; --list shows whose)": (),
    "The machine": (),
}
*_, RULES, REST = GROUPS


def answer(argv: Sequence[str]) -> str | None:
    """The text that the command line asks for, or None if it asks for training."""
    words = {word.lstrip("-") for word in argv[1:] if word.startswith("-")}
    if words & {"help", "h", "helpshort"}:
        return help_text()
    return list_text() if "list" in words else None


def help_text() -> str:
    """Examples, then the command's own flags by group."""
    values = train_flags.define()
    own = {name: values[name] for name in values}
    groups = {title: [own.pop(name) for name in names] for title, names in GROUPS.items()}
    groups[RULES] = [own.pop(name) for name in train_flags.hyperparameters()]
    groups[REST] = list(own.values())
    sections = (f"{title}:\n" + "\n".join(map(_flag, group)) for title, group in groups.items())
    return "\n\n".join((EXAMPLES, *sections))


def _flag(flag: flags.Flag) -> str:
    default = "" if flag.default is None else f" (default {flag.default})"
    return _entry(f"--{flag.name}", f"{flag.help}{default}")


def list_text() -> str:
    """The names that --algo, --network, --opt and --dataset take."""
    optimizers = (
        _entry(name, f"default --lr={presets.TABLE[presets.Case(opt=name)]['lr']:g}")
        for name in settings.OPTIMIZERS
    )
    folder = f"from its files in --data_dir or {data.ENV_DATA_DIR}, or else downloaded"
    sets = (
        _entry(name, "embedded, no download" if name == "digits" else folder) for name in data.NAMES
    )
    other = (
        _entry("FILE.npz", "x and y, or x_train, y_train, x_test and y_test"),
        _entry("(a folder)", "of IDX files with any names"),
        _entry("(another)", "an image-classification set prepared by tensorflow-datasets"),
    )
    sections = {
        "Rules, --algo": (
            *map(_rule, lrajax.RULES.values()),
            _entry(named.OWN, "a factory of one's own: docs/howto/new_rule.md"),
        ),
        "Networks, --network": (
            *map(_network, NETWORKS),
            _entry(named.OWN, "a function of one's own: docs/howto/other_networks.md"),
        ),
        "Optimisers, --opt": optimizers,
        "Data sets, --dataset": (*sets, *other),
    }
    return "\n\n".join(f"{title}:\n" + "\n".join(lines) for title, lines in sections.items())


def _rule(rule: lrajax.Rule) -> str:
    run = presets.resolve(rule.name)
    text = " ".join(f"{name}={value}" for name, value in run.hyperparameters.items())
    how = f"{rule.about}; --opt={run.opt} --lr={run.lr:g}"
    return "\n".join((_entry(rule.name, how), _entry("", text)))


def _network(name: str) -> str:
    sizes = settings.network_sizes(name).items()
    text = " ".join(f"{size}={value}" for size, value in sizes if value is not None)
    return "\n".join(
        (_entry(name, _first_line(NETWORKS[name])), *([_entry("", text)] if text else []))
    )


def _first_line(function: Callable) -> str:
    # `python -OO` takes the docstrings away.
    return (inspect.getdoc(function) or function.__name__).splitlines()[0]


def _entry(name: str, text: str) -> str:
    indent = " " * 23
    lines = textwrap.wrap(text, 77, break_on_hyphens=False)
    return f"  {name:<21}" + f"\n{indent}".join(lines)
