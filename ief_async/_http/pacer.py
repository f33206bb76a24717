"""When may a request be sent, and when again: the retry loop. Only this file knows backoff.

One `Pacer` serves all streams of a session: its slots, its gate and its retry budget are shared, in
equal parts among the scans that want them. A permit is taken before a connection, and the wait
before a repeat is slept outside the permit, so a sick page delays no healthy one. A 429 closes the
gate for all, and halves the slots; each clean window gives one back.
"""

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TypeVar

from ief_async._errors import ApiError, IefError, ThrottledError, TransportError
from ief_async._events import RequestRetried, Throttled
from ief_async._http.limiter import RETRY_COST, Budget, SharedSlots, Slots, Tally
from ief_async._observer import Observer
from ief_async._policies import Clock, Limits, RetryPolicy

T = TypeVar("T")
THROTTLED_COST = 5
FREE_REPEATS = (
    100  # of one request that waits for its share of a quota: one that never gets it ends
)


class Pacer:
    """The pace of one session: slots, gate, rate and retry budget."""

    def __init__(
        self,
        *,
        limits: Limits,
        budget: Budget,
        clock: Clock,
        tally: Tally,
        observer: Observer,
        shared: SharedSlots | None = None,
    ) -> None:
        self.clock = clock
        self.budget = budget
        self.tally = tally
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
                if self._shared is not None:
                    self._shared.give(self)
        finally:
            self.slots.give(lane)

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
            shared.give(self)

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
