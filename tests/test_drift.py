"""Lists that move, and servers that page oddly, over real sockets."""

from collections import Counter
from contextlib import asynccontextmanager

import pytest
from conftest import session_with

from ief_async import (
    DriftError,
    NotFoundError,
    PartialScanError,
    PayloadError,
    RetryPolicy,
    ServerError,
)
from ief_async._paging import requests
from ief_async._paging.shape import requests_for
from ief_async.testing import FakeIef, Fault, Motion, Service

SEEDS = [1, 2, 3]


@asynccontextmanager
async def fleet(pods=2_000, **options):
    """Run a fleet of one deployment, and a session with it that fails at once."""
    options = {"deployments": 1} | options
    async with (
        FakeIef(pods, **options) as fake,
        session_with(fake, retry=RetryPolicy(attempts=1)) as ief,
    ):
        yield fake, ief


async def scan(fake, ief, **options):
    """Scan the fleet; return the ids as they came, and the report of its one batch."""
    stream = ief.iter_pods(fake.deployment_ids, **options)
    ids = [pod.id async for pod in stream]
    (report,) = stream.report.batches
    assert len(ids) == len(set(ids)), "a pod came twice"
    return ids, report


async def scan_whole(fake, ief, **options):
    """Scan the fleet, which has to give every survivor; return the report and the requests."""
    before = fake.statistics().requests
    ids, report = await scan(fake, ief, **options)
    assert fake.survivors() - fake.hidden_ids() <= set(ids)
    assert report.complete
    return report, fake.statistics().requests - before


async def test_empty_list_is_whole():
    """No pods take two requests, as an empty answer is doubted once."""
    async with fleet(0, deployments=1) as (fake, ief):
        stream = ief.iter_pods(["d"])
        assert [] == await stream.collect()

    assert 2 == fake.statistics().requests
    assert "exact" == stream.report.batches[0].drift


@pytest.mark.parametrize("pods", [99, 100, 101, 190, 195, 200, 285, 290])
async def test_lists_of_every_edge_are_whole(pods):
    """Limit - 1, limit, limit + 1, 2 * limit - V and whole strides take what is foreseen."""
    async with fleet(pods) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert (requests_for(pods, 100), "exact") == (requests, report.drift)


def between(fake, offset, change):
    """Change the fleet once, just before the page at this offset is made."""
    todo = [change]

    def hook(seen):
        if seen.query["offset"] == str(offset) and todo:
            todo.pop()()

    fake.intercept(hook)


@pytest.mark.parametrize("deletes", range(1, 5))
async def test_few_deletes_need_no_bridge(deletes):
    """Up to V - 1 deletes between two neighbouring pages leave a row in common."""
    async with fleet() as (fake, ief):
        between(fake, 950, lambda: fake.delete(10, deletes))
        report, requests = await scan_whole(fake, ief, concurrency=1)

    assert ("repaired", 1) == (report.drift, report.re_reads)  # the head, once more
    assert requests_for(2_000 - deletes, 100) + 1 == requests


async def test_burst_of_deletes_is_bridged():
    """300 neighbours that vanish before the cursor cost a bridge, and no survivor."""
    async with fleet() as (fake, ief):
        between(fake, 950, lambda: fake.delete(100, 300))
        report, requests = await scan_whole(fake, ief)

    assert "repaired" == report.drift
    assert 1 < report.re_reads < 20
    assert requests < 40


@pytest.mark.parametrize("seed", SEEDS)
async def test_inserts_at_the_head_lose_nothing(seed):
    """Pods that come at the head while pages are answered out of order lose none."""
    motion = Motion.uniform(inserts=1, deletes=0, at="head")
    async with fleet(motion=motion, seed=seed) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert "repaired" == report.drift
    assert requests < 40


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("new", ["head", "tail", "anywhere"])
async def test_rolling_update_loses_nothing(new, seed):
    """300 pods go and 300 come, again and again: all that stay are there, or it is said."""
    motion = Motion.rolling(chance=0.1, least=300, most=300, new=new)
    async with fleet(motion=motion, seed=seed) as (fake, ief):
        ids, report = await scan(fake, ief)

    assert fake.survivors() <= set(ids) or "unknown" == report.drift


async def test_list_that_empties_is_whole():
    """A list that is empty before its second page comes ends without an error."""
    async with fleet(500) as (fake, ief):
        between(fake, 95, lambda: fake.delete(0, 500))
        report, _ = await scan_whole(fake, ief, concurrency=1)

    assert "repaired" == report.drift


