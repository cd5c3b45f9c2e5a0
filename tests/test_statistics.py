"""lrajax/runs/statistics.py against formulas written out and known cases."""

import math

import numpy as np
import pytest
from scipy import special

from lrajax.runs import statistics


def test_holm_by_hand():
    found = statistics.holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.5})
    # 4 × 0.01, 3 × 0.03, then 2 × 0.04 raised to what stands before it, 1 × 0.5.
    assert found == pytest.approx({"b": 0.04, "c": 0.09, "a": 0.09, "d": 0.5})
    assert statistics.holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_interval_is_that_of_the_normal_for_many_values():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = statistics.interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert statistics.interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_comparison_is_paired_by_seed():
    base = [2.0, 3.0, 4.0, 5.0]
    found = statistics.compare({"backprop": base, "other": [2.5, 3.4, 4.6, 5.5]})["other"]
    d = np.array([0.5, 0.4, 0.6, 0.5])
    assert found.difference == pytest.approx(0.5)
    assert found.effect == pytest.approx(0.5 / d.std(ddof=1))
    t = d.mean() / (d.std(ddof=1) / 2)
    tail = special.stdtr(3, -t)  # Student's distribution with 3 degrees of freedom
    assert found.p == pytest.approx(2 * tail)
    assert 0.4 <= found.low < 0.5 < found.high <= 0.6


def test_equal_errors_differ_by_nothing_and_unequal_seeds_are_refused():
    found = statistics.compare({"backprop": [1.0, 2.0], "same": [1.0, 2.0], "up": [2.0, 3.0]})
    assert (found["same"].p, found["same"].difference, found["same"].effect) == (1.0, 0.0, None)
    assert found["up"].p == 0.0
    with pytest.raises(ValueError, match="few has 1 seeds and backprop 2: train the same ones"):
        statistics.compare({"backprop": [1.0, 2.0], "few": [1.0]})
