"""When a request may be sent, and when again.

One `Pacer` serves all streams of a session: its slots, its gate and its retry budget are shared, in
equal parts among the scans that want them. A slot is taken before a connection, and the wait before
a repeat is slept without one, so a failing page delays no healthy one. A 429 closes the gate for
all requests, and halves the slots; each clean window of answers gives one back.

Which failures are worth a repeat is said by `RULES` in ``responses``; whether one is made, and
after what wait, by `decide_retry`.
"""

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

import attrs

from ief_async._errors import ApiError, IefError, ThrottledError, TransportError
from ief_async._http.limiter import Counters, RetryBudget, SharedSlots, Slots
from ief_async._observer import Observer
from ief_async._policies import Clock, Limits, RetryPolicy
from ief_async._values import Value

T = TypeVar("T")
RETRY_COST = 14
THROTTLED_COST = 5
# repeats of one request that waits for its share of a quota: one that never gets it has to end
FREE_REPEATS = 100


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RetryDecision(Value):
    """Whether a request is sent again.

    Attributes:
        again: whether it is.
        wait: seconds before that; after a 429 nothing else is sent in them either.
        cost: tokens of the retry budget that it takes.
        reason: why it is not sent again although it might succeed, or "".
    """

    again: bool
    wait: float
    cost: int = 0
    reason: str = ""


def decide_retry(
    failure: IefError,
    retry: RetryPolicy,
    *,
    charged: int,
    free: bool,
    jitter: Callable[[float], float],
    time_left: float,
    tokens: int,
) -> RetryDecision:
    """Decide whether a request that failed is sent again.

    Args:
        failure: what it failed with.
        retry: how often and how patiently it may be sent again.
        charged: how many of its attempts count under ``retry.attempts``, this one included.
        free: whether this one does not, as it only waits for its share of a quota.
        jitter: draws a wait of at most so many seconds.
        time_left: seconds until the deadline.
        tokens: what is left of the retry budget.
    """
    throttled = isinstance(failure, ThrottledError)
    wait = jitter(retry.ceiling(max(0, charged - 1), throttled=throttled))
    asked = (failure.retry_after or 0.0) if isinstance(failure, ApiError) else 0.0
    window = isinstance(failure, ApiError) and failure.window is not None
    cap = "window_cap" if window else "retry_after_cap"
    patient = asked <= getattr(retry, cap)
    wait = max(wait, asked) if patient else wait  # a floor that jitter never shortens
    cost = 0 if free else THROTTLED_COST if throttled else RETRY_COST
    if not failure.transient:
        return RetryDecision(again=False, wait=wait)
    attempts = f"{failure.attempts} attempt{'s' * (failure.attempts != 1)}"
    reason = ""
    if charged >= retry.attempts and not free:
        reason = f"Gave up after {attempts}."
    elif not patient:
        reason = (
            f"Gave up after {attempts}: the server asks for a longer wait than RetryPolicy.{cap}."
        )
    elif wait >= time_left:
        reason = f"Gave up after {attempts}: the next wait would pass the deadline."
    elif cost > tokens:
        reason = (
            f"Gave up after {attempts}: too much fails, and the session's retry budget is spent."
        )
    return RetryDecision(again=not reason, wait=wait, cost=cost, reason=reason)


