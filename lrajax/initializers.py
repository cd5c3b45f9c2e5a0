"""The paper's three initialisation schemes and one more: functions `(key, shape) -> float32 array`.

Thin names over `jax.nn.initializers`, any of which can be used instead.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
from jaxtyping import Array, PRNGKeyArray

from lrajax.base import Initializer
from lrajax.checks import at_least, one_of, positive


@dataclasses.dataclass(frozen=True)
class Scheme:
    """An initialiser that knows its name: `parse(str(scheme))` is the scheme again.

    Attributes:
      name: as a flag has it.
      draw: `(key, shape) -> float32 array`.
    """

    name: str
    draw: Initializer

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        """Draws an array."""
        return self.draw(key, shape)

    def __str__(self) -> str:
        """The scheme as a flag has it."""
        return self.name


def gaussian(std: float) -> Scheme:
    """N(0, std^2)."""
    return Scheme(f"gaussian:{std}", jax.nn.initializers.normal(std))


def glorot(gain: float = 1.0) -> Scheme:
    """Uniform in ±gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    name = "glorot" if gain == 1 else f"glorot:{gain}"
    return Scheme(name, jax.nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform"))


def fan_in(gain: float = 1.0) -> Scheme:
    """N(0, gain² / fan_in), which keeps the variance of what comes in (LeCun et al. 1998)."""
    name = "fan_in" if gain == 1 else f"fan_in:{gain}"
    return Scheme(name, jax.nn.initializers.variance_scaling(gain**2, "fan_in", "normal"))


def orthogonal(gain: float = 1.0) -> Scheme:
    """A random (semi-)orthogonal matrix times `gain` (Saxe et al. 2014)."""
    return Scheme(f"orthogonal:{gain}", jax.nn.initializers.orthogonal(gain))


def unit_gain(beta: float) -> Scheme:
    """An E for LRA-E that hands the error down at the same norm, at any depth and width.

    To first order an error e becomes 2β φ′ ⊗ E e one layer below (equations 5, 6 and 3), so the
    gain of a hop is 1, but for φ′, if E is orthogonal times 1 / (2β).

    Args:
      beta: β of the rule, > 0.
    """
    positive("beta", beta)
    return Scheme(f"unit_gain:{beta}", jax.nn.initializers.orthogonal(1 / (2 * beta)))


GLOROT = glorot()
"""What every rule but LRA-E starts from."""

# For LRA-E the paper says "zero-mean Gaussian (variance of 0.05)". Taken as the standard deviation
# for W and as the variance for E it reproduces the tables; see docs/evidence/lra_e.md.
LRA_W = gaussian(0.05)
"""LRA-E's W."""
LRA_E = gaussian(math.sqrt(0.05))
"""LRA-E's E."""

INITIALIZERS: dict[str, Callable[..., Scheme]] = {
    "gaussian": gaussian,
    "glorot": glorot,
    "fan_in": fan_in,
    "orthogonal": orthogonal,
    "unit_gain": unit_gain,
}
"""What makes a scheme, by the name that `parse` knows."""


def parse(text: str, name: str = "initializer") -> Scheme:
    """Makes an initialiser from a flag: `glorot[:GAIN]`, `orthogonal[:GAIN]`, `gaussian:STD`, ...

    Args:
      text: the flag's value.
      name: the flag's name, for the error.

    Raises:
      ValueError: unknown scheme, or a number that is missing, superfluous or negative.
    """
    scheme, *numbers = text.split(":")
    one_of(name, scheme, INITIALIZERS)
    try:
        values = [float(number) for number in numbers]
        at_least(name, values, 0)
        return INITIALIZERS[scheme](*values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}={text!r}: write glorot[:GAIN], fan_in[:GAIN], orthogonal[:GAIN], gaussian:STD "
            "or unit_gain:BETA"
        ) from error


def resolve(value: Initializer | str, name: str = "initializer") -> Initializer:
    """The initialiser that is meant by a function or, as `parse` reads it, by a text.

    Raises:
      ValueError: it is neither, or a text that names none.
    """
    if isinstance(value, str):
        return parse(value, name)
    if not callable(value):
        raise ValueError(f"{name}={value!r} must be a function (key, shape), or a text: glorot")
    return value
