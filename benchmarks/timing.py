"""Wall-clock timing of several candidates, interleaved so that a drift of the machine cancels."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from tqdm import tqdm


class Spread(NamedTuple):
    """Median and quartiles of repeated measurements, in the unit that the table names."""

    median: float
    q1: float
    q3: float
    repeats: int


def interleaved(calls: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, np.ndarray]:
    """Times every call once a round, over `repeats` rounds.

    Args:
      calls: functions that return once their work is done. Each is called once untimed.
      repeats: rounds; each starts with another call, so that none always follows the same one.

    Returns:
      Seconds of each call, [repeats].
    """
    for call in calls.values():
        call()
    names = list(calls)
    seconds = {name: np.zeros(repeats) for name in names}
    for i in tqdm(range(repeats), desc="rounds", leave=False):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name][i] = once(calls[name])
    return seconds


def once(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def spread(samples: np.ndarray, scale: float = 1.0) -> Spread:
    """Median and quartiles of samples times `scale`."""
    q1, median, q3 = scale * np.percentile(samples, [25, 50, 75])
    return Spread(float(median), float(q1), float(q3), len(samples))


def ratio(samples: np.ndarray, reference: np.ndarray, scale: float = 1.0) -> Spread:
    """Median and quartiles of the quotients within each round, times `scale`."""
    return spread(samples / reference, scale)
