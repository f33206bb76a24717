"""What a scan leaves behind, and what a later one makes of it."""

import json
from collections import Counter

import pytest
from conftest import session_with

from ief_async import (
    CheckpointError,
    NotFoundError,
    PartialScanError,
    RetryPolicy,
    ScanCheckpoint,
    ServerError,
)
from ief_async._checkpoint import Entry, Mark, Part, Run, fingerprint
from ief_async.testing import FakeIef, Fault

ONCE = RetryPolicy(attempts=1)
SAMPLE = ScanCheckpoint(
    scan=fingerprint("sample"),
    parts=(
        Part(
            fingerprint("a"),
            (Entry(Run.of("ab")), Entry(Run.of("c"), Mark(1900, 2140, ("p1", "p2")))),
        ),
    ),
)


async def ids_of(stream, most=None):
    """Return the ids of what a stream delivers, or of its first few items."""
    seen = []
    async for pod in stream:
        seen.append(pod.id)
        if len(seen) == most:
            break
    return seen


# ---- the value -----------------------------------------------------------------------------------


def test_json_gives_the_checkpoint_back():
    """What to_json wrote is read as the same, from text and from bytes."""
    text = SAMPLE.to_json()

    assert SAMPLE == ScanCheckpoint.from_json(text) == ScanCheckpoint.from_json(text.encode())
    assert len(text) < 300


def test_damage_is_noticed_wherever_it_is():
    """Every text that is cut, and every text with one other character, is refused as damaged."""
    text = SAMPLE.to_json()
    cut = [text[:length] for length in range(len(text))]
    changed = [
        text[:at] + ("8" if text[at] != "8" else "9") + text[at + 1 :] for at in range(len(text))
    ]

    for one in (*cut, *changed, "null", "[]", "{}", b"\xff", "[" * 100_000):
        with pytest.raises(CheckpointError, match=r"(is damaged|has version)"):
            ScanCheckpoint.from_json(one)


def test_newer_version_is_named():
    """A checkpoint of a later version is refused as that, not as damaged."""
    later = json.dumps(json.loads(SAMPLE.to_json()) | {"ief_async_checkpoint": 2})

    with pytest.raises(CheckpointError, match="version 2, and this release reads version 1"):
        ScanCheckpoint.from_json(later)


def test_runs_join_whatever_their_number():
    """A thousand batches that are done take as much room as one."""
    runs = [Run.of([f"d{number}"]) for number in range(1_000)]
    joined = sum(runs, Run())

    assert Run.of(f"d{number}" for number in range(1_000)) == joined
    assert 1_000 == joined.ids


def test_merging_refuses_what_does_not_belong_together():
    """Scans that ask for different things, and two workers with the same ids, can't be merged."""
    other = ScanCheckpoint(scan=2, parts=())

    with pytest.raises(CheckpointError, match="only checkpoints with one project"):
        ScanCheckpoint.merge(SAMPLE, other)
    with pytest.raises(CheckpointError, match="begin with the same id"):
        ScanCheckpoint.merge(SAMPLE, SAMPLE)


# ---- over real sockets ---------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 47, 60, 61, 333, 599, 600])
@pytest.mark.parametrize("ordered", [True, False])
async def test_scan_goes_on_where_its_consumer_left(most, ordered):
    """After n items the first n - 1 are done: a calm list's n-th comes again, and no other."""
    async with FakeIef(600, deployments=6) as fake, session_with(fake) as ief:
        options = {"page_size": 30, "batch_size": 2, "ordered": ordered}
        stream = ief.iter_pods(fake.deployment_ids, **options)
        seen = await ids_of(stream, most)
        saved = stream.checkpoint().to_json()
        going_on = ief.iter_pods(fake.deployment_ids, resume_from=saved, **options)
        rest = await ids_of(going_on)

    assert seen[-1] in rest
    assert 1.0 == going_on.progress.fraction
    assert Counter(pod["id"] for pod in fake.pods) == Counter(seen[:-1] + rest)


async def test_checkpoint_at_the_end_leaves_nothing_to_do():
    """Before the first item all is left, after the last nothing is: no request is sent."""
    async with FakeIef(300, deployments=3) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1)
        before = stream.checkpoint()
        assert 300 == len(await stream.collect())
        sent = fake.statistics().requests

        again = ief.iter_pods(fake.deployment_ids, batch_size=1, resume_from=stream.checkpoint())
        assert [] == await again.collect()
        assert sent == fake.statistics().requests
        assert again.report.complete
        anew = ief.iter_pods(fake.deployment_ids, batch_size=1, resume_from=before)
        assert 300 == len(await anew.collect())


async def test_page_counts_as_done_in_its_own_checkpoint():
    """A page's checkpoint has the page as done; the stream's, while it is in hand, has not."""
    async with FakeIef(300, deployments=3) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=40)
        seen = []
        async for page in stream.pages():
            in_hand = stream.checkpoint()
            seen += [pod.id for pod in page.items]
            if len(seen) > 120:
                break
        options = {"batch_size": 1, "page_size": 40}
        rest = await ids_of(
            ief.iter_pods(fake.deployment_ids, resume_from=page.checkpoint, **options)
        )
        more = await ids_of(ief.iter_pods(fake.deployment_ids, resume_from=in_hand, **options))

    assert Counter(pod["id"] for pod in fake.pods) == Counter(seen + rest)
    assert [pod.id for pod in page.items] + rest == more


