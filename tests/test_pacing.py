"""The pace of a session, on a clock that a test moves: nothing here waits."""

import asyncio
import math
import random
from collections import Counter

import attrs
import backoff
import pytest
from conftest import FakeClock

from ief_async import (
    ConfigurationError,
    Limits,
    RetryPolicy,
    ServerError,
    ThrottledError,
    Timeouts,
    TransportError,
)
from ief_async._http.limiter import Budget, Slots, Tally
from ief_async._http.pacer import Pacer
from ief_async._observer import Observer
from ief_async._policies import Clock

RETRY = RetryPolicy()


def pacer_on(clock, *, budget=500, **limits):
    """Return a pacer on this clock, a `FakeClock` or what it is made of."""
    return Pacer(
        limits=Limits(**limits),
        budget=Budget(budget),
        clock=getattr(clock, "clock", clock),
        tally=Tally(),
        observer=Observer(),
    )


def failing(*failures):
    """Return an attempt that raises these in turn, and then gives its number."""
    rest = list(failures)

    async def attempt(number):
        if rest:
            raise rest.pop(0)
        return number

    return attempt


def server_error(status=500, **more):
    """Return an error that may be repeated."""
    return ServerError("no", status=status, transient=True, **more)


def throttled(retry_after=None):
    """Return a 429."""
    return ThrottledError("no", status=429, transient=True, retry_after=retry_after)


async def test_wait_doubles_up_to_its_cap():
    """The upper ends of the waits are base * 2**n, capped before the jitter."""
    time = FakeClock()
    retry = RetryPolicy(attempts=12, base=0.05, cap=20)

    assert 12 == await pacer_on(time).run(failing(*[server_error()] * 11), retry=retry)

    assert [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20] == time.sleeps


async def test_throttled_wait_begins_at_its_own_base():
    """After a 429 the first wait is under throttled_base, and the gate does not wait again."""
    time = FakeClock()

    await pacer_on(time).run(failing(throttled(), throttled()), retry=RETRY)

    assert [1.0, 2.0] == time.sleeps


async def test_full_jitter_draws_evenly():
    """Ten thousand waits under one ceiling fill ten equal parts alike (backoff's full jitter)."""
    random.seed(7)
    draws = [Clock().jitter(10.0) for _ in range(10_000)]

    parts = Counter(int(draw) for draw in draws)
    assert backoff.full_jitter is Clock().jitter
    assert set(range(10)) == set(parts)
    assert all(800 <= size <= 1200 for size in parts.values())


async def test_last_error_is_raised_as_it_is():
    """When the attempts are used up the last error comes out itself, with a note."""
    last = server_error(503)
    retry = RetryPolicy(attempts=3)
    time = FakeClock()

    with pytest.raises(ServerError) as caught:
        await pacer_on(time).run(failing(server_error(), server_error(), last), retry=retry)

    assert last is caught.value
    assert (3, pytest.approx(0.3)) == (last.attempts, last.elapsed)
    assert ["Not sent again: it was sent 3 times."] == last.__notes__
    assert last.__cause__ is None
    assert last.__context__ is None


async def test_error_that_is_not_transient_is_raised_at_once():
    """What no repeat can mend is not repeated, and costs nothing."""
    pacer = pacer_on(FakeClock())

    with pytest.raises(ConfigurationError):
        await pacer.run(failing(ConfigurationError("no")), retry=RETRY)

    assert (500, 0) == (pacer.budget.tokens, pacer.tally.retries)


@pytest.mark.parametrize(
    ("failures", "left"),
    [
        ((), 500),
        ((server_error(),), 500),
        ((server_error(), server_error()), 486),
        ((throttled(),), 500),
        ((throttled(), throttled(), server_error()), 490),
    ],
)
async def test_budget_gets_its_last_cost_back(failures, left):
    """A repeat costs 14, after a 429 5; a success gives the last cost back; never above 500."""
    pacer = pacer_on(FakeClock())

    await pacer.run(failing(*failures), retry=RETRY)

    assert left == pacer.budget.tokens


async def test_clean_answer_gives_one_token():
    """An answer at the first attempt gives a token back."""
    pacer = pacer_on(FakeClock())
    pacer.budget.spend(10)

    await pacer.run(failing(), retry=RETRY)

    assert 491 == pacer.budget.tokens


