"""Where the consumer of a scan is: chunks, pages, and the checkpoint at each of its steps."""

import pytest

from ief_async._checkpoint import Run, fingerprint
from ief_async._paging import Batcher, ScanPlan
from ief_async._scan.cursor import Cursor

SCAN = 7  # the fingerprint of the scan
IDS = ("d0", "d1")


def started(rows=10, *, page_size=10, ids=IDS, **options):
    """Return the cursor of a scan with two batches of so many rows, whose first pages are there."""
    batcher = Batcher(selector="deployment_ids", size=1, fixed_bytes=0)
    plan = ScanPlan(concurrency=8, ordered=True, limit=page_size, **options)
    for identity in ids:
        for batch in batcher.add(identity):
            plan.add(batch)
    for batch in batcher.flush():
        plan.add(batch)
    plan.closed = True
    fetch(plan, rows)
    return Cursor(plan, batcher, SCAN)


def fetch(plan, rows):
    """Answer all requests that the plan has now."""
    while hasattr(request := plan.next_request(), "offset"):
        names = [f"{request.query.ids[0]}-{at}" for at in range(rows)]
        plan.receive(
            request, rows, names[request.offset : request.offset + request.limit], object()
        )


def finished(checkpoint):
    """Return the rows of each batch that a checkpoint has as finished; None is all of them."""
    (part,) = checkpoint.parts
    rows = []
    for entry in part.entries:
        if entry.mark is None:
            rows += [None] * entry.run.ids
        else:
            rows.append(entry.mark.offset)
    return rows


def test_a_scan_that_is_not_begun_has_finished_nothing():
    """Its checkpoint has both batches from their beginning, under the scan's own fingerprint."""
    cursor = started()

    cursor.acknowledge()
    checkpoint = cursor.checkpoint()
    assert [0, 0] == finished(checkpoint)
    assert SCAN == checkpoint.scan
    assert fingerprint("d0") == checkpoint.parts[0].first
    assert (0, 0, 0, 0) == (cursor.items, cursor.pages, cursor.bad_items, cursor.skipped)
    assert cursor.page is None
    assert () == cursor.rest


def test_a_scan_without_ids_has_an_empty_checkpoint():
    """Where no id has come there is no part to go on with."""
    cursor = started(ids=())

    assert () == cursor.checkpoint().parts
    assert cursor.take() is None
    assert 0 == cursor.pages


def test_ids_that_are_no_batch_yet_are_in_no_checkpoint():
    """As long as a batch is not full, nothing of it was begun."""
    batcher = Batcher(selector="deployment_ids", size=2, fixed_bytes=0)
    cursor = Cursor(ScanPlan(concurrency=8, ordered=True, limit=10), batcher, SCAN)
    assert [] == batcher.add("d0")

    assert () == cursor.checkpoint().parts


def test_what_a_checkpoint_still_holds_goes_on_with_it():
    """Ids of an earlier checkpoint that have not come again stay in the next one."""
    earlier = started()
    earlier.take()
    saved = earlier.checkpoint()
    batcher = Batcher(selector="deployment_ids", size=1, fixed_bytes=0, resume=saved)
    plan = ScanPlan(concurrency=8, ordered=True, limit=10)
    cursor = Cursor(plan, batcher, SCAN)
    assert saved == cursor.checkpoint()

    for batch in batcher.add("d0"):
        plan.add(batch)
    assert saved == cursor.checkpoint()


def test_each_item_is_finished_with_when_the_next_one_is_asked_for():
    """In chunks of four, three and three rows: one row less than was handed out, to the end."""
    cursor = started()
    accepted = cursor.take()
    assert accepted is cursor.page
    assert 1 == cursor.pages
    seen = []
    for size in (4, 3, 3):
        assert [*cursor.rest] == [*range(len(seen), 10)]
        cursor.acknowledge()
        assert [len(seen), 0] == finished(cursor.checkpoint())
        cursor.advance(size)
        chunk = cursor.hand_out([*accepted.positions[len(seen) : len(seen) + size]])
        assert [len(seen), 0] == finished(cursor.checkpoint())
        for item in chunk:
            seen.append(item)
            assert [len(seen) - 1, 0] == finished(cursor.checkpoint())
            assert len(seen) == cursor.items
    assert [*range(10)] == seen
    assert 0 == len(cursor.rest)

    cursor.acknowledge()
    assert [None, 0] == finished(cursor.checkpoint())
    assert cursor.page is None
    assert 10 == cursor.items


