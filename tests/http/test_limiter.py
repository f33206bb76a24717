"""How many requests are in flight, and how many are sent again: without a session."""

import asyncio
import random
from collections import Counter

import attrs
import pytest
from conftest import turns

from ief_async._http.limiter import Counters, RetryBudget, Slots

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


async def test_lane_that_was_served_longest_ago_is_next():
    """Among lanes that hold equally many the one that waits since its last turn is served."""
    pace, order = slots(1), []
    await pace.take("first")

    async def wait(lane):
        await pace.take(lane)
        order.append(lane)
        pace.give_back(lane)

    lanes = ["a", "a", "b", "c"]
    waiting = [asyncio.create_task(wait(lane)) for lane in lanes]
    await turns()
    pace.give_back("first")
    await asyncio.gather(*waiting)

    assert ["a", "b", "c", "a"] == order


async def test_nobody_is_overtaken_by_who_comes_later():
    """A slot that is free while others wait is for them, not for a newcomer."""
    pace, order = slots(2), []
    await pace.take("a")
    await pace.take("a")
    pace.note_throttled(0)

    async def wait(lane):
        await pace.take(lane)
        order.append(lane)

    first = asyncio.create_task(wait("b"))
    await turns()
    pace.give_back("a")  # one is still held, and only one is allowed
    await turns()
    assert [] == order
    pace.give_back("a")
    second = asyncio.create_task(wait("c"))
    await turns()
    assert ["b"] == order
    pace.give_back("b")
    await asyncio.gather(first, second)

    assert ["b", "c"] == order


async def test_slots_that_grow_are_handed_out():
    """When one more is allowed, the next that waits has it at once."""
    pace = slots(2)
    pace.note_throttled(0)
    await pace.take("a")
    waiting = asyncio.create_task(pace.take("a"))
    await turns()
    assert not waiting.done()

    pace.note_success()
    await waiting

    assert 2 == pace._held["a"]


async def test_waiter_that_leaves_is_passed_over():
    """A cancelled wait is forgotten, and the slot goes to the next of its lane."""
    pace = slots(1)
    await pace.take("a")
    waiting = [asyncio.create_task(pace.take("a")) for _ in range(3)]
    await turns()
    waiting[0].cancel()
    await turns()
    pace.give_back("a")
    await waiting[1]
    waiting[2].cancel()
    await turns()
    pace.give_back("a")

    assert ({}, {}) == (pace._held, pace._waiting)


async def test_slot_of_a_waiter_that_is_cancelled_just_then_goes_on():
    """A slot that was handed to a waiter in the moment of its cancellation is for the next."""
    pace = slots(1)
    await pace.take("a")
    first, second = (asyncio.create_task(pace.take(lane)) for lane in ("b", "c"))
    await turns()
    pace.give_back("a")
    first.cancel()
    await second

    assert {"c": 1} == pace._held
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_cancelled_waits_leave_nothing_behind():
    """A wait that was cancelled is gone at once, while the slots are still held."""
    pace = slots(1)
    await pace.take("a")
    waiting = [asyncio.create_task(pace.take("a")) for _ in range(3)]
    await turns()
    for number, task in enumerate(waiting, 1):
        task.cancel()
        await turns()
        assert 3 - number == sum(map(len, pace._waiting.values()))

    assert {} == pace._waiting


def test_each_step_of_growth_takes_a_window_of_its_own():
    """From 2 to 3 it takes 2 answers, and from 3 to 4 it takes 3 more."""
    pace = slots(4)
    pace.note_throttled(0)
    allowed = []
    for _ in range(5):
        pace.note_success()
        allowed.append(pace.allowed)

    assert [2, 3, 3, 3, 4] == allowed


# ---- the retry budget ----------------------------------------------------------------------------


def test_budget_is_spent_and_rewarded_up_to_its_capacity():
    """A repeat takes its cost, a success gives it back, or one token, and never too many."""
    budget = RetryBudget(20)

    budget.spend(14)
    assert 6 == budget.tokens
    budget.reward(0)
    assert 7 == budget.tokens
    budget.reward(5)
    assert 12 == budget.tokens
    budget.reward(14)
    assert 20 == budget.tokens


def test_counters_begin_at_nothing():
    """A session that did nothing says so."""
    assert (0, 0, 0, 0) == attrs.astuple(Counters())
