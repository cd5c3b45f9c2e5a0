"""`Rule`: what the rest of the library knows of a learning rule; `factory`: what makes one."""

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from lrajax import checks, initializers
from lrajax.base import Algorithm, Initializer, Network

Factory = TypeVar("Factory", bound=Callable[..., Algorithm])


def factory(function: Factory) -> Factory:
    """Lets a rule's factory take its arguments as they are plainly meant.

    The annotations say how: text for a number ("1e-3", as YAML reads it) or an initialiser
    ("glorot"), 20.0 for a count, and a whole number for the key that the rule draws from. What
    cannot be meant raises ValueError, with the argument's name, before anything is computed.
    """
    types = typing.get_type_hints(function)

    @functools.wraps(function)
    def make(network: Network, **arguments: Any) -> Algorithm:
        if not isinstance(network, Network):
            raise ValueError(
                f"network={network!r} must be a lrajax.Network: write lrajax.mlp((784, 256, 10))"
            )
        meant = {name: _meant(name, value, types.get(name)) for name, value in arguments.items()}
        algo = function(network, **meant)
        if not isinstance(algo, Algorithm):
            raise ValueError(f"algo={function.__name__} gave no lrajax.Algorithm, but {algo!r}")

        @functools.wraps(algo.init)
        def init(key):
            return algo.init(checks.as_key(key))

        @functools.wraps(algo.compute_targets)
        def compute_targets(params, batch, *, key=None, **kept):
            key = None if key is None else checks.as_key(key)
            return algo.compute_targets(params, batch, key=key, **kept)

        return algo._replace(init=init, compute_targets=compute_targets)

    return typing.cast(Factory, make)


def _meant(name: str, value: Any, kind: Any) -> Any:
    """An argument's value, of the type that its annotation says."""
    options = typing.get_args(kind) if type(None) in typing.get_args(kind) else (kind,)
    if value is None and type(None) in options:
        return None
    if Initializer in options:
        return initializers.resolve(value, name)
    converters = {
        bool: checks.truth,
        int: checks.whole,
        float: checks.number,
        str: checks.text,
    }
    convert = next((converters[option] for option in options if option in converters), None)
    return convert(name, value) if convert else value


class Hyperparameter(NamedTuple):
    """An argument of a rule's factory.

    Attributes:
      default: its value where none is given.
      type: its annotation, or else its default's type.
      about: what the factory's docstring says of it, without the full stop.
    """

    default: Any
    type: Any
    about: str


class Rule(NamedTuple):
    """The record of a learning rule; what is not here is in its factory's signature and docstring.

    Attributes:
      factory: `(network, *, hyperparameters) -> Algorithm`; its name is the rule's.
      title: what tables and legends call it.
      paper: where it comes from.
      traced: hyperparameters that may be traced, so that one program can sweep them, each with the
        range that a search looks through, on a logarithmic scale.
      fixed_feedback: whether E stays as it was drawn; None where nothing is said.
      clipped: whether its units are states in [0, 1], in place of the network's activations.
      plain: hyperparameters without noise or decay, so that what is computed of a mini-batch is the
        sum over its examples.
    """

    factory: Callable[..., Algorithm]
    title: str
    paper: str
    traced: Mapping[str, tuple[float, float]] = MappingProxyType({})
    fixed_feedback: bool | None = False
    clipped: bool = False
    plain: Mapping[str, Any] = MappingProxyType({})

    @property
    def name(self) -> str:
        """The value of `--algo`."""
        return self.factory.__name__

    @property
    def about(self) -> str:
        """What the factory makes, in a few words."""
        made = _doc(self.factory).partition("\n")[0]
        return made.removeprefix("Makes ").removesuffix(" for a network.").rstrip(",")

    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """The factory's keyword arguments, in its order."""
        return _hyperparameters(self.factory)


@functools.cache  # flags, presets and settings ask for them over and over
def _hyperparameters(factory: Callable) -> Mapping[str, Hyperparameter]:
    types, texts = typing.get_type_hints(factory), _arguments(_doc(factory))
    found = {
        name: Hyperparameter(
            parameter.default, types.get(name, type(parameter.default)), texts.get(name, "")
        )
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return MappingProxyType(found)


def _doc(function: Callable) -> str:
    return inspect.getdoc(function) or ""


def _arguments(doc: str) -> dict[str, str]:
    """What a docstring's section Args says of each argument."""
    section = re.search(r"^Args:\n((?: .*\n)+)", doc + "\n", re.MULTILINE)
    entries = re.findall(
        r"^  (\w+): (.*(?:\n    .*)*)", section[1] if section else "", re.MULTILINE
    )
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}
