"""What a session allows itself: retries, limits, time-outs, and its clock."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, TypeVar

import attrs
import backoff

from ief_async._arguments import is_number
from ief_async._errors import ConfigurationError

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently a request is sent again.

    A wait is drawn evenly from 0 to ``base * 2**n`` seconds (n counts the repeats from 0), which is
    capped before it is drawn. At 10 % failing requests a scan of 1,000 pages survives with
    probability 0.999 at 6 attempts, and 0.37 at 3.

    Attributes:
        attempts: how often a request is sent at most, the first time included. With 2 or more, a
            429 that says how long to wait counts, and costs tokens, only if no other request of the
            session to the same path was answered since this one began to wait: what waits for its
            share of a quota does not fail. (A hundred of them at most: then each counts.)
        base: seconds, for failures of the network and the service.
        throttled_base: seconds, after a 429.
        cap: seconds that the upper end of a wait never exceeds.
        retry_after_cap: the longest ``Retry-After`` that is waited for, in seconds. If the server
            asks for more, the error is raised at once.
        window_cap: the longest throttling window that is waited for, in seconds. The gateway names
            it in the text of a 429 ("limit:60,time:1 minute") that has no ``Retry-After``.
        budget: tokens of the session. A repeat costs 14, after a 429 5; the last cost comes back
            when the repeat succeeds, and an answer at the first attempt gives one. Without tokens
            nothing is repeated, so that an outage is not multiplied by the attempts.
    """

    attempts: int = attrs.field(default=6, validator=is_number(least=1, whole=True))
    base: float = attrs.field(default=0.1, validator=is_number())
    throttled_base: float = attrs.field(default=1.0, validator=is_number())
    cap: float = attrs.field(default=20.0, validator=is_number())
    retry_after_cap: float = attrs.field(default=60.0, validator=is_number())
    window_cap: float = attrs.field(default=3_600.0, validator=is_number())
    budget: int = attrs.field(default=500, validator=is_number(whole=True))

    def ceiling(self, repeat: int, *, throttled: bool) -> float:
        """Return the upper end of the wait before a repeat, counted from 0."""
        base = self.throttled_base if throttled else self.base
        values = backoff.expo(base=2, factor=base, max_value=self.cap)
        # backoff's generators yield None before their first value
        return float(next(islice(values, repeat + 1, None)))


@attrs.frozen(kw_only=True)
class Limits:
    """What a session allows itself, all its streams together.

    Attributes:
        concurrency: requests in flight at most.
        requests_per_second: requests started per second at most, evenly spaced; None is no limit.
        max_body_bytes: a longer body is refused; counted as it arrives, after decompression.
        adaptive: whether a 429 halves `concurrency` for all streams, until as many answers in a row
            as are allowed in flight came without another one: each time it grows by one.
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


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long one attempt may take, in seconds; the wait for a permit is not counted.

    Attributes:
        connect: to reach the server once its address is known, TLS included.
        read: between two pieces of an answer.
        total: from the first byte sent to the last one received.
    """

    connect: float = attrs.field(default=10.0, validator=is_number(more=True))
    read: float = attrs.field(default=30.0, validator=is_number(more=True))
    total: float = attrs.field(default=60.0, validator=is_number(more=True))


@attrs.frozen(kw_only=True)
class Clock:
    """Time and chance, as arguments: a test gives its own and waits for nothing."""

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[float], float] = backoff.full_jitter
