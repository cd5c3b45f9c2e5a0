"""Statistics of the comparison (docs/protocol.md, point 7): intervals, paired tests, correction."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000


class Comparison(NamedTuple):
    """A rule's errors against a reference's, paired by seed.

    Attributes:
      difference: mean of rule minus reference, in points.
      low: where its 95 % bootstrap interval begins.
      high: where it ends.
      effect: Cohen's d of the differences; None where they do not vary.
      p: of the paired t-test, with Holm's correction over the rules of a task.
    """

    difference: float
    low: float
    high: float
    effect: float | None
    p: float


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean, by percentiles."""
    numbers = np.asarray(values, float)
    if np.ptp(numbers) == 0:
        return float(numbers[0]), float(numbers[0])
    found = stats.bootstrap(
        (numbers,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Holm 1979): each p as it stands among all of them."""
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected


def compare(
    errors: Mapping[str, Sequence[float]], reference: str = "backprop"
) -> dict[str, Comparison]:
    """Every rule but the reference against it.

    Args:
      errors: of every rule, in the order of the seeds, which all share.
      reference: a key of `errors`.

    Raises:
      ValueError: rules with other numbers of seeds than the reference.
    """
    base = np.asarray(errors[reference], float)
    others = {name: np.asarray(e, float) for name, e in errors.items() if name != reference}
    for name, values in others.items():
        if values.shape != base.shape:
            raise ValueError(
                f"{name} has {len(values)} seeds and {reference} {len(base)}: train the same ones"
            )
    differences = {name: values - base for name, values in others.items()}
    corrected = holm({name: _paired_p(d) for name, d in differences.items()})
    return {
        name: Comparison(float(d.mean()), *interval(d.tolist()), _effect(d), corrected[name])
        for name, d in differences.items()
    }


def _paired_p(differences: np.ndarray) -> float:
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _effect(differences: np.ndarray) -> float | None:
    spread = differences.std(ddof=1)
    return float(differences.mean() / spread) if spread else None
