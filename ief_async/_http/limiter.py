"""How many requests may be in flight, and how many may be sent again."""

import asyncio
from collections import Counter, deque
from typing import TypeVar

import attrs

T = TypeVar("T")

RETRY_COST = 14


@attrs.define
class Tally:
    """The running figures of a session."""

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    in_flight: int = 0


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
        if not self._waiting and self._has_room(lane):
            self._held[lane] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(turn)
        self._deal()  # those who wait may have no room where this lane has
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

    def _has_room(self, lane: object) -> bool:  # noqa: ARG002  of a shared one it matters
        return self._held.total() < self.allowed

    def _leave(self, lane: object, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(lane)
        if turns and turn in turns:  # else it was passed over already
            turns.remove(turn)
            if not turns:
                del self._waiting[lane]

    def _deal(self) -> None:
        while self._waiting:
            lane = min(self._waiting, key=self._held.__getitem__)
            if not self._has_room(lane):
                return
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


class SharedSlots(Slots):
    """The requests that several sessions may have in flight together; each session is a lane.

    A lane leaves as many slots free as it holds. So one whose requests are slow holds half of them
    at most, and the next such one half of what is left: a lane that holds none finds one.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most=most, adaptive=False)

    def _has_room(self, lane: object) -> bool:
        return self._held[lane] < self.allowed - self._held.total()
