"""Argument checks shared by the factories; each error names the argument and the remedy."""

import difflib
from collections.abc import Iterable

import jax
import numpy as np


def one_of(name: str, value: str, options: Iterable[str]) -> None:
    """Raises ValueError, suggesting the nearest option, unless `value` is one of `options`."""
    options = list(options)
    if value in options:
        return
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name}={value!r} is unknown: {hint}choose one of {', '.join(options)}")


def at_least(name: str, value, minimum) -> None:
    """Raises ValueError unless `value` is finite and >= `minimum`.

    Traced values pass: a hyperparameter under vmap has no value to look at.
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = _as_computed(value)
    if not np.all(np.isfinite(number)) or not np.all(number >= minimum):
        raise ValueError(f"{name}={value} must be a finite number, at least {minimum}")


def positive(name: str, value) -> None:
    """Raises ValueError unless `value` is finite and > 0 (traced values pass)."""
    if isinstance(value, jax.core.Tracer):
        return
    number = _as_computed(value)
    if not np.all(np.isfinite(number)) or not np.all(number > 0):
        raise ValueError(f"{name}={value} must be a finite number above 0, in {number.dtype} too")


def between(name: str, value, minimum, maximum) -> None:
    """Raises ValueError unless `minimum` <= `value` <= `maximum` (traced values pass)."""
    if isinstance(value, jax.core.Tracer):
        return
    if not minimum <= value <= maximum:
        raise ValueError(f"{name}={value} must be at least {minimum} and at most {maximum}")


def below(name: str, value, bound) -> None:
    """Raises ValueError unless `value` < `bound` (traced values pass)."""
    if not isinstance(value, jax.core.Tracer) and not value < bound:
        raise ValueError(f"{name}={value} must be below {bound}")


def _as_computed(value) -> np.ndarray:
    # 1e39 is infinite, and 1e-50 zero, where the numbers are float32.
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(value).astype(jax.numpy.result_type(float))