@pytest.mark.parametrize(("failure", "repeats"), [(server_error, 35), (throttled, 100)])
async def test_outage_is_not_multiplied(failure, repeats):
    """F16: when everything fails, 35 repeats are made (100 after 429s), and then none."""
    pacer = pacer_on(FakeClock())

    async def attempt(_):
        raise failure()

    notes = []
    for _ in range(60):
        with pytest.raises(ServerError if failure is server_error else ThrottledError) as caught:
            await pacer.run(attempt, retry=RETRY)
        notes += caught.value.__notes__

    assert repeats == pacer.tally.retries
    assert "Not sent again: the session's retry budget is spent, as too much fails." == notes[-1]


async def test_retry_after_is_a_floor():
    """A server's wait is never shortened, and the backoff stands where it is longer."""
    time = FakeClock()
    failures = [throttled(7.0), server_error(retry_after=0.01), server_error(retry_after=3)]

    await pacer_on(time).run(failing(*failures), retry=RETRY)

    assert [7.0, 0.2, 3] == time.sleeps


async def test_retry_after_above_its_cap_is_raised_at_once():
    """A31: a server that asks for a day is not waited for; the error says what it asked."""
    time = FakeClock()

    with pytest.raises(ThrottledError) as caught:
        await pacer_on(time).run(failing(throttled(86400.0)), retry=RETRY)

    assert (86400.0, 1, []) == (caught.value.retry_after, caught.value.attempts, time.sleeps)


def starting(starts, time, *failures):
    """Return an attempt that notes when it starts, and fails as told."""
    inner = failing(*failures)

    async def attempt(number):
        starts.append(time.time)
        return await inner(number)

    return attempt


