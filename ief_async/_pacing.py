"""When may a request be sent, and when again: the retry loop. Only this file knows backoff.

One `Pacer` serves all streams of a session: its slots, its gate and its retry budget are shared, in
equal parts among the scans that want them. A permit is taken before a connection, and the wait
before a repeat is slept outside the permit, so a sick page delays no healthy one. A 429 closes the
gate for all, and halves the slots; each clean window gives one back.
"""

import asyncio
import logging
import math
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from itertools import islice
from typing import Any, TypeVar

import attrs
import backoff

from ief_async._credentials import http_date
from ief_async._errors import ApiError, ConfigurationError, IefError, ThrottledError, TransportError
from ief_async._events import RequestRetried, Throttled
from ief_async._observer import Observer

T = TypeVar("T")

RETRY_COST = 14
THROTTLED_COST = 5
FREE_REPEATS = (
    100  # of one request that waits for its share of a quota: one that never gets it ends
)
# "limit:60,time:1 minute": what the gateway says of a full window, in place of a Retry-After
WINDOW = re.compile(
    r"\btime\s{0,9}[:=]\s{0,9}([0-9]{1,9})\s{0,9}([a-z]{1,9})\b", re.IGNORECASE | re.ASCII
)
WINDOW_UNITS = {
    **dict.fromkeys(["s", "sec", "secs", "second", "seconds"], 1.0),
    **dict.fromkeys(["m", "min", "mins", "minute", "minutes"], 60.0),
    **dict.fromkeys(["h", "hr", "hrs", "hour", "hours"], 3_600.0),
    **dict.fromkeys(["d", "day", "days"], 86_400.0),
}


def check_number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = math.inf,
    whole: bool = False,
    more: bool = False,
) -> None:
    """Refuse what is no finite number from `least` (above it if `more`) to `most`; True is none."""
    kinds = int if whole else int | float
    if isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value):
        enough = value > least if more else value >= least
        if enough and value <= most:
            return
    kind = "a whole number" if whole else "a finite number"
    bounds = f"above {least:g}" if more else f"of {least:g} or more"
    bounds = bounds if most == math.inf else f"from {least:g} to {most:g}"
    message = f"{name} takes {kind} {bounds}, but was given {value!r:.80}"
    raise ConfigurationError(message)


def _number(
    *, least: float = 0.0, whole: bool = False, more: bool = False, optional: bool = False
) -> Callable[[Any, Any, Any], None]:
    """Return an attrs validator that `check_number` does the work of."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if value is not None or not optional:
            name = f"{type(instance).__name__}({attribute.name}=)"
            check_number(name, value, least=least, whole=whole, more=more)

    return validate


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

    attempts: int = attrs.field(default=6, validator=_number(least=1, whole=True))
    base: float = attrs.field(default=0.1, validator=_number())
    throttled_base: float = attrs.field(default=1.0, validator=_number())
    cap: float = attrs.field(default=20.0, validator=_number())
    retry_after_cap: float = attrs.field(default=60.0, validator=_number())
    window_cap: float = attrs.field(default=3_600.0, validator=_number())
    budget: int = attrs.field(default=500, validator=_number(whole=True))

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

    concurrency: int = attrs.field(default=16, validator=_number(least=1, whole=True))
    requests_per_second: float | None = attrs.field(
        default=None, validator=_number(more=True, optional=True)
    )
    max_body_bytes: int = attrs.field(
        default=64 * 1024 * 1024, validator=_number(least=1, whole=True)
    )
    adaptive: bool = attrs.field(default=True)

    @adaptive.validator
    def _check_adaptive(self, _: Any, value: object) -> None:
        if not isinstance(value, bool):
            message = f"Limits(adaptive=) takes True or False, but was given {value!r:.80}"
            raise ConfigurationError(message)


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long one attempt may take, in seconds; the wait for a permit is not counted.

    Attributes:
        connect: to reach the server once its address is known, TLS included.
        read: between two pieces of an answer.
        total: from the first byte sent to the last one received.
    """

    connect: float = attrs.field(default=10.0, validator=_number(more=True))
    read: float = attrs.field(default=30.0, validator=_number(more=True))
    total: float = attrs.field(default=60.0, validator=_number(more=True))


@attrs.frozen(kw_only=True)
class Clock:
    """Time and chance, as arguments: a test gives its own and waits for nothing."""

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[float], float] = backoff.full_jitter


@attrs.define
class Tally:
    """The running figures of a session."""

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    in_flight: int = 0


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds or an HTTP date; None if it is neither.

    `now` is the wall clock in epoch seconds. A date that has passed is 0 seconds.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:18])
    moment = http_date(text)
    return None if moment is None else max(0.0, moment.timestamp() - now)


