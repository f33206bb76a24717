"""The walk over a gap: where it goes next, and what it may cost."""

import pytest
from simulated import QUERY, names

from ief_async import DriftError
from ief_async._paging.bridge import Bridge, Step
from ief_async._paging.chain import Chain
from ief_async._paging.pages import PageAnswer, PageRequest
from ief_async._paging.requests import Requests
from ief_async._paging.shape import Shape
from ief_async._paging.verdict import Verdict


def answer(offset, rows=10, limit=10):
    """Return a page of so many rows."""
    return PageAnswer(PageRequest(0, QUERY, offset, limit), 90, names(rows), None)


def bridge(*, waiting=(), overlap=2, edge=0, past_first=True, shape=None, **options):
    """Return the walk of a batch whose pages are of ten rows, which was accepted up to an edge."""
    shape = Shape(**{"limit": 10, "size": 10, "overlap": overlap} | (shape or {}))
    chain = Chain(shape=shape, verdict=Verdict(), edge=edge, past_first=past_first)
    chain.waiting |= {offset: answer(offset) for offset in waiting}
    chain.empty_from = options.pop("empty_from", None)
    chain.last = options.pop("last", None)
    requests = Requests(number=0, query=QUERY, chain=chain, look_ahead=1, next_offset=0)
    return Bridge(requests=requests, chain=chain, **options)


def asked(walk):
    """Return the offsets that a walk asks for."""
    return [request.offset for request in walk.requests.again]


@pytest.mark.parametrize(
    ("options", "offset"),
    [
        ({"edge": 30, "waiting": [40]}, 28),  # it begins behind what was accepted
        ({"edge": 50, "waiting": [40]}, 32),  # or left of what nothing joins
        ({"edge": 40, "waiting": [40]}, 38),
        ({"edge": 30, "empty_from": 28, "shape": {"last_count": 20}}, 11),  # or at the end
        ({"edge": 30, "shape": {"last_count": 20, "open_ended": True}}, 28),
        ({"edge": 30, "shape": {"last_count": 90}}, 28),
        ({"edge": 30}, 28),
    ],
)
def test_walk_begins_beside_the_gap(options, offset):
    """The first step is to where a page may join the others, or to where the list may end."""
    walk = bridge(**options)

    assert Step.ASKED is walk.begin()
    assert [offset] == asked(walk)
    assert (8, None, 1) == (walk.step, walk.anchored, walk.spent)
    assert {options.get("empty_from")} - {None} == walk.unanchored
    assert 1 == walk.chain.verdict.re_reads
    assert not walk.chain.verdict.flags.clamped


@pytest.mark.parametrize(
    ("last", "waiting", "size"),
    [
        (answer(0, 4), [40], 4),
        (answer(0, 10), [40], 10),
        (answer(0, 0), [40], 10),
        (answer(0, 4, limit=4), [40], 10),
        (answer(0, 4), [], 10),
        (None, [40], 10),
    ],
)
def test_short_page_before_a_gap_shows_shorter_pages(last, waiting, size):
    """A page that is short while others wait behind a gap is what the server gives from now on."""
    walk = bridge(edge=30, waiting=waiting, last=last)
    walk.begin()

    assert (size, size < 10) == (walk.chain.shape.size, walk.chain.verdict.flags.clamped)


@pytest.mark.parametrize(
    ("options", "step", "offset"),
    [
        # joined, and nothing in the way
        ({"anchored": 20, "edge": 30}, Step.READ_ON, None),
        ({"anchored": 20, "edge": 30, "unanchored": {29}}, Step.READ_ON, None),
        # an empty page between pages that do not overlap
        ({"edge": 30, "overlap": 0, "unanchored": {30}}, Step.SKIP, None),
        # to the left
        ({"edge": 30, "unanchored": {28, 40}, "step": 8}, Step.ASKED, 20),
        ({"edge": 30, "unanchored": {28}, "step": 40}, Step.ASKED, 0),
        # to the right
        ({"anchored": 20, "edge": 30, "waiting": [50]}, Step.ASKED, 28),
        ({"anchored": 20, "edge": 30, "waiting": [50], "unanchored": {29}}, Step.ASKED, 28),
        ({"anchored": 28, "edge": 30, "waiting": [50]}, Step.ASKED, 29),
        # between
        ({"anchored": 12, "edge": 30, "unanchored": {28}}, Step.ASKED, 20),
        ({"anchored": 12, "edge": 30, "unanchored": {14}}, Step.ASKED, 13),
        ({"anchored": 0, "edge": 30, "unanchored": {28}, "past_first": False}, Step.ASKED, 1),
        # what was anchored has gone
        ({"anchored": 12, "edge": 30, "unanchored": {13}}, Step.ASKED, 4),
        # nothing joins them
        ({"anchored": 0, "edge": 10, "unanchored": {1}, "past_first": False}, Step.GAP, None),
    ],
)
def test_next_step(options, step, offset):
    """Each case of a walk has one answer."""
    walk = bridge(**options)

    assert step is walk.go_on()
    assert asked(walk) == ([] if offset is None else [offset])


def test_steps_to_the_left_double():
    """A walk goes left by one stride, two, four: until a page is anchored, or at the head."""
    walk = bridge(edge=60, waiting=[90])
    walk.begin()
    walk.requests.again.clear()
    walk.unanchored = {58}
    for _ in range(3):
        walk.go_on()

    assert [50, 42, 26] == asked(walk)


def test_anchored_page_is_where_the_walk_goes_on():
    """Pages before what is joined now are older than that, and no obstacle any more."""
    walk = bridge(step=64, unanchored={20, 27, 28, 40})
    walk.note_anchored(answer(20))

    assert (20, 8, {28, 40}) == (walk.anchored, walk.step, walk.unanchored)


def test_offsets_that_are_not_rows_are_an_error():
    """If pages one row apart share no row, the server does not count offsets in rows."""
    walk = bridge(anchored=0, past_first=False)
    walk.note_unanchored(answer(2))
    walk.note_unanchored(answer(1, rows=1))
    assert {1, 2} == walk.unanchored

    with pytest.raises(DriftError, match="the pages at offsets 0 and 1 share no row"):
        walk.note_unanchored(answer(1))
    bridge(anchored=0, past_first=True).note_unanchored(answer(1))


def test_walk_is_bounded_by_what_it_brings():
    """Forty pages that bring nothing are free; each page that brought something pays for two."""
    walk = bridge()
    walk.note_page(fresh=True)
    walk.note_page(fresh=False)
    steps = [walk.ask(0) for _ in range(43)]

    assert [Step.ASKED] * 41 + [Step.TOO_FAR] * 2 == steps
    assert 41 == len(asked(walk))
    assert 43 == walk.chain.verdict.re_reads
