"""`Rule`: what the rest of the library knows of a learning rule."""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lrajax.base import Algorithm


class Hyperparameter(NamedTuple):
    """An argument of a rule's factory.

    Attributes:
      default: its value where none is given.
      type: its annotation.
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
      traced: hyperparameters that may be traced, so that one program can sweep them.
      fixed_feedback: whether E stays as it was drawn.
      clipped: whether its units are states in [0, 1], in place of the network's activations.
      plain: hyperparameters without noise or decay, so that what is computed of a mini-batch is the
        sum over its examples.
    """

    factory: Callable[..., Algorithm]
    title: str
    paper: str
    traced: tuple[str, ...] = ()
    fixed_feedback: bool = False
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
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """The factory's keyword arguments, in its order."""
        types, texts = typing.get_type_hints(self.factory), _arguments(_doc(self.factory))
        return {
            name: Hyperparameter(parameter.default, types.get(name), texts.get(name, ""))
            for name, parameter in inspect.signature(self.factory).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }


def _doc(function: Callable) -> str:
    return inspect.getdoc(function) or ""


def _arguments(doc: str) -> dict[str, str]:
    """What a docstring's section Args says of each argument."""
    section = re.search(r"^Args:\n((?: .*\n)+)", doc + "\n", re.MULTILINE)
    entries = re.findall(
        r"^  (\w+): (.*(?:\n    .*)*)", section[1] if section else "", re.MULTILINE
    )
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}
