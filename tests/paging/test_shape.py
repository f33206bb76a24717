"""What the first page shows of all pages, and what the last one shows of the end."""

import pytest
from simulated import QUERY, names

from ief_async._paging.chain import Chain
from ief_async._paging.pages import PageAnswer, PageRequest
from ief_async._paging.requests import Requests
from ief_async._paging.shape import PageCap, Shape
from ief_async._paging.verdict import Flags, Verdict


def answer(rows, count, offset=0, limit=10):
    """Return a page of so many rows, with what it counts."""
    return PageAnswer(PageRequest(0, QUERY, offset, limit), count, names(rows), None)


@pytest.mark.parametrize(
    ("rows", "count", "size", "open_ended", "flags"),
    [
        (10, 30, 10, False, ()),
        (10, 10, 10, True, ()),  # exactly full: more may follow
        (10, 9, 10, True, ()),
        (10, None, 10, True, ()),
        (6, 6, 10, False, ()),
        (6, 7, 6, False, ("clamped",)),
        (6, 5, 6, True, ()),
        (6, None, 6, True, ()),
        (4, 4, 4, True, ()),  # as long as the cap that was shown
        (12, 30, 12, False, ("limit_ignored",)),
        (0, 0, 10, False, ()),
        (0, 5, 10, False, ()),
    ],
)
def test_first_page_shows_how_long_pages_are(rows, count, size, open_ended, flags):
    """What is shorter than was asked for is a cap, unless it is the whole list by its count."""
    shape, told = Shape(limit=10, cap=PageCap(longest=4, shown=rows == 4)), Flags()
    shape.learn(answer(rows, count), told)

    assert (size, open_ended, flags) == (shape.size, shape.open_ended, told.names())
    assert (count, shape.given - shape.overlap) == (shape.first_count, shape.stride)


def test_cap_is_shown_by_a_short_page_that_more_follows():
    """A short page at the end of its list shows nothing, one before the end shows a cap."""
    cap = PageCap()
    shape = Shape(limit=10, cap=cap)
    for rows, count, longest, shown in (
        (10, 30, 0, False),
        (3, 3, 3, False),
        (2, None, 3, False),
        (4, 5, 4, True),
        (3, 3, 4, True),
    ):
        shape.note_length(answer(rows, count))
        assert (longest, shown) == (cap.longest, cap.shown)
    assert 10 == shape.longest
    assert [False, True, True] == [cap.may_hold(rows) for rows in (3, 4, 5)]


def test_counts_are_noted():
    """The largest, the smallest and the last count are kept; an answer without one changes none."""
    shape = Shape(limit=10)
    assert shape.count_is_constant
    for count in (7, None, 7, 9, 5, 8):
        shape.note_count(count)
        assert shape.count_is_constant == (shape.least_count == shape.count)

    assert (9, 5, 8) == (shape.count, shape.least_count, shape.last_count)


def test_page_beyond_its_count_leaves_the_end_open():
    """Where a page goes beyond what it counts, rows may follow that no count explains."""
    for rows, beyond in ((10, False), (11, True)):
        chain = Chain(shape=Shape(limit=20, size=20, overlap=5), verdict=Verdict())
        chain.append(answer(rows, 10, limit=20))

        assert beyond == chain.shape.open_ended == chain.verdict.flags.count_mismatch
        assert (rows, 1) == (chain.edge, chain.verdict.pages)


@pytest.mark.parametrize(("count", "below"), [(4, False), (5, False), (6, True), (None, False)])
def test_list_that_ends_below_its_count(count, below):
    """A list that is taken to end before the rows that it counts is in doubt."""
    chain = Chain(shape=Shape(limit=10, last_count=count), verdict=Verdict(), edge=5)
    chain.end_below_count()

    assert chain.ended
    assert below == chain.verdict.ended_below_count == chain.verdict.flags.count_mismatch


def test_page_that_was_cut_is_what_all_pages_are():
    """Behind a page that was cut the next one overlaps it, and no count says where that ends."""
    chain = Chain(shape=Shape(limit=20, size=20, overlap=5), verdict=Verdict(), edge=27)
    requests = Requests(number=0, query=QUERY, chain=chain, look_ahead=1, next_offset=0)
    requests.look_behind(answer(8, 27, offset=19, limit=20))

    assert (8, 2, True) == (chain.shape.size, chain.shape.overlap, chain.shape.open_ended)
    assert 25 == requests.next_offset
