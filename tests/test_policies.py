"""Retry policies, limits and time-outs: what they refuse, and what they mean."""

import math
import random
from collections import Counter

import backoff
import pytest

from ief_async import (
    ConfigurationError,
    Limits,
    RetryPolicy,
    Timeouts,
)
from ief_async._policies import Clock


async def test_full_jitter_draws_evenly():
    """Ten thousand waits under one ceiling fill ten equal parts alike (backoff's full jitter)."""
    random.seed(7)
    draws = [Clock().jitter(10.0) for _ in range(10_000)]
    random.seed(7)
    by_backoff = [backoff.full_jitter(10.0) for _ in range(10_000)]

    parts = Counter(int(draw) for draw in draws)
    assert by_backoff == draws
    assert set(range(10)) == set(parts)
    assert all(800 <= size <= 1200 for size in parts.values())


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", None, math.nan])
def test_attempts_that_backoff_would_take_for_ever_are_refused(value):
    """Attempts below 1, or no whole number, are a `ConfigurationError` that names them."""
    with pytest.raises(ConfigurationError, match=r"RetryPolicy\(attempts=\) must be an integer"):
        RetryPolicy(attempts=value)


@pytest.mark.parametrize("name", ["connect", "read", "total"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "1", None])
def test_time_outs_are_finite_and_above_zero(name, value):
    """A time-out of 0, less, nan or inf is a `ConfigurationError` that names it."""
    with pytest.raises(ConfigurationError, match=rf"Timeouts\({name}=\) must be a finite number"):
        Timeouts(**{name: value})


@pytest.mark.parametrize(
    "bad",
    [
        {"concurrency": 0},
        {"concurrency": 2.0},
        {"requests_per_second": 0},
        {"requests_per_second": math.inf},
        {"max_body_bytes": 0},
        {"max_body_bytes": True},
    ],
)
def test_limits_are_checked_one_by_one(bad):
    """A limit that is none is refused by name, when it is made."""
    name = next(iter(bad))

    with pytest.raises(ConfigurationError, match=rf"Limits\({name}=\) must be"):
        Limits(**bad)


def test_fields_are_not_refused_for_each_other():
    """Caps win: a cap below a base, or a total below a read, is a choice and no mistake."""
    assert 0.5 == RetryPolicy(cap=0.5).ceiling(0, throttled=True)
    assert 1 == Timeouts(total=1, read=30).total


def test_adaptive_takes_a_truth():
    """What is neither True nor False is refused by its name."""
    with pytest.raises(ConfigurationError, match=r"Limits\(adaptive=\) must be True or False"):
        Limits(adaptive=1)


def test_wait_grows_by_powers_of_two_up_to_the_cap():
    """The upper end of a wait is base * 2**n, from its own base after a 429."""
    retry = RetryPolicy(base=0.1, throttled_base=1.0, cap=2.5)

    assert [0.1, 0.2, 0.4] == [retry.ceiling(n, throttled=False) for n in range(3)]
    assert [1.0, 2.0, 2.5] == [retry.ceiling(n, throttled=True) for n in range(3)]
