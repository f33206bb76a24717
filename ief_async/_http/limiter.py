"""How many requests may be in flight, and how many may be sent again."""

import asyncio
from collections import Counter, deque

import attrs


@attrs.define
class Counters:
    """The running figures of a session.

    Attributes:
        requests: how many were sent, for keys and projects, too.
        retries: how many of them were sent again.
        throttles: how many were answered 429.
        in_flight: how many hold a slot now.
    """

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    in_flight: int = 0


class RetryBudget:
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
    """The requests that a session may have in flight, shared among the scans that want them.

    A free slot goes to the lane (a scan) that holds the fewest; among equals, to the one that was
    served longest ago; within a lane, first come, first served. A slot that is held is never taken
    away: while more are held than are allowed, none is handed out.

    Attributes:
        allowed: how many may be held now.
        epoch: how often `allowed` was halved.
    """

    def __init__(self, *, most: int, adaptive: bool) -> None:
        self.allowed = most
        self.epoch = 0
        self._most = most
        self._adaptive = adaptive
        self._answered = 0  # in a row without a 429
        self._held: Counter[object] = Counter()
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}  # served longest ago first

    async def take(self, lane: object) -> None:
        """Hold a slot, as soon as there is one for this lane."""
        if not self._waiting and self._has_room(lane):
            self._held[lane] += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(waiter)
        self._hand_out()  # there may be a slot for this lane, and none for those that wait
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._leave(lane, waiter)
            else:  # it was handed a slot just before
                self.give_back(lane)
            raise

    def give_back(self, lane: object) -> None:
        """Hold one slot less."""
        self._held[lane] -= 1
        if not self._held[lane]:
            del self._held[lane]
        self._hand_out()

    def note_throttled(self, epoch: int) -> None:
        """Halve what is allowed after a 429, once for all requests of the same `epoch`."""
        self._answered = 0
        if self._adaptive and epoch == self.epoch:
            self.epoch += 1
            self.allowed = max(1, self.allowed // 2)

    def note_success(self) -> None:
        """Allow one more, up to the first number, after as many answers as are allowed."""
        if self.allowed < self._most:
            self._answered += 1
            if self._answered >= self.allowed:
                self._answered = 0
                self.allowed += 1
                self._hand_out()

    def _has_room(self, lane: object) -> bool:  # noqa: ARG002  slots that are shared heed it
        return self._held.total() < self.allowed

    def _leave(self, lane: object, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(lane)
        if waiters and waiter in waiters:  # else it was passed over already
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[lane]

    def _hand_out(self) -> None:
        while self._waiting:
            lane = min(self._waiting, key=self._held.__getitem__)
            if not self._has_room(lane):
                return
            waiters = self._waiting.pop(lane)
            waiter = waiters.popleft()
            if waiters:
                self._waiting[lane] = waiters  # behind the others
            if not waiter.done():
                self._held[lane] += 1
                waiter.set_result(None)


class SharedSlots(Slots):
    """The requests that several sessions may have in flight together; each session is a lane.

    A lane leaves as many slots free as it holds. So a session whose answers are slow holds half of
    them at most, the next such one half of the rest, and one that holds none soon finds one.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most=most, adaptive=False)

    def _has_room(self, lane: object) -> bool:
        return self._held[lane] < self.allowed - self._held.total()