async def turns(count=10):
    """Let the other tasks run as far as they can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_throttle_closes_the_gate_for_all():
    """A29: after a 429 no request of the session starts before its wait is over."""
    time = FakeClock()
    pacer = pacer_on(time, concurrency=3)
    starts = []
    time.hold()
    tasks = [asyncio.create_task(pacer.run(starting(starts, time, throttled(2.0)), retry=RETRY))]
    await turns()
    tasks += [asyncio.create_task(pacer.run(starting(starts, time), retry=RETRY)) for _ in range(5)]
    await turns()
    assert [1000.0] == starts

    time.release()
    await asyncio.gather(*tasks)

    assert [1000.0] + [1002.0] * 6 == starts
    assert (1, 1) == (pacer.tally.throttles, pacer.tally.retries)


async def test_gate_that_closes_again_is_waited_for_again():
    """A request that waits at the gate when another 429 comes waits for that one as well."""
    time = FakeClock()
    pacer = pacer_on(time, concurrency=3)
    starts, second = [], asyncio.Event()

    async def late(_):
        await second.wait()
        second.clear()
        raise throttled(5.0)

    time.hold()
    impatient = RetryPolicy(attempts=1)
    waiting = asyncio.create_task(pacer.run(late, retry=impatient))
    await turns()
    first = asyncio.create_task(pacer.run(failing(throttled(2.0)), retry=RETRY))
    await turns()
    third = asyncio.create_task(pacer.run(starting(starts, time), retry=RETRY))
    await turns()
    second.set()
    await turns()

    time.release()
    await asyncio.gather(waiting, first, third, return_exceptions=True)

    assert [1005.0] == starts


async def test_rate_spaces_the_starts():
    """Starts are 1/requests_per_second apart, first come, first served, also behind a gate."""
    time = FakeClock()
    pacer = pacer_on(time, concurrency=1, requests_per_second=4)
    starts = []

    async def attempt(_):
        starts.append(time.time)

    await asyncio.gather(*(pacer.run(attempt, retry=RETRY) for _ in range(9)))

    assert [1000 + number / 4 for number in range(9)] == starts


async def test_slots_bound_what_runs():
    """No more than `concurrency` attempts run at once, and the figure says so."""
    pacer = pacer_on(FakeClock(), concurrency=3)
    seen = []

    async def attempt(_):
        seen.append(pacer.tally.in_flight)
        await asyncio.sleep(0)

    await asyncio.gather(*(pacer.run(attempt, retry=RETRY) for _ in range(20)))

    assert 3 == max(seen)
    assert 0 == pacer.tally.in_flight


async def test_wait_before_a_repeat_holds_no_slot():
    """F18: while one request sleeps before its repeat, another runs through the only slot."""
    time = FakeClock()
    pacer = pacer_on(time, concurrency=1)
    order = []

    async def sick(number):
        order.append(f"sick {number}")
        if number == 1:
            raise server_error()

    async def healthy(_):
        order.append("healthy")

    await asyncio.gather(pacer.run(sick, retry=RETRY), pacer.run(healthy, retry=RETRY))

    assert ["sick 1", "healthy", "sick 2"] == order


async def test_wait_that_passes_the_deadline_is_not_begun():
    """F6: a wait that would not fit before the deadline fails at once, with the error it is for."""
    time = FakeClock()

    with pytest.raises(ServerError) as caught:
        await pacer_on(time).run(failing(server_error(retry_after=9)), retry=RETRY, deadline=1005)

    assert [] == time.sleeps
    assert ["Not sent again: the wait before a repeat would pass the deadline."] == (
        caught.value.__notes__
    )


async def test_pace_that_passes_the_deadline_fails_at_once():
    """A start that the rate allows only behind the deadline is a `TransportError`, and no wait."""
    time = FakeClock()
    pacer = pacer_on(time, requests_per_second=0.1)
    await pacer.run(failing(), retry=RETRY)

    with pytest.raises(TransportError, match="the deadline comes before"):
        await pacer.run(failing(), retry=RETRY, deadline=1005)

    assert [] == time.sleeps


async def test_cancelled_wait_leaves_everything_free():
    """F7: cancelled while it waits for a slot, a gate or a repeat, a request holds nothing."""
    time = FakeClock()
    forever = asyncio.Event()
    clock = attrs.evolve(time.clock, sleep=lambda _: forever.wait())
    pacer = pacer_on(clock, concurrency=1)

    async def attempt(_):
        raise throttled()

    tasks = [asyncio.create_task(pacer.run(attempt, retry=RETRY)) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(error, asyncio.CancelledError) for error in done)
    assert 0 == pacer.tally.in_flight
    time.time += 100
    assert 1 == await pacer.run(failing(), retry=RETRY)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", None, math.nan])
def test_attempts_that_backoff_would_take_for_ever_are_refused(value):
    """H8: attempts below 1, or no whole number, are a `ConfigurationError` that names them."""
    with pytest.raises(ConfigurationError, match=r"RetryPolicy\(attempts=\) takes a whole number"):
        RetryPolicy(attempts=value)


@pytest.mark.parametrize("name", ["connect", "read", "total"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "1", None])
def test_time_outs_are_finite_and_above_zero(name, value):
    """H9: a time-out of 0, less, nan or inf is a `ConfigurationError` that names it."""
    with pytest.raises(ConfigurationError, match=rf"Timeouts\({name}=\) takes a finite number"):
        Timeouts(**{name: value})


@pytest.mark.parametrize(
    "bad",
    [
        {"concurrency": 0},
        {"concurrency": 2.0},
        {"requests_per_second": 0},
        {"requests_per_second": math.inf},
        {"max_body_bytes": 0},
        {"max_body_bytes": True},
    ],
)
def test_limits_are_checked_one_by_one(bad):
    """A limit that is none is refused by name, when it is made."""
    name = next(iter(bad))

    with pytest.raises(ConfigurationError, match=rf"Limits\({name}=\) takes"):
        Limits(**bad)


def test_fields_are_not_refused_for_each_other():
    """Caps win: a cap below a base, or a total below a read, is a choice and no mistake."""
    assert 0.5 == RetryPolicy(cap=0.5).ceiling(0, throttled=True)
    assert 1 == Timeouts(total=1, read=30).total


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


def test_adaptive_takes_a_truth():
    """What is neither True nor False is refused by its name."""
    with pytest.raises(ConfigurationError, match=r"Limits\(adaptive=\) takes True or False"):
        Limits(adaptive=1)


async def test_lanes_get_equal_shares_whatever_they_ask_for():
    """Of 8 slots a lane of 16 workers and one of 8 workers hold 4 each, and one alone all."""
    pace, done = slots(8), Counter()

    async def worker(lane):
        while done.total() < 4_000:
            await pace.take(lane)
            assert pace._held.total() <= 8
            await asyncio.sleep(0)
            done[lane] += 1
            pace.give(lane)

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
        pace.give("a")

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    pace.give("a")
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
            pace.give(lane)

    tasks = [asyncio.create_task(worker(chance.randrange(3))) for _ in range(40)]
    while not all(task.done() for task in tasks):
        chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(None), asyncio.CancelledError} >= {type(one) for one in done}
    assert (0, {}) == (pace._held.total(), pace._waiting)


async def test_throttled_session_starts_fewer_until_it_is_clean():
    """After a 429 a pacer of 8 lets 4 run at once, and grows by one over 4 clean answers."""
    pacer = pacer_on(FakeClock(), concurrency=8)

    await pacer.run(failing(throttled()), retry=RETRY)
    assert (4, 1) == (pacer.slots.allowed, pacer.slots.epoch)

    for _ in range(3):
        await pacer.run(failing(), retry=RETRY)
    assert 5 == pacer.slots.allowed
