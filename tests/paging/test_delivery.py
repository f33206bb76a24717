"""What of a batch is delivered, and where a later scan goes on."""

import attrs
import pytest

from ief_async._checkpoint import Mark
from ief_async._paging.batches import Query
from ief_async._paging.chain import Chain
from ief_async._paging.delivery import START, Delivery
from ief_async._paging.pages import PageAnswer, PageRequest
from ief_async._paging.shape import Shape
from ief_async._paging.verdict import Verdict

BEFORE = Mark(3, 9, ("a", "b"))


def delivery(*, overlap=2, mark=START):
    """Return the delivery of a batch whose pages overlap by so many rows."""
    chain = Chain(shape=Shape(limit=10, size=10, overlap=overlap, last_count=40), verdict=Verdict())
    return Delivery(chain=chain, mark=mark)


def answer(offset, ids):
    """Return the answer to a request for ten rows."""
    request = PageRequest(0, Query("deployment_ids", ("d",)), offset, 10)
    return PageAnswer(request, 40, list(ids), "page")


def ready(made, offset, ids, *, proven=True):
    """Make a page ready, and take it."""
    assert made.add(answer(offset, ids), proven=proven)
    made.chain.append(answer(offset, ids))
    return made.take(None)


def test_mark_is_behind_what_is_finished():
    """A later scan goes on behind the last row that is finished, anchored in the rows before it."""
    made = delivery()
    page = ready(made, 0, "abcdefghij")

    assert Mark(4, 40, ("c", "d")) == made.mark_after(page, 4)
    assert Mark(1, 40, ("a",)) == made.mark_after(page, 1)
    assert made.mark_after(page, 0) is START
    made.acknowledge(page, 4)
    assert Mark(4, 40, ("c", "d")) == made.mark


def test_mark_without_overlap_has_no_anchors():
    """Where pages do not overlap a position is all that there is."""
    made = delivery(overlap=0)

    assert Mark(4, 40) == made.mark_after(ready(made, 0, "abcdefghij"), 4)


def test_doubt_is_not_forgotten_by_resuming_again():
    """Behind a batch that was resumed without anchors no anchors are kept, so that it is known."""
    made = delivery(mark=Mark(3, 40))
    made.chain.resume(Mark(3, 40), 0, Query("deployment_ids", ("d",)))

    assert Mark(7, 40) == made.mark_after(ready(made, 3, "defghij"), 4)


def test_page_outside_the_proof_is_not_resumed_behind():
    """Rows may be missing before a page that nothing joins: a later scan does not go on in it."""
    made = delivery(mark=BEFORE)
    page = ready(made, 30, "klmnop", proven=False)

    assert page.resumable_after is None
    assert all(made.mark_after(page, rows) is BEFORE for rows in range(7))
    made.acknowledge(page, 6)
    assert made.mark is BEFORE


def test_page_is_resumable_behind_a_row_that_was_known():
    """Where the list moved, new rows before the first known one do not show what precedes them."""
    made = delivery(mark=BEFORE)
    ready(made, 0, "abcdef")
    page = ready(made, 3, "xyefgh")  # e and f were there: only behind e is all known

    assert (3, [0, 1, 4, 5]) == (page.resumable_after, page.positions)
    assert made.mark_after(page, 2) is BEFORE
    assert Mark(8, 40, ("f", "g")) == made.mark_after(page, 3)


def test_exact_neighbour_is_resumable_behind_its_first_row():
    """A page that begins with the last rows of the one before it is joined to it."""
    made = delivery()
    ready(made, 0, "abcdef")
    page = ready(made, 4, "efghij")

    assert (1, range(2, 6)) == (page.resumable_after, page.positions)
    assert Mark(7, 40, ("f", "g")) == made.mark_after(page, 1)


def test_lost_positions_mean_the_beginning():
    """Once rows changed places a later scan begins anew, whatever was finished before."""
    made = delivery(mark=BEFORE)
    page = ready(made, 0, "abcdefghij")
    made.acknowledge(page, 4)
    made.chain.positions_lost = True

    assert made.mark is START
    assert made.mark_after(page, 10) is START


@pytest.mark.parametrize("most", [1, 3, 5, 6, 9, None])
def test_page_that_is_cut_leaves_the_rest_ready(most):
    """So many rows are taken at most; the others stay ready, and each part is acknowledged."""
    made = delivery()
    assert made.add(answer(0, "abcdef"), proven=True)
    taken = made.take(most)
    rest = [one for page in made.ready for one in page.positions]

    assert list(range(6)) == [*taken.positions, *rest]
    assert min(most or 6, 6) == len(taken.positions)
    assert 1 == made.unacknowledged
    assert (1 if rest else 0) == len(made.ready)
    assert len(rest) == made.discard()
    assert not made.ready


def test_page_without_new_rows_is_not_delivered():
    """A page whose rows all came before makes nothing ready."""
    made = delivery()
    ready(made, 0, "abcdef")

    assert not made.add(answer(4, "ef"), proven=True)
    assert not made.ready
    assert 6 == made.chain.verdict.items


def test_accepted_page_has_what_was_handed_in():
    """The driver gets its own page back, with the request and the count of its answer."""
    made = delivery()
    page = ready(made, 0, "abc")

    expected = {"offset": 0, "limit": 10, "count": 40, "page": "page", "ids": ["a", "b", "c"]}
    given = attrs.asdict(page, recurse=False) | attrs.asdict(page.request, recurse=False)
    assert expected == {name: given[name] for name in expected}