async def test_list_that_grows_for_ever_is_given_up(monkeypatch):
    """A list whose end runs away at every request ends in an error, not in a loop."""
    monkeypatch.setattr(requests, "UNCOUNTED_PAGES", 50)
    async with fleet(100) as (fake, ief):
        fake.intercept(lambda _: fake.insert(30, at=None) and None)
        with pytest.raises(DriftError, match="its end never came") as caught:
            await scan(fake, ief, page_size=20)

    assert caught.value.checkpoint is not None
    assert fake.statistics().requests < 100


@pytest.mark.parametrize(("cap", "requests"), [(50, 9), (10, 50), (2, 400)])
async def test_clamped_pages_cost_requests_and_no_rows(cap, requests):
    """V shrinks with the pages that the server gives, and the requests stay bounded."""
    async with fleet(400, page_cap=cap) as (fake, ief):
        report, sent = await scan_whole(fake, ief)

    assert ("exact", cap, ("clamped",)) == (report.drift, report.page_size_seen, report.flags)
    assert requests == sent


async def test_clamp_to_one_row_proves_nothing():
    """Pages of one row can't overlap: they are read, and the verdict says so."""
    async with fleet(60, page_cap=1) as (fake, ief):
        report, _ = await scan_whole(fake, ief)
        with pytest.raises(DriftError, match="no_overlap"):
            await scan(fake, ief, on_drift="raise")

    assert ("unknown", ("clamped", "no_overlap")) == (report.drift, report.flags)


async def test_clamp_in_mid_scan_loses_nothing():
    """A server that gives fewer rows from some page on is followed."""
    async with fleet() as (fake, ief):
        between(fake, 950, lambda: setattr(fake, "page_cap", 30))
        report, _ = await scan_whole(fake, ief)

    assert ("repaired", 30) == (report.drift, report.page_size_seen)


async def test_ignored_offset_is_an_error():
    """The same page for every offset is noticed within three answers."""
    async with fleet(service=Service(offsets="ignored")) as (fake, ief):
        with pytest.raises(DriftError, match="ignores offset"):
            await scan(fake, ief, concurrency=2)

    assert fake.statistics().requests <= 4  # one may be under way


@pytest.mark.parametrize("pods", [150, 2_000, 20_000])
async def test_offset_as_a_page_number_is_an_error(pods):
    """A server that counts pages is refused, not read by a twentieth."""
    async with fleet(pods, service=Service(offsets="pages")) as (fake, ief):
        with pytest.raises(DriftError, match="share no row"):
            await scan(fake, ief)

    assert fake.statistics().requests <= 40


async def test_ignored_limit_is_read_as_it_comes():
    """All pods in one page, more than were asked for, are taken and flagged."""
    async with fleet(640, service=Service(limits="ignored")) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert (2, 640, ("limit_ignored",)) == (requests, report.page_size_seen, report.flags)


@pytest.mark.parametrize("count", [437, 10**9])
async def test_count_too_high_is_not_believed(count):
    """All pods come, the count is in doubt, and no page is asked for without end."""
    async with fleet(400, service=Service(counts=count)) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert ("unknown", {"short_of_count", "count_mismatch"}) == (report.drift, {*report.flags})
    assert requests <= 5 + 4 * 8  # what is in flight behind the end is asked for three times


@pytest.mark.parametrize("counts", [0, 363, "page", "none"])
async def test_count_too_low_hides_nothing(counts):
    """A count of 0, of the page, too low, or none at all is looked behind."""
    async with fleet(400, service=Service(counts=counts)) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert report.drift in {"exact", "repaired"}
    assert requests <= 5 + 8


@pytest.mark.parametrize("seed", SEEDS)
async def test_jittering_count_hides_nothing(seed):
    """A count that is off by up to five, otherwise each time, costs a few requests."""
    jitter = {
        "service": Service(counts=lambda total, chance: total + chance.randint(-5, 5)),
        "seed": seed,
    }
    async with fleet(**jitter) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert "repaired" == report.drift
    assert requests < 60


async def test_count_of_another_type_is_an_error():
    """Digits in a text are a count; a word is none, and names the field."""
    async with fleet(service=Service(counts=lambda total, _: str(total))) as (fake, ief):
        assert "exact" == (await scan_whole(fake, ief))[0].drift
    async with fleet() as (fake, ief):
        fake.intercept(
            lambda seen: (
                Fault.edit(lambda body: body.replace(b'"count":2000', b'"count":"many"'))
                if seen.query["offset"] == "190"
                else None
            )
        )
        with pytest.raises(PayloadError) as caught:
            await scan(fake, ief)

    assert ("count", 190) == (caught.value.path, caught.value.offset)


