"""How many requests are in flight, and how many are sent again: without a session."""

import asyncio
import random
from collections import Counter

import pytest

from ief_async._http.limiter import Slots


# ---- slots ---------------------------------------------------------------------------------------
def slots(most, *, adaptive=True):
    """Return slots of which none is held."""
    return Slots(most=most, adaptive=adaptive)


def test_throttling_halves_the_slots_once_for_all_in_flight():
    """A burst of 429s to requests that were in flight together halves once; a later one again."""
    pace = slots(16)
    for _ in range(16):
        pace.note_throttled(0)
    assert (8, 1) == (pace.allowed, pace.epoch)

    for epoch in (1, 2, 3, 4, 5):
        pace.note_throttled(epoch)
    assert 1 == pace.allowed  # never none


def test_slots_grow_by_one_a_clean_window():
    """As many answers as are allowed in flight, without a 429 between them, give one slot back."""
    pace = slots(4)
    pace.note_throttled(0)

    pace.note_success()
    assert 2 == pace.allowed
    pace.note_throttled(0)  # of the burst before: it ends the window, and halves nothing
    pace.note_success()
    assert 2 == pace.allowed
    pace.note_success()
    assert 3 == pace.allowed
    for _ in range(50):
        pace.note_success()
    assert 4 == pace.allowed


def test_slots_that_do_not_adapt_stay():
    """With adaptive=False a 429 takes no slot away."""
    pace = slots(4, adaptive=False)
    pace.note_throttled(0)
    assert 4 == pace.allowed


async def test_lanes_get_equal_shares_whatever_they_ask_for():
    """Of 8 slots a lane of 16 workers and one of 8 workers hold 4 each, and one alone all."""
    pace, done = slots(8), Counter()

    async def worker(lane):
        while done.total() < 4_000:
            await pace.take(lane)
            assert pace._held.total() <= 8
            await asyncio.sleep(0)
            done[lane] += 1
            pace.give_back(lane)

    lanes = ["wide"] * 16 + ["narrow"] * 8
    await asyncio.gather(*(worker(lane) for lane in lanes))

    assert abs(done["wide"] - done["narrow"]) < 0.05 * done.total()
    for _ in range(8):
        await pace.take("alone")
    assert 8 == pace._held["alone"]


async def test_lane_is_served_in_its_order():
    """Within a lane who came first is served first."""
    pace, order = slots(1), []
    await pace.take("a")

    async def wait(number):
        await pace.take("a")
        order.append(number)
        pace.give_back("a")

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    pace.give_back("a")
    await asyncio.gather(*waiting)

    assert [0, 1, 2, 3, 4] == order


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_waiters_leak_no_slot(seed):
    """Whenever waiters are cancelled, just dealt a slot or not, every slot comes back."""
    chance = random.Random(seed)
    pace = slots(3)

    async def worker(lane):
        await pace.take(lane)
        try:
            await asyncio.sleep(0)
        finally:
            pace.give_back(lane)

    tasks = [asyncio.create_task(worker(chance.randrange(3))) for _ in range(40)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(None), asyncio.CancelledError} >= {type(one) for one in done}
    assert (0, {}) == (pace._held.total(), pace._waiting)
