"""The pace of a session, on a clock that a test moves: nothing here waits."""

import asyncio
import math

import attrs
import pytest
from conftest import FakeClock, turns

from ief_async import (
    ConfigurationError,
    Limits,
    RetryPolicy,
    ServerError,
    ThrottledError,
    TransportError,
)
from ief_async._http.limiter import Counters, RetryBudget
from ief_async._http.pacer import Pacer, decide_retry
from ief_async._observer import Observer

RETRY = RetryPolicy()


def pacer_on(clock, *, budget=500, **limits):
    """Return a pacer on this clock, a `FakeClock` or what it is made of."""
    return Pacer(
        limits=Limits(**limits),
        budget=RetryBudget(budget),
        clock=getattr(clock, "clock", clock),
        counters=Counters(),
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


def windowed(seconds):
    """Return a 429 whose text names the window of the quota."""
    failure = throttled(seconds)
    failure.window = seconds
    return failure


# ---- whether a request is sent again ------------------------------------------------------------

GAVE_UP = "Gave up after 1 attempt"
DECISIONS = {
    "a failure of the service": (server_error(), {}, (True, 0.1, 14, "")),
    "its third": (server_error(), {"charged": 3}, (True, 0.4, 14, "")),
    "a 429": (throttled(), {}, (True, 1.0, 5, "")),
    "a 429 that waits for its share": (
        throttled(9),
        {"free": True, "charged": 0},
        (True, 9, 0, ""),
    ),
    "the share counts no attempt": (throttled(9), {"free": True, "charged": 6}, (True, 20, 0, "")),
    "a longer wait is asked for": (server_error(retry_after=7), {}, (True, 7, 14, "")),
    "a shorter wait is asked for": (throttled(0.5), {}, (True, 1.0, 5, "")),
    "the longest that is waited for": (throttled(60), {}, (True, 60, 5, "")),
    "longer than that": (
        throttled(61),
        {},
        (False, 1.0, 5, ": the server asks for a longer wait than RetryPolicy.retry_after_cap."),
    ),
    "the longest window": (windowed(3_600), {}, (True, 3_600, 5, "")),
    "a window that is longer": (
        windowed(3_601),
        {},
        (False, 1.0, 5, ": the server asks for a longer wait than RetryPolicy.window_cap."),
    ),
    "the attempts are used up": (server_error(), {"charged": 6}, (False, 3.2, 14, ".")),
    "just before the deadline": (server_error(), {"time_left": 0.11}, (True, 0.1, 14, "")),
    "at the deadline": (
        server_error(),
        {"time_left": 0.1},
        (False, 0.1, 14, ": the next wait would pass the deadline."),
    ),
    "the last tokens": (server_error(), {"tokens": 14}, (True, 0.1, 14, "")),
    "too few tokens": (
        server_error(),
        {"tokens": 13},
        (False, 0.1, 14, ": too much fails, and the session's retry budget is spent."),
    ),
    "tokens for a 429": (throttled(), {"tokens": 5}, (True, 1.0, 5, "")),
    "no tokens for a 429": (
        throttled(),
        {"tokens": 4},
        (False, 1.0, 5, ": too much fails, and the session's retry budget is spent."),
    ),
    "the share costs no tokens": (
        throttled(2),
        {"free": True, "charged": 1, "tokens": 0},
        (True, 2, 0, ""),
    ),
    "what no repeat can fix": (ConfigurationError("no"), {}, (False, 0.1, 0, "")),
    "a 429 in a 200": (
        ThrottledError("no", status=200, retry_after=2),
        {},
        (False, 2, 0, ""),
    ),
}


@pytest.mark.parametrize(("failure", "given", "expected"), DECISIONS.values(), ids=DECISIONS)
def test_every_case_of_a_failure_is_decided(failure, given, expected):
    """Attempts, waits, deadline and budget decide in this order; a reason says which one did."""
    failure.attempts = 1
    facts = {"charged": 1, "free": False, "time_left": math.inf, "tokens": 500, **given}
    decision = decide_retry(failure, RETRY, jitter=lambda ceiling: ceiling, **facts)

    again, wait, cost, reason = expected
    assert (again, pytest.approx(wait), cost) == (decision.again, decision.wait, decision.cost)
    assert (GAVE_UP + reason if reason else "") == decision.reason


def test_reason_counts_the_attempts():
    """The number of attempts is written as people write it."""
    failure = server_error()
    failure.attempts = 6
    facts = {"charged": 6, "free": False, "time_left": math.inf, "tokens": 500}

    assert "Gave up after 6 attempts." == decide_retry(failure, RETRY, jitter=abs, **facts).reason


# ---- the loop that carries it out ---------------------------------------------------------------


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


async def test_last_error_is_raised_as_it_is():
    """When the attempts are used up the last error comes out itself, with a note."""
    last = server_error(503)
    retry = RetryPolicy(attempts=3)
    time = FakeClock()

    with pytest.raises(ServerError) as caught:
        await pacer_on(time).run(failing(server_error(), server_error(), last), retry=retry)

    assert last is caught.value
    assert (3, pytest.approx(0.3)) == (last.attempts, last.elapsed)
    assert ["Gave up after 3 attempts."] == last.__notes__
    assert last.__cause__ is None
    assert last.__context__ is None


async def test_error_that_is_not_transient_is_raised_at_once():
    """What no repeat can mend is not repeated, and costs nothing."""
    pacer = pacer_on(FakeClock())

    with pytest.raises(ConfigurationError):
        await pacer.run(failing(ConfigurationError("no")), retry=RETRY)

    assert (500, 0) == (pacer.budget.tokens, pacer.counters.retries)


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
    """When everything fails, 35 repeats are made (100 after 429s), and then none."""
    pacer = pacer_on(FakeClock())

    async def attempt(_):
        raise failure()

    notes = []
    for _ in range(60):
        with pytest.raises(ServerError if failure is server_error else ThrottledError) as caught:
            await pacer.run(attempt, retry=RETRY)
        notes += caught.value.__notes__

    assert repeats == pacer.counters.retries
    assert (
        "Gave up after 1 attempt: too much fails, and the session's retry budget is spent."
        == notes[-1]
    )


async def test_retry_after_is_a_floor():
    """A server's wait is never shortened, and the backoff stands where it is longer."""
    time = FakeClock()
    failures = [throttled(7.0), server_error(retry_after=0.01), server_error(retry_after=3)]

    await pacer_on(time).run(failing(*failures), retry=RETRY)

    assert [7.0, 0.2, 3] == time.sleeps


async def test_retry_after_above_its_cap_is_raised_at_once():
    """A server that asks for a day is not waited for; the error says what it asked."""
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


async def test_throttle_closes_the_gate_for_all():
    """After a 429 no request of the session starts before its wait is over."""
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
    assert (1, 1) == (pacer.counters.throttles, pacer.counters.retries)


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
        seen.append(pacer.counters.in_flight)
        await asyncio.sleep(0)

    await asyncio.gather(*(pacer.run(attempt, retry=RETRY) for _ in range(20)))

    assert 3 == max(seen)
    assert 0 == pacer.counters.in_flight


async def test_wait_before_a_repeat_holds_no_slot():
    """While one request sleeps before its repeat, another runs through the only slot."""
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
    """A wait that would not fit before the deadline fails at once, with the error it is for."""
    time = FakeClock()

    with pytest.raises(ServerError) as caught:
        await pacer_on(time).run(failing(server_error(retry_after=9)), retry=RETRY, deadline=1005)

    assert [] == time.sleeps
    assert ["Gave up after 1 attempt: the next wait would pass the deadline."] == (
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
    """Cancelled while it waits for a slot, a gate or a repeat, a request holds nothing."""
    time = FakeClock()
    forever = asyncio.Event()
    clock = attrs.evolve(time.clock, sleep=lambda _: forever.wait())
    pacer = pacer_on(clock, concurrency=1)

    async def attempt(_):
        raise throttled()

    tasks = [asyncio.create_task(pacer.run(attempt, retry=RETRY)) for _ in range(3)]
    await turns()
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(error, asyncio.CancelledError) for error in done)
    assert 0 == pacer.counters.in_flight
    time.time += 100
    assert 1 == await pacer.run(failing(), retry=RETRY)


async def test_throttled_session_starts_fewer_until_it_is_clean():
    """After a 429 a pacer of 8 lets 4 run at once, and grows by one over 4 clean answers."""
    pacer = pacer_on(FakeClock(), concurrency=8)

    await pacer.run(failing(throttled()), retry=RETRY)
    assert (4, 1) == (pacer.slots.allowed, pacer.slots.epoch)

    for _ in range(3):
        await pacer.run(failing(), retry=RETRY)
    assert 5 == pacer.slots.allowed