def window_seconds(text: str) -> float | None:
    """Read the throttling window in the text of a 429; the longest of several, None without one."""
    windows = [
        float(number) * WINDOW_UNITS[unit.lower()]
        for number, unit in WINDOW.findall(text)
        if unit.lower() in WINDOW_UNITS
    ]
    return max(windows, default=0.0) or None


class Budget:
    """The tokens that repeats cost, so that an outage is not multiplied by the attempts."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.tokens = capacity

    def spend(self, cost: int) -> None:
        """Pay for a repeat."""
        self.tokens -= cost

    def reward(self, cost: int) -> None:
        """Give the last cost back after a success, or one token if it took no repeat."""
        self.tokens = min(self._capacity, self.tokens + (cost or 1))


class Slots:
    """The requests that a session may have in flight, dealt out among the scans that want them.

    A slot that is free goes to the lane (a scan) that holds the fewest, among equals to the one
    that was served longest ago; within a lane first come, first served. What is held is never taken
    away: where fewer are allowed than are held, the next is dealt once enough were given back.
    """

    def __init__(self, *, most: int, adaptive: bool) -> None:
        self.allowed = most
        self.epoch = 0  # how often the slots were halved
        self._most = most
        self._adaptive = adaptive
        self._clean = 0  # answers in a row without a 429
        self._held: Counter[object] = Counter()
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}  # served longest ago first

    async def take(self, lane: object) -> None:
        """Hold a slot, as soon as it is this lane's turn."""
        if not self._waiting and self._held.total() < self.allowed:
            self._held[lane] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(lane, turn)
            else:  # it was dealt a slot just before
                self.give(lane)
            raise

    def give(self, lane: object) -> None:
        """Give a slot back."""
        self._held[lane] -= 1
        if not self._held[lane]:
            del self._held[lane]
        self._deal()

    def _leave(self, lane: object, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(lane)
        if turns and turn in turns:  # else it was passed over already
            turns.remove(turn)
            if not turns:
                del self._waiting[lane]

    def _deal(self) -> None:
        while self._waiting and self._held.total() < self.allowed:
            lane = min(self._waiting, key=self._held.__getitem__)
            turns = self._waiting.pop(lane)
            turn = turns.popleft()
            if turns:
                self._waiting[lane] = turns  # behind the others
            if not turn.done():
                self._held[lane] += 1
                turn.set_result(None)

    def note_throttled(self, epoch: int) -> None:
        """Halve, but once for all requests that were in flight together."""
        self._clean = 0
        if self._adaptive and epoch == self.epoch:
            self.epoch += 1
            self.allowed = max(1, self.allowed // 2)

    def note_success(self) -> None:
        """Grow by one after as many answers as are allowed in flight."""
        if self.allowed < self._most:
            self._clean += 1
            if self._clean >= self.allowed:
                self._clean = 0
                self.allowed += 1
                self._deal()


class Pacer:
    """The pace of one session: slots, gate, rate and retry budget."""

    def __init__(
        self, *, limits: Limits, budget: Budget, clock: Clock, tally: Tally, observer: Observer
    ) -> None:
        self.clock = clock
        self.budget = budget
        self.tally = tally
        self.observer = observer
        self.slots = Slots(most=limits.concurrency, adaptive=limits.adaptive)
        self._spacing = 1.0 / limits.requests_per_second if limits.requests_per_second else 0.0
        self._next_start = -math.inf
        self._opens_at = -math.inf
        self._answered: Counter[str] = Counter()  # by path, as the gateway counts requests

    async def run(
        self,
        attempt: Callable[[int], Awaitable[T]],
        *,
        retry: RetryPolicy,
        deadline: float = math.inf,
        scan: int | None = None,
        path: str = "",
        sent: int = 0,
        turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> T:
        """Call ``attempt(number)`` until it gives a result, or raise the last error as it is.

        Each call holds a permit of its scan, and before that its `turn`: who waits for that is in
        nobody's way. `deadline` is a moment of the clock: a wait that would not fit before it fails
        at once, with the error that led to it. `path` is what events call the request, `sent` how
        often it was sent before.
        """
        started = self.clock.now()
        cost = number = charged = epoch = 0
        answered = self._answered[path]
        while True:
            number += 1
            try:
                async with turn(), self._permit(deadline, scan) as epoch:
                    result = await attempt(number)
            except IefError as error:
                failure = error
            else:
                self.budget.reward(cost)
                self.slots.note_success()
                self._answered[path] += 1
                return result
            failure.attempts = number
            failure.elapsed = self.clock.now() - started
            # the quota went to others: this one waits for its share, and the service is well
            others = retry.attempts > 1 and self._answered[path] > answered
            free = others and _names_its_wait(failure) and number - charged <= FREE_REPEATS
            answered = self._answered[path]
            charged += not free
            price, wait = self._weigh(failure, charged, retry, deadline, free=free)
            if isinstance(failure, ThrottledError):
                self.slots.note_throttled(epoch)
                self._pause(failure, wait, scan, path)
            if price is None:
                try:
                    raise failure
                finally:
                    del failure  # it holds this frame, which would hold it: a cycle
            if self.observer.wants(logging.DEBUG):
                self.tell_retry(failure, sent + number, wait=wait, scan=scan, path=path)
            del failure
            cost = price
            self.budget.spend(cost)
            self.tally.retries += 1
            await self.clock.sleep(wait)

    def _weigh(
        self, failure: IefError, charged: int, retry: RetryPolicy, deadline: float, *, free: bool
    ) -> tuple[int | None, float]:
        """Return what a repeat costs, or None for no repeat, and how long to wait."""
        throttled = isinstance(failure, ThrottledError)
        wait = self.clock.jitter(retry.ceiling(max(0, charged - 1), throttled=throttled))
        asked = (failure.retry_after or 0.0) if isinstance(failure, ApiError) else 0.0
        window = isinstance(failure, ApiError) and failure.window is not None
        cap = "window_cap" if window else "retry_after_cap"
        patient = asked <= getattr(retry, cap)
        wait = max(wait, asked) if patient else wait  # a floor that jitter never shortens
        cost = 0 if free else THROTTLED_COST if throttled else RETRY_COST
        reasons = {
            f"it was sent {failure.attempts} times": charged >= retry.attempts and not free,
            f"the server asks for a longer wait than RetryPolicy.{cap}": not patient,
            "the wait before a repeat would pass the deadline": self.clock.now() + wait >= deadline,
            "the session's retry budget is spent, as too much fails": cost > self.budget.tokens,
        }
        if not failure.transient:
            return None, wait
        if any(reasons.values()):
            reason = next(reason for reason, holds in reasons.items() if holds)
            failure.add_note(f"Not sent again: {reason}.")
            return None, wait
        return cost, wait

    def _pause(self, failure: ThrottledError, wait: float, scan: int | None, path: str) -> None:
        """Close the gate for all; of a pause that only gets longer, no second line is written."""
        self.tally.throttles += 1
        now = self.clock.now()
        begins = self._opens_at <= now < now + wait
        self._opens_at = max(self._opens_at, now + wait)
        level = logging.WARNING if begins else logging.DEBUG
        if self.observer.wants(level):
            throttled = Throttled(
                scan=scan,
                path=path,
                wait=self._opens_at - now,
                retry_after=failure.retry_after,
                concurrency=self.slots.allowed,
            )
            line = "throttled: nothing is sent for %.3g s, then %d requests at once at most"
            self.observer.tell(throttled, level, line, throttled.wait, throttled.concurrency)

    def tell_retry(
        self, failure: IefError, attempt: int, *, wait: float, scan: int | None, path: str
    ) -> None:
        """Tell that a request is sent again, and why."""
        retried = RequestRetried(
            scan=scan,
            path=path,
            attempt=attempt,
            status=(failure.status or None) if isinstance(failure, ApiError) else None,
            error=type(failure).__name__,
            wait=wait,
        )
        line = "%s: attempt %d failed with %s; the next one comes in %.3g s"
        self.observer.tell(retried, logging.DEBUG, line, path, attempt, retried.error, wait)

    @asynccontextmanager
    async def _permit(self, deadline: float, lane: object) -> AsyncIterator[int]:
        """Hold a slot, once the gate is open and the rate allows a start; give its epoch."""
        await self.slots.take(lane)
        try:
            await self._start(deadline)
            self.tally.in_flight += 1
            try:
                yield self.slots.epoch
            finally:
                self.tally.in_flight -= 1
        finally:
            self.slots.give(lane)

    async def _start(self, deadline: float) -> None:
        """Wait until the gate is open and the rate allows one more; first come, first served."""
        while True:
            start = max(self.clock.now(), self._opens_at, self._next_start)
            if start >= deadline:
                message = "the deadline comes before the pace of the session allows the request"
                raise TransportError(message)
            self._next_start = start + self._spacing
            while (wait := start - self.clock.now()) > 0:
                await self.clock.sleep(wait)
            if self._opens_at <= self.clock.now():  # else a 429 came while this one slept
                return


def _names_its_wait(failure: IefError) -> bool:
    """Tell whether a quota is used up, and when it is there again."""
    return isinstance(failure, ThrottledError) and failure.retry_after is not None