@pytest.mark.parametrize("seed", SEEDS)
async def test_transient_empty_pages_are_asked_for_again(seed):
    """Pages that come empty now and then, though rows are there, lose none."""
    async with fleet(service=Service(empty_rate=0.05), seed=seed) as (fake, ief):
        report, _ = await scan_whole(fake, ief)

    assert ("repaired" if report.re_reads else "exact") == report.drift


async def test_offset_that_stays_empty_is_read_around():
    """A page that never comes is bridged from beside it, within bounds."""
    async with fleet() as (fake, ief):
        empty = Fault.edit(lambda _: b'{"count":2000,"pods":[]}')
        fake.intercept(lambda seen: empty if seen.query["offset"] == "950" else None)
        report, requests = await scan_whole(fake, ief)

    assert "repaired" == report.drift
    assert requests < 40


async def test_tail_that_stays_empty_is_said():
    """Rows that are counted and never shown leave the batch in doubt, not in a loop."""
    async with fleet() as (fake, ief):
        empty = Fault.edit(lambda _: b'{"count":2000,"pods":[]}')
        fake.intercept(lambda seen: empty if int(seen.query["offset"]) >= 950 else None)
        _, report = await scan(fake, ief)

    assert ("unknown", {"unproven", "short_of_count"}) == (report.drift, {*report.flags})
    assert fake.statistics().requests < 200


async def test_hidden_rows_make_short_pages_and_no_end():
    """Rows that are cut out of a page after it was made shorten it; the others all come."""
    async with fleet(service=Service(hidden_rate=0.1)) as (fake, ief):
        report, requests = await scan_whole(fake, ief)

    assert "unknown" == report.drift  # hidden or miscounted: that can't be told apart
    assert "short_of_count" in report.flags
    assert requests < 40


async def test_rows_that_stand_twice_come_once():
    """An id twice in a page is one pod, and a flag."""
    async with fleet(service=Service(repeated_rate=0.1)) as (fake, ief):
        report, _ = await scan_whole(fake, ief)

    assert report.drift in {"exact", "repaired"}
    assert "repeated_rows" in report.flags
    assert report.duplicates_dropped > 100


async def test_first_copy_stands():
    """A pod that another page shows with another name comes once, as it came first."""
    pods = [{"id": f"p{at}", "deployment_id": "d", "name": "old"} for at in range(30)]
    async with fleet(pods) as (_, ief), fleet(pods) as (fake, ief):
        renamed = Fault.edit(lambda body: body.replace(b"old", b"new"))
        fake.intercept(lambda seen: renamed if seen.query["offset"] == "8" else None)
        names = {pod.id: pod.name async for pod in ief.iter_pods(["d"], page_size=10)}

    assert ("old", "old", "new") == (names["p8"], names["p9"], names["p10"])


async def test_shuffled_list_is_never_called_whole():
    """A list that is permuted for each request is flagged, after a few sweeps."""
    async with fleet(service=Service(order="shuffled")) as (fake, ief):
        _, report = await scan(fake, ief)

    assert "unknown" == report.drift
    assert "order" in report.flags
    assert fake.statistics().requests <= 5 * 22


async def test_ties_are_whole_by_their_count():
    """Neighbours that change places, in a list that else stands still, all come."""
    async with fleet(service=Service(order="ties")) as (fake, ief):
        report, _ = await scan_whole(fake, ief)

    assert "repaired" == report.drift


@pytest.mark.parametrize("seed", SEEDS)
async def test_pods_that_jump_to_the_head_are_found(seed):
    """A list ordered by time of change, under churn, is read at its head once more."""
    motion = [Motion.touch(0.05), Motion.uniform(0.02, 0.02)]
    async with fleet(motion=motion, seed=seed) as (fake, ief):
        ids, report = await scan(fake, ief)

    assert fake.survivors() <= set(ids) or "unknown" == report.drift


@pytest.mark.parametrize("seed", SEEDS)
async def test_page_from_a_cache_is_bridged(seed):
    """Page 0 in the place of another page, now and then, loses none."""
    async with fleet(service=Service(cached_rate=0.05), seed=seed) as (fake, ief):
        report, _ = await scan_whole(fake, ief)

    assert report.drift in {"exact", "repaired"}