class Pacer:
    """The pace of one session: slots, gate, rate and retry budget."""

    def __init__(
        self,
        *,
        limits: Limits,
        budget: RetryBudget,
        clock: Clock,
        counters: Counters,
        observer: Observer,
        shared: SharedSlots | None = None,
    ) -> None:
        self.clock = clock
        self.budget = budget
        self.counters = counters
        self.observer = observer
        self.slots = Slots(most=limits.concurrency, adaptive=limits.adaptive)
        self._shared = shared
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
        permit: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> T:
        """Call ``attempt(number)`` until it gives a result, or raise the last error as it is.

        Args:
            attempt: sends the request once.
            retry: how often and how patiently it is called.
            deadline: a moment of the clock. A wait that would pass it fails at once, with the error
                that led to it.
            scan: whose share of the slots it takes.
            path: what events call the request.
            sent: how often the request was sent before.
            permit: what an attempt needs from its credentials. It is entered before a slot is
                taken, so that whoever waits for it keeps no slot from others.
        """
        started = self.clock.now()
        cost = number = charged = epoch = 0
        answered = self._answered[path]
        while True:
            number += 1
            try:
                async with permit():
                    epoch = await self._take_slot(deadline, scan)
                    try:
                        result = await attempt(number)
                    finally:
                        self._give_slot_back(scan)
            except IefError as error:
                failure = error
            else:
                self.budget.reward(cost)
                self.slots.note_success()
                self._answered[path] += 1
                return result
            failure.attempts = sent + number
            failure.elapsed = self.clock.now() - started
            # the quota went to others: this one waits for its share, and the service is well
            others = retry.attempts > 1 and self._answered[path] > answered
            free = others and _names_its_wait(failure) and number - charged <= FREE_REPEATS
            answered = self._answered[path]
            charged += not free
            decision = decide_retry(
                failure,
                retry,
                charged=charged,
                free=free,
                jitter=self.clock.jitter,
                time_left=deadline - self.clock.now(),
                tokens=self.budget.tokens,
            )
            if isinstance(failure, ThrottledError):
                self.slots.note_throttled(epoch)
                self._pause(failure, decision.wait, scan, path)
            if not decision.again:
                if decision.reason:
                    failure.add_note(decision.reason)
                try:
                    raise failure
                finally:
                    del failure  # it holds this frame, which would hold it: a cycle
            if self.observer.wants(logging.DEBUG):
                self.tell_retry(failure, sent + number, wait=decision.wait, scan=scan, path=path)
            del failure
            cost = decision.cost
            self.budget.spend(cost)
            self.counters.retries += 1
            await self.clock.sleep(decision.wait)

    def _pause(self, failure: ThrottledError, wait: float, scan: int | None, path: str) -> None:
        """Close the gate for all; of a pause that only gets longer, no second line is written."""
        self.counters.throttles += 1
        now = self.clock.now()
        begins = self._opens_at <= now < now + wait
        self._opens_at = max(self._opens_at, now + wait)
        level = logging.WARNING if begins else logging.DEBUG
        if self.observer.wants(level):
            from ief_async._events import Throttled

            throttled = Throttled(
                scan=scan,
                path=path,
                wait=self._opens_at - now,
                retry_after=failure.retry_after,
                concurrency=self.slots.allowed,
            )
            line = "throttled: nothing is sent for %.3g s, then at most %d requests at once"
            self.observer.tell(throttled, level, line, throttled.wait, throttled.concurrency)

    def tell_retry(
        self, failure: IefError, attempt: int, *, wait: float, scan: int | None, path: str
    ) -> None:
        """Tell that a request is sent again, and why."""
        from ief_async._events import RequestRetried  # most sessions make no event

        retried = RequestRetried(
            scan=scan,
            path=path,
            attempt=attempt,
            status=(failure.status or None) if isinstance(failure, ApiError) else None,
            error=type(failure).__name__,
            wait=wait,
        )
        line = "%s: attempt %d failed with %s; trying again in %.3g s"
        self.observer.tell(retried, logging.DEBUG, line, path, attempt, retried.error, wait)

    async def _take_slot(self, deadline: float, lane: object) -> int:
        """Hold a slot, once the gate is open and the rate allows a start; return its epoch."""
        await self.slots.take(lane)
        try:
            await self._start(deadline)
        except BaseException:
            self.slots.give_back(lane)
            raise
        self.counters.in_flight += 1
        return self.slots.epoch

    def _give_slot_back(self, lane: object) -> None:
        self.counters.in_flight -= 1
        if self._shared is not None:
            self._shared.give_back(self)
        self.slots.give_back(lane)

    async def _start(self, deadline: float) -> None:
        """Wait until the gate is open and the rate allows one more; first come, first served."""
        if self._shared is not None:
            await self._start_shared(self._shared, deadline)
            return
        while True:
            start = self._next_possible(deadline)
            self._next_start = start + self._spacing
            await self._sleep_until(start)
            if self._opens_at <= self.clock.now():  # else a 429 came while this one slept
                return

    async def _start_shared(self, shared: SharedSlots, deadline: float) -> None:
        """Wait likewise, and for a shared slot, which nobody holds who has to wait again.

        Nothing is reserved before: one who waits long for a slot would come too late for it.
        """
        while True:
            await self._sleep_until(self._next_possible(deadline))
            await shared.take(self)
            now = self.clock.now()
            if max(self._opens_at, self._next_start) <= now < deadline:
                self._next_start = now + self._spacing
                return
            shared.give_back(self)

    def _next_possible(self, deadline: float) -> float:
        """Return when the next request may start, or raise if that is too late."""
        start = max(self.clock.now(), self._opens_at, self._next_start)
        if start >= deadline:
            message = "the deadline comes before the pace of the session allows the request"
            raise TransportError(message)
        return start

    async def _sleep_until(self, moment: float) -> None:
        while (wait := moment - self.clock.now()) > 0:
            await self.clock.sleep(wait)


def _names_its_wait(failure: IefError) -> bool:
    """Tell whether a quota is used up, and when it is there again."""
    return isinstance(failure, ThrottledError) and failure.retry_after is not None
