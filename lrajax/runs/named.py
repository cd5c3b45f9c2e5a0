"""Networks and rules by the name that a command line gives them: of the library, or of one's own.

One's own are `MODULE:FUNCTION`, imported from the current folder or from what is installed.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import lrajax
from lrajax.algorithms import Rule
from lrajax.algorithms._rule import factory
from lrajax.checks import one_of
from lrajax.networks import FOR_IMAGES, NETWORKS

OWN = "MODULE:FUNCTION"
_SIDE = 32  # of images that one's own network is tried on before the data set is read


def network(name: str) -> Callable[..., lrajax.Network]:
    """The function `(image_shape, num_classes, *, activation, ...) -> Network` of that name.

    Args:
      name: a key of `networks.NETWORKS`, or MODULE:FUNCTION.

    Raises:
      ValueError: there is none, or it takes other arguments.
    """
    if not is_own(name):
        one_of("network", name, (*NETWORKS, OWN))
        return NETWORKS[name]
    make = _imported("network", name)
    try:
        inspect.signature(make).bind((_SIDE, _SIDE), 2, activation="tanh")
    except TypeError as error:
        raise ValueError(
            f"network={name} does not take what it is given ({error}): let it be "
            "f(image_shape, num_classes, *, activation), with defaults for anything else"
        ) from error
    return make


def rule(name: str) -> Rule:
    """The record of the rule of that name.

    Args:
      name: a key of `lrajax.RULES`, or MODULE:FUNCTION, a factory or a record of one.

    Raises:
      ValueError: there is none, or its factory takes other arguments.
    """
    if not is_own(name):
        one_of("algo", name, (*lrajax.RULES, OWN))
        return lrajax.RULES[name]
    found = _imported("algo", name)
    record = found if isinstance(found, Rule) else Rule(found, name, "", fixed_feedback=None)
    first, *others = inspect.signature(record.factory).parameters.values() or (None,)
    by_keyword = all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in others)
    if first is None or first.kind is first.KEYWORD_ONLY or not by_keyword:
        raise ValueError(
            f"algo={name} does not take what it is given: let it be f(network, *, ...), with "
            "hyperparameters by keyword that have defaults"
        )
    make = factory(record.factory)
    make.__name__ = name
    return record._replace(factory=make)


def rules(algo: str) -> list[Rule]:
    """The library's rules, and that of the name, if it is one's own."""
    return [*lrajax.RULES.values(), *([rule(algo)] if is_own(algo) else [])]


def is_own(name: str) -> bool:
    """Whether a name is MODULE:FUNCTION."""
    return ":" in name


def for_images(name: str) -> bool:
    """Whether a network is for images; of one's own nothing else is known."""
    return name in FOR_IMAGES or is_own(name)


def trial_side(name: str) -> int:
    """The side of images on which a network can be tried before the data set is read."""
    return _SIDE if is_own(name) else FOR_IMAGES.get(name, 1)


def _imported(flag: str, name: str) -> Any:
    """What MODULE:FUNCTION names; ValueError, naming the flag, if there is nothing to call."""
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ValueError(f"{flag}={name!r} is no {OWN}: write {flag}=mine:f for f in mine.py")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that no file there hides a library
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, SyntaxError) as error:
        raise ValueError(
            f"{flag}={name}: {module} cannot be imported ({error}): run in the folder that has it, "
            "or install it"
        ) from error
    except AttributeError as error:
        raise ValueError(f"{flag}={name}: {error}: define {function} there") from error
    if not callable(found) and not isinstance(found, Rule):
        raise ValueError(f"{flag}={name} is {found!r}, not a function")
    return found