@pytest.mark.parametrize("seed", SEEDS)
async def test_lagging_replica_loses_nothing(seed):
    """Answers from one of the last five states of a list that moves lose none."""
    async with fleet(service=Service(lag=5), motion=Motion.uniform(0.2, 0.2), seed=seed) as (
        fake,
        ief,
    ):
        await scan_whole(fake, ief)


async def test_pods_of_another_deployment_are_delivered_as_they_come():
    """Which pods belong to a query is the server's word, and is not second-guessed."""
    pods = [{"id": f"p{at}", "deployment_id": "other"} for at in range(3)]
    async with fleet(pods) as (fake, ief):
        foreign = Fault.edit(lambda _: b'{"count":1,"pods":[{"id":"x","deployment_id":"other"}]}')
        fake.intercept(lambda _: foreign)
        assert ["x"] == [pod.id async for pod in ief.iter_pods(["mine"])]


async def test_page_that_fails_for_good_is_the_error():
    """The scan raises what the page failed with, where it was, and how to go on."""
    async with fleet() as (fake, ief):
        fake.intercept(lambda seen: Fault.status(500) if seen.query["offset"] == "950" else None)
        with pytest.raises(ServerError) as caught:
            await scan(fake, ief)
        with pytest.raises(PartialScanError):
            await scan(fake, ief, on_error="defer")

    assert (0, 950) == (caught.value.batch, caught.value.offset)
    assert caught.value.checkpoint is not None


async def test_pod_stands_in_one_batch():
    """Deployments in several batches give each pod once."""
    async with fleet(600, deployments=12) as (fake, ief):
        pods = await ief.iter_pods(fake.deployment_ids, batch_size=5).collect()

    assert 600 == len(pods) == len({pod.id for pod in pods})


async def test_deployment_that_goes_is_its_batchs_business():
    """A deployment that answers 404 fails its batch alone; one without pods is empty."""
    async with fleet(600, deployments=6) as (fake, ief):
        gone = fake.deployment_ids[1]
        fake.intercept(lambda seen: Fault.status(404) if gone in seen.raw_query else None)
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error="collect")
        pods = await stream.collect()

    assert {*fake.deployment_ids} - {gone} == {pod.deployment_id for pod in pods}
    assert [NotFoundError] == [type(failure.error) for failure in stream.report.failures]
    assert not stream.report.complete


async def test_same_deployment_twice_is_asked_for_once():
    """An id that is given twice is sent once."""
    async with fleet(50) as (fake, ief):
        assert 50 == len(await ief.iter_pods([*fake.deployment_ids] * 2).collect())

    assert {fake.deployment_ids[0]} == {one.query["deployment_ids"] for one in fake.requests}


@pytest.mark.parametrize(("page_size", "drift"), [(1, "unknown"), (2, "exact"), (5, "exact")])
async def test_smallest_pages_overlap_by_what_they_can(page_size, drift):
    """V is at most a quarter of a page, and at least one row of two."""
    async with fleet(40) as (fake, ief):
        report, requests = await scan_whole(fake, ief, page_size=page_size)

    assert (drift, requests_for(40, page_size)) == (report.drift, requests)


@pytest.mark.parametrize(
    ("on_drift", "whole"), [("repair", True), ("raise", True), ("report", False), ("ignore", False)]
)
async def test_policies_differ_in_what_they_read_again(on_drift, whole):
    """A burst is bridged, or reported as a gap, or not even seen."""
    async with fleet() as (fake, ief):
        offset = 900 if on_drift == "ignore" else 950
        between(fake, offset, lambda: fake.delete(100, 300))
        ids, report = await scan(fake, ief, on_drift=on_drift, concurrency=2)

    assert whole == (fake.survivors() <= set(ids))
    assert ("repaired" if whole else "unknown") == report.drift
    assert whole == (report.re_reads > 0)
    reasons = {"report": "gap", "ignore": "unchecked"}
    assert reasons.get(on_drift, "") in (*report.flags, "")


async def test_ignoring_costs_no_overlap():
    """With on_drift="ignore" a calm list takes the fewest requests there can be."""
    async with fleet() as (fake, ief):
        _, requests = await scan_whole(fake, ief, on_drift="ignore")

    assert 20 == requests


async def test_doubt_is_logged_once_a_batch(caplog):
    """With on_drift="repair" a batch in doubt is a warning that names it and says why."""
    async with fleet(400, service=Service(counts=437)) as (fake, ief):
        await scan(fake, ief)

    (record,) = [one for one in caplog.records if one.name == "ief_async"]
    assert "WARNING" == record.levelname
    assert "short_of_count" in record.getMessage()
    assert "batch 0 " in record.getMessage()
    assert fake.deployment_ids[0] not in record.getMessage()


