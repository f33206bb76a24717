"""What several sessions share: how many requests they have in flight together."""

import asyncio
from itertools import pairwise

import pytest

from ief_async import Limits, RetryPolicy, TransportError
from ief_async._http.limiter import Counters, RetryBudget, SharedSlots
from ief_async._http.pacer import Pacer
from ief_async._observer import Observer

ONCE = RetryPolicy(attempts=1)


def pacer(clock, shared, rate=None):
    """Return the pacer of one of the sessions."""
    return Pacer(
        limits=Limits(concurrency=100, requests_per_second=rate),
        budget=RetryBudget(500),
        clock=clock.clock,
        counters=Counters(),
        observer=Observer(),
        shared=shared,
    )


async def turns():
    """Let everything happen that waits for nothing but the event loop."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("most", "held"), [(1, [1]), (2, [1, 1]), (3, [2, 1]), (8, [4, 2, 1, 1]), (9, [5, 2, 1, 1])]
)
async def test_each_lane_leaves_as_many_slots_as_it_holds(most, held):
    """One lane after the other takes what it gets, and the first that find none come late."""
    slots = SharedSlots(most)
    waiting = []
    for lane in range(len(held) + 1):
        waiting += [asyncio.create_task(slots.take(lane)) for _ in range(most)]
        await turns()

    assert dict(enumerate(held)) == {lane: number for lane, number in slots._held.items() if number}
    for task in waiting:
        task.cancel()


async def test_a_free_slot_goes_to_the_lane_that_holds_the_fewest():
    """A lane that holds none is served before those that waited longer and hold some."""
    slots = SharedSlots(4)
    for lane in "aabc":
        await slots.take(lane)
    order = []

    async def take(lane):
        await slots.take(lane)
        order.append(lane)

    tasks = [asyncio.create_task(take(lane)) for lane in "abd"]
    await turns()
    slots.give_back("c")
    await turns()

    assert ["d"] == order
    for task in tasks:
        task.cancel()


async def test_a_rate_holds_for_requests_that_wait_for_a_shared_slot(fake_clock):
    """Requests that waited a second for a slot do not all start when they get one."""
    slots = SharedSlots(8)
    for lane in range(8):
        await slots.take(lane)
    started = []

    async def attempt(_):
        started.append(fake_clock.time)

    mine = pacer(fake_clock, slots, rate=10)
    tasks = [asyncio.create_task(mine.run(attempt, retry=ONCE)) for _ in range(10)]
    await turns()
    fake_clock.time += 5
    for lane in range(8):
        slots.give_back(lane)
    await asyncio.gather(*tasks)

    assert 10 == len(started)
    assert all(later - first > 0.0999 for first, later in pairwise(sorted(started)))


async def test_nobody_sleeps_with_a_shared_slot(fake_clock):
    """While a session is throttled another one has the only slot as often as it likes."""
    slots = SharedSlots(1)
    sick, other = pacer(fake_clock, slots), pacer(fake_clock, slots)
    sick._opens_at = fake_clock.time + 30
    fake_clock.hold()

    async def attempt(_):
        return fake_clock.time

    waiting = asyncio.create_task(sick.run(attempt, retry=ONCE))
    await turns()
    assert [1_000.0] * 3 == [await other.run(attempt, retry=ONCE) for _ in range(3)]
    assert not waiting.done()

    fake_clock.release()
    assert 1_030.0 == await waiting


async def test_deadline_ends_the_wait_for_a_shared_slot(fake_clock):
    """A request that gets its slot behind its deadline is not sent, and gives the slot back."""
    slots = SharedSlots(1)
    await slots.take("another")
    sent = []

    async def attempt(_):
        sent.append(True)

    late = pacer(fake_clock, slots).run(attempt, retry=ONCE, deadline=fake_clock.time + 5)
    task = asyncio.create_task(late)
    await turns()
    fake_clock.time += 6
    slots.give_back("another")
    with pytest.raises(TransportError, match="deadline"):
        await task

    assert not sent
    await slots.take("another")
