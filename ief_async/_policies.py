"""The policies of a session: retries, limits, time-outs, and its clock."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, TypeVar

import attrs

from ief_async._arguments import is_number
from ief_async._errors import ConfigurationError
from ief_async._values import Value

T = TypeVar("T")


def full_jitter(most: float) -> float:
    """Return a random wait of at most so many seconds."""
    import backoff  # most scans retry nothing

    return backoff.full_jitter(most)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RetryPolicy(Value):
    """When a request is retried, how often, and after which wait.

    The wait before each retry is random, uniformly distributed between 0 and ``base * 2**n``
    seconds, where n counts the retries from 0 and the upper bound is at most `cap`. If 10 % of
    the requests fail, a scan of 1,000 pages succeeds with probability 0.999 at 6 attempts, and 0.37
    at 3.

    What is retried: a failure of the network, status 408, 429, 500, 502, 503 and 504, and a 200
    that is not JSON. Any other error is raised at once.

    Attributes:
        attempts: how often a request is sent at most, including the first time. A request that only
            waits for its share of a quota does not fail: with 2 or more, a 429 that says how long
            to wait counts as an attempt, and costs tokens, only if no other request of the session
            to the same path was answered since this one started to wait. (After 100 such waits each
            one counts.)
        base: seconds, after a failure of the network or the service.
        throttled_base: seconds, after a 429.
        cap: seconds, the largest upper bound of a wait.
        retry_after_cap: seconds, the longest accepted ``Retry-After``. If the server asks for more,
            the error is raised at once.
        window_cap: seconds, the longest accepted throttling window. The gateway states it in the
            message of a 429 ("limit:60,time:1 minute") that has no ``Retry-After``.
        budget: tokens of the session's retry budget. A retry costs 14, or 5 after a 429. The last
            cost is refunded when the retry succeeds, and a success at the first attempt adds 1.
            Without tokens nothing is retried, so that retries do not add load to an outage.

    Raises:
        ConfigurationError: `attempts` is not a whole number of 1 or more, `budget` not one of 0 or
            more, or another is not a finite number of 0 or more.

    Example:
        ::

            from ief_async import RetryPolicy

            patient = RetryPolicy(attempts=8, cap=60.0)
            never = RetryPolicy(attempts=1)
    """

    attempts: int = attrs.field(default=6, validator=is_number(least=1, whole=True))
    base: float = attrs.field(default=0.1, validator=is_number())
    throttled_base: float = attrs.field(default=1.0, validator=is_number())
    cap: float = attrs.field(default=20.0, validator=is_number())
    retry_after_cap: float = attrs.field(default=60.0, validator=is_number())
    window_cap: float = attrs.field(default=3_600.0, validator=is_number())
    budget: int = attrs.field(default=500, validator=is_number(whole=True))

    def ceiling(self, repeat: int, *, throttled: bool) -> float:
        """Return the upper bound of the wait in seconds before a retry; retries count from 0."""
        base = self.throttled_base if throttled else self.base
        import backoff  # most scans retry nothing

        values = backoff.expo(base=2, factor=base, max_value=self.cap)
        # backoff's generators yield None before their first value
        return float(next(islice(values, repeat + 1, None)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Limits(Value):
    """The limits of a session, for all its streams together.

    Attributes:
        concurrency: the most requests in flight at once.
        requests_per_second: the most requests started per second, evenly spaced; None for no limit.
        max_body_bytes: the longest accepted body, in bytes after decompression; checked while it
            arrives.
        adaptive: whether a 429 halves `concurrency` for all streams. It grows by one after as many
            consecutive responses without a 429 as may be in flight.

    Raises:
        ConfigurationError: `concurrency` or `max_body_bytes` is not a whole number of 1 or more,
            `requests_per_second` not a finite number above 0, or `adaptive` not a bool.

    Example:
        ::

            from ief_async import Limits

            gentle = Limits(concurrency=4, requests_per_second=10)
    """

    concurrency: int = attrs.field(default=16, validator=is_number(least=1, whole=True))
    requests_per_second: float | None = attrs.field(
        default=None, validator=is_number(more=True, optional=True)
    )
    max_body_bytes: int = attrs.field(
        default=64 * 1024 * 1024, validator=is_number(least=1, whole=True)
    )
    adaptive: bool = attrs.field(default=True)

    @adaptive.validator
    def _check_adaptive(self, _: Any, value: object) -> None:
        if not isinstance(value, bool):
            message = f"Limits(adaptive=) must be True or False, got {value!r:.80}"
            raise ConfigurationError(message)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Timeouts(Value):
    """How long one attempt may take; the wait for a slot is not counted.

    Attributes:
        connect: seconds to connect once the address is resolved, including TLS.
        read: seconds between two received pieces of a response.
        total: seconds from the first byte sent to the last one received.

    Raises:
        ConfigurationError: one of them is not a finite number above 0.

    Example:
        ::

            from ief_async import Timeouts

            hasty = Timeouts(connect=2.0, read=5.0, total=15.0)
    """

    connect: float = attrs.field(default=10.0, validator=is_number(more=True))
    read: float = attrs.field(default=30.0, validator=is_number(more=True))
    total: float = attrs.field(default=60.0, validator=is_number(more=True))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Clock(Value):
    """Time and randomness, as values, so that a test can pass its own and need not wait.

    Attributes:
        now: returns seconds of a monotonic clock.
        wall: returns seconds since 1970.
        sleep: waits for a number of seconds.
        jitter: returns a random wait of at most a number of seconds.
    """

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[float], float] = full_jitter