# ---- what one batch learns, the scan and the session know ----------------------------------------


def cut_and_miscounted(*sizes):
    """Return the pods of deployments, of which those of 11 count one less, as pages of 10 hold."""
    pods = [
        {"id": f"p{one}-{row}", "deployment_id": f"d{one}"}
        for one, size in enumerate(sizes)
        for row in range(size)
    ]
    return FakeIef(
        pods, page_cap=10, service=Service(counts=lambda total, _: 10 if total == 11 else total)
    )


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("sizes", [(11, 30), (30, 11), (11, 11, 10, 5, 30, 11), (5, 11, 12)])
async def test_page_of_the_length_of_a_known_cap_is_no_end(sizes, concurrency, ordered):
    """Where one batch shows that pages have ten rows, one that ends with just ten is looked behind.

    So it is where the others showed it only after that one had ended.
    """
    async with cut_and_miscounted(*sizes) as fake, session_with(fake) as ief:
        ids = [f"d{one}" for one in range(len(sizes))]
        stream = ief.iter_pods(ids, batch_size=1, concurrency=concurrency, ordered=ordered)
        names = [pod.id for pod in await stream.collect()]

    assert sorted(pod["id"] for pod in fake.pods) == sorted(names)
    assert "unknown" not in {batch.drift for batch in stream.report.batches}


async def test_a_session_remembers_how_long_pages_are():
    """What one scan was shown of the length of pages, a later one of the session knows."""
    async with cut_and_miscounted(11, 30) as fake, session_with(fake) as ief:
        await ief.iter_pods(["d1"]).collect()

        for session in (ief, ief.with_options(retry=RetryPolicy(attempts=1))):
            assert 11 == len(await session.iter_pods(["d0"]).collect())


async def test_many_short_batches_are_in_doubt_where_the_cap_shows_late():
    """Of many batches that ended with ten rows, those that can't be read on are in doubt."""
    sizes = [*[11] * 80, 30]
    async with cut_and_miscounted(*sizes) as fake, session_with(fake) as ief:
        ids = [f"d{one}" for one in range(len(sizes))]
        stream = ief.iter_pods(ids, batch_size=1, concurrency=1)
        counted = Counter(pod.deployment_id for pod in await stream.collect())

    for number, batch in enumerate(stream.report.batches):
        assert counted[f"d{number}"] == sizes[number] or "unknown" == batch.drift
    assert "clamped" in stream.report.batches[0].flags


# ---- resumed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("gone", [1, 2, 6, 20])
@pytest.mark.parametrize("how", [{"page_size": 1}, {"cap": 1}, {"cap": 1, "later": 100}])
async def test_a_scan_resumed_on_pages_of_one_row_is_in_doubt(how, gone, rows):
    """Pages of one row share none, so nothing joins what is resumed to what was read before."""
    async with fleet(20, page_cap=how.get("cap")) as (fake, ief):
        page_size = how.get("page_size", 100)
        first = ief.iter_pods(fake.deployment_ids, page_size=page_size)
        items = aiter(first)
        before = [(await anext(items)).id for _ in range(rows)]
        checkpoint = first.checkpoint()
        await first.aclose()
        fake.delete(0, gone)
        fake.page_cap = how.get("later", fake.page_cap)
        second = ief.iter_pods(fake.deployment_ids, page_size=page_size, resume_from=checkpoint)
        after = [pod.id async for pod in second]

    (report,) = second.report.batches
    assert "unknown" == report.drift or fake.survivors() <= {*before, *after}
    assert "no_overlap" in report.flags or rows == 1  # then nothing was finished
    assert all(int(seen.query["offset"]) >= 0 for seen in fake.requests)


@pytest.mark.parametrize("pages", [1, 5])
async def test_rows_that_are_hidden_are_told_of_a_resumed_scan_as_well(pages):
    """A scan that is resumed behind some pages misses the rows that are counted and do not come."""
    async with fleet(service=Service(hidden_rate=0.1)) as (fake, ief):
        read = ief.iter_pods(fake.deployment_ids).pages()
        page = [await anext(read) for _ in range(pages)][-1]
        await read.aclose()
        _, report = await scan(fake, ief, resume_from=page.checkpoint)

    assert "unknown" == report.drift
    assert "short_of_count" in report.flags