async def test_checkpoint_is_small_and_says_nothing():
    """It has some hundred bytes for each unfinished batch, no id in clear and no token."""
    async with FakeIef(3_000, deployments=30) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=3, page_size=50)
        await ids_of(stream, 1_512)
        saved = stream.checkpoint()

    text = saved.to_json()
    unfinished = sum(entry.mark is not None for entry in saved.parts[0].entries)
    assert len(text) < 150 + 400 * unfinished
    assert fake.token not in text
    assert not any(deployment in text for deployment in fake.deployment_ids)


async def test_finished_batches_are_not_read_again():
    """Resuming asks for no deployment whose pods were all finished with."""
    async with FakeIef(600, deployments=6) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=30)
        await ids_of(stream, 350)
        del fake.requests[:]
        rest = ief.iter_pods(
            fake.deployment_ids, batch_size=1, page_size=30, resume_from=stream.checkpoint()
        )
        assert 251 == len(await rest.collect())

    asked = {request.query["deployment_ids"] for request in fake.requests}
    assert {*fake.deployment_ids[3:]} == asked


async def test_list_that_moved_meanwhile_is_read_on_from_its_anchor():
    """Pods that came and went before the resuming lose nothing of what stayed."""
    async with FakeIef(1_000, deployments=1) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids)
        seen = await ids_of(stream, 500)
        fake.delete(3, 160)
        fake.insert(40, at=0)
        fake.delete(480, 60)

        rest = await ids_of(ief.iter_pods(fake.deployment_ids, resume_from=stream.checkpoint()))

    assert fake.survivors() <= {*seen, *rest}
    assert len(rest) == len(set(rest))


async def test_error_has_the_checkpoint_to_go_on_from():
    """What a failing scan had delivered is not delivered again once the service is well."""
    async with FakeIef(600, deployments=3) as fake, session_with(fake, retry=ONCE) as ief:
        fake.intercept(lambda seen: Fault.status(500) if seen.query["offset"] == "95" else None)
        seen = []
        with pytest.raises(ServerError) as caught:
            async for pod in ief.iter_pods(fake.deployment_ids, batch_size=1):
                seen.append(pod.id)
        fake.intercept(None)
        rest = await ids_of(
            ief.iter_pods(fake.deployment_ids, batch_size=1, resume_from=caught.value.checkpoint)
        )

    assert Counter(pod["id"] for pod in fake.pods) == Counter(seen + rest)


async def test_deferred_failures_leave_only_what_is_missing():
    """All other batches come; then one error says which failed, and what is left of them."""
    async with FakeIef(600, deployments=6) as fake, session_with(fake, retry=ONCE) as ief:
        sick = fake.deployment_ids[2]
        fake.intercept(lambda seen: Fault.status(404) if sick in seen.raw_query else None)
        options = {"batch_size": 1, "on_error": "defer"}
        seen = []
        with pytest.raises(PartialScanError) as caught:
            async for pod in ief.iter_pods(fake.deployment_ids, **options):
                seen.append(pod.id)
        fake.intercept(None)
        del fake.requests[:]
        rest = await ids_of(
            ief.iter_pods(fake.deployment_ids, resume_from=caught.value.checkpoint, **options)
        )

    (failure,) = caught.value.failures
    assert (2, (sick,), NotFoundError) == (failure.batch, failure.ids, type(failure.error))
    assert Counter(pod["id"] for pod in fake.pods) == Counter(seen + rest)
    assert {sick} == {request.query["deployment_ids"] for request in fake.requests}


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"page_size": 50}, "same project"),
        ({"batch_size": 3}, "same project"),
        ({"node_ids": ["n"]}, "same project"),
    ],
)
async def test_checkpoint_of_another_scan_is_refused_at_once(other, problem):
    """Other sizes and other kinds of ids are told before anything is sent."""
    async with FakeIef(100) as fake, session_with(fake) as ief:
        saved = ief.iter_pods(fake.deployment_ids).checkpoint()
        ids = () if "node_ids" in other else (fake.deployment_ids,)

        with pytest.raises(CheckpointError, match=problem):
            ief.iter_pods(*ids, resume_from=saved, **other)
    assert 0 == fake.statistics().requests


async def test_workers_that_stopped_are_finished_by_one():
    """Three workers with their own ids stop half-way; one scan of all ids delivers the rest."""
    async with FakeIef(900, deployments=9) as fake, session_with(fake) as ief:
        lines = [fake.deployment_ids[at : at + 3] for at in (0, 3, 6)]
        seen, saved = [], []
        for most, line in zip((50, 120, 299), lines, strict=True):
            stream = ief.iter_pods(line, batch_size=1, page_size=20)
            seen += (await ids_of(stream, most))[:-1]
            saved.append(stream.checkpoint())
        merged = ScanCheckpoint.from_json(ScanCheckpoint.merge(*saved).to_json())
        ids = [*lines[1], *lines[2], *lines[0]]
        rest = await ids_of(ief.iter_pods(ids, batch_size=1, page_size=20, resume_from=merged))

    assert Counter(pod["id"] for pod in fake.pods) == Counter(seen + rest)
