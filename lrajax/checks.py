"""Argument checks shared by the factories; each error names the argument and the remedy."""

import difflib
import numbers
from collections.abc import Iterable
from typing import Any

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
    given = _as_computed(name, value)
    if not np.all(np.isfinite(given)) or not np.all(given >= minimum):
        raise ValueError(f"{name}={value} must be a finite number, at least {minimum}")


def positive(name: str, value) -> None:
    """Raises ValueError unless `value` is finite and > 0 (traced values pass)."""
    if isinstance(value, jax.core.Tracer):
        return
    given = _as_computed(name, value)
    if not np.all(np.isfinite(given)) or not np.all(given > 0):
        raise ValueError(f"{name}={value} must be a finite number above 0, in {given.dtype} too")


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


def whole(name: str, value: Any) -> int:
    """The whole number that is meant by 20, 20.0 or "20"; ValueError for any other value."""
    given = number(name, value)
    if isinstance(value, bool) or np.ndim(given) or given != np.floor(given):
        raise ValueError(f"{name}={value!r} must be a whole number")
    return int(given)


def count(name: str, value: Any) -> int:
    """The whole number above 0 that is meant; ValueError for any other value."""
    given = whole(name, value)
    at_least(name, given, 1)
    return given


def counts(name: str, values: Any) -> list[int]:
    """Several of them; ValueError for what is no sequence too."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name}={values!r} must be several whole numbers, as in (784, 256, 10)")
    return [count(name, value) for value in values]


def number(name: str, value: Any) -> Any:
    """The number that is meant by 0.001 or "1e-3"; arrays and traced values stay as they are."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif hasattr(value, "dtype") or isinstance(value, numbers.Real):
        return value
    raise ValueError(f"{name}={value!r} must be a number")


def truth(name: str, value: Any) -> bool:
    """The truth that is meant by True or 1; ValueError for what is neither true nor false."""
    if isinstance(value, bool | np.bool_ | int) and value in (0, 1):
        return bool(value)
    raise ValueError(f"{name}={value!r} must be True or False")


def text(name: str, value: Any) -> str:
    """The text itself; ValueError for anything else."""
    if isinstance(value, str):
        return value
    raise ValueError(f"{name}={value!r} must be a text")


def as_key(key: Any) -> jax.Array:
    """A PRNG key: itself, or the one that a whole number is the seed of."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    dtype = getattr(key, "dtype", None)
    if dtype == np.uint32 or (dtype and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)):
        return key
    raise ValueError(f"key={key!r} is no key of random numbers: write jax.random.key(0)")


def _as_computed(name: str, value: Any) -> np.ndarray:
    # 1e39 is infinite, and 1e-50 zero, where the numbers are float32.
    with np.errstate(over="ignore", under="ignore"):
        try:
            return np.asarray(value).astype(jax.numpy.result_type(float))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}={value!r} must be a number") from error