def test_an_acknowledged_item_is_finished_with_in_the_middle_of_its_chunk():
    """Of a chunk of ten, three handed out: two are finished with; three once that is said."""
    cursor = started()
    cursor.take()
    cursor.advance(10)
    chunk = cursor.hand_out(range(10))
    for _ in range(3):
        next(chunk)
    assert [2, 0] == finished(cursor.checkpoint())

    cursor.acknowledge()
    assert [3, 0] == finished(cursor.checkpoint())
    assert 3 == cursor.items
    assert cursor.page is not None

    next(chunk)
    assert [3, 0] == finished(cursor.checkpoint())
    next(chunk)
    assert [4, 0] == finished(cursor.checkpoint())


def test_a_whole_page_is_finished_with_when_the_next_one_is_asked_for():
    """Its own checkpoint stands behind it, the cursor's before it until then."""
    cursor = started()
    cursor.take()
    cursor.advance(10)
    behind = cursor.hand_out_page(range(9))  # a row was left out

    assert [None, 0] == finished(behind)
    assert [0, 0] == finished(cursor.checkpoint())
    assert 9 == cursor.items
    cursor.acknowledge()
    assert [None, 0] == finished(cursor.checkpoint())
    assert cursor.page is None

    assert cursor.take() is not None
    assert 2 == cursor.pages
    cursor.advance(10)
    assert Run.of(IDS) == cursor.hand_out_page(range(10)).parts[0].entries[0].run
    assert 19 == cursor.items


def test_a_page_that_was_not_handed_out_is_not_finished_with():
    """To ask again after a page that was cut off in the middle does not count it as read."""
    cursor = started()
    cursor.take()
    cursor.advance(4)
    cursor.acknowledge()

    assert [0, 0] == finished(cursor.checkpoint())
    assert cursor.page is not None


def test_bad_rows_are_finished_with_when_they_are_passed():
    """One that is left out is no item; one that is replaced is like any other item."""
    cursor = started(max_items=5)
    cursor.take()
    assert 5 == len(cursor.rest)
    cursor.pass_bad_row(replaced=False)
    assert [] == [*cursor.hand_out([])]
    assert [1, 0] == finished(cursor.checkpoint())
    assert (0, 1, 1) == (cursor.items, cursor.bad_items, cursor.skipped)

    cursor.pass_bad_row(replaced=True)
    chunk = cursor.hand_out(["instead"])
    assert [1, 0] == finished(cursor.checkpoint())
    assert "instead" == next(chunk)
    assert [1, 0] == finished(cursor.checkpoint())
    cursor.acknowledge()
    assert [2, 0] == finished(cursor.checkpoint())
    assert (1, 2, 1) == (cursor.items, cursor.bad_items, cursor.skipped)
    assert 3 == len(cursor.rest)

    cursor.advance(3)
    assert [2, 3, 4] == [*cursor.hand_out([2, 3, 4])]
    cursor.acknowledge()
    fetch(cursor._plan, 10)
    assert 1 == len(cursor.take().positions)  # in the place of the one that was left out


@pytest.mark.parametrize("given", [0, 4])
def test_a_page_that_is_dropped_is_finished_up_to_the_bad_row(given):
    """What came of it in chunks is finished with; how much is left unread is said."""
    cursor = started()
    cursor.take()
    if given:
        cursor.advance(given)
        assert [*range(given)] == [*cursor.hand_out(range(given))]

    assert 10 - given == cursor.drop_page()
    assert cursor.page is None
    assert () == cursor.rest
    assert [given, 0] == finished(cursor.checkpoint())
    assert given == cursor.items


def test_a_whole_page_that_is_dropped_stays_unread():
    """Rows that were structured for a page that is never handed out are not finished with."""
    cursor = started()
    cursor.take()
    cursor.advance(4)

    assert 10 == cursor.drop_page()
    assert [0, 0] == finished(cursor.checkpoint())


def test_a_chunk_of_the_page_before_is_forgotten():
    """After the next page is taken, its own rows count from nothing."""
    cursor = started(15)
    cursor.take()
    cursor.advance(10)
    assert 10 == len([*cursor.hand_out(range(10))])
    cursor.acknowledge()
    fetch(cursor._plan, 15)
    cursor.take()

    assert 2 == cursor.pages
    assert [10, 0] == finished(cursor.checkpoint())
    unread = len(cursor.rest)
    assert 5 == unread
    assert unread == cursor.drop_page()
    assert [10, 0] == finished(cursor.checkpoint())
