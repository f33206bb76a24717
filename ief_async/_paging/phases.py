"""The laws of one batch, and the phases that it goes through. Pure.

A batch is one query. The driver asks its plan for requests, sends them as it
likes, and reports the answers in any order.

1. Page 0 tells `count`; the other pages may then be asked all at once.
2. Offsets are learned. The stride is what the server gives, not what was asked: a server that caps
   `limit` costs requests, never rows. A short page is not the last page; an empty page before
   `count` is asked for again, twice.
3. The anchored scan. Neighbouring pages overlap by V rows. A page is anchored if its offset is 0 or
   it shares an id with an anchored page; U is all ids of anchored pages. A batch is proven when an
   anchored page shows the end of the list: shorter than the pages of this server, and up to the
   `count` that came with it. Then every row that was there throughout is in U, if the rows that
   stay keep their order:

       Each such row s that is not in U comes after every row of U. That holds for a page at offset
       0. Let a page at offset o, read at any time, hold a row a of U. s comes after a, so its
       position is at least o: s is in the page, or behind all of it, and the law holds for U and
       the page together. Behind a page that shows the end there is no position: no s is left.

   Times are never compared, so the order of reading does not matter. V - 1 deletes between the
   reading of two neighbours leave a row in common; where more has changed the gap is bridged by a
   walk: one stride to the left of the page that is not anchored, doubling, then to the right.
   What walks may cost is bounded (`bridge.SPARE_PAGES`); a batch that spends it is `unproven`.
   After any sign of a change the head of the list is read once more, for what jumped there.
4. It ends. A page that repeats page 0, neighbouring offsets that share nothing, and more pages than
   `count` can explain are a `DriftError`; a count that no row confirms stops being believed.

Rows are told apart by id within a batch: the first copy delivered stands.

The phases, and what leads from one to the next; each of them may also fail::

    FIRST    -> PLAN      the first page shows how long pages are, and how many rows there are
    PLAN     -> WALK      a page is not anchored, or the end does not show
    WALK     -> PLAN      the gap is closed; or it is given up, and pages are taken as they come
    PLAN, WALK -> HEAD    at the end, if anything moved: the head is read once more
    HEAD     -> PLAN      rows changed places: the list is swept again
    any      -> COMPLETE  that was all
    COMPLETE -> PLAN      another batch shows that its last page may have been cut

`TRANSITIONS` has them all. One that is not there is a bug, and is refused as such.
"""

import enum

from ief_async._errors import IefError


class Phase(enum.Enum):
    """What a batch is doing."""

    FIRST = enum.auto()  # its first page is asked for alone, as it reveals the others
    PLAN = enum.auto()  # the pages that count explains are asked for, all at once
    WALK = enum.auto()  # one page at a time, to join what was accepted to what was not
    HEAD = enum.auto()  # the first page is read again, for what jumped there
    COMPLETE = enum.auto()  # it was read to its end
    FAILED = enum.auto()  # nothing more is read of it


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    # the first page has come; if only its count was wanted, that is all
    Phase.FIRST: frozenset({Phase.PLAN, Phase.COMPLETE, Phase.FAILED}),
    # a gap; the end, after a change; the end
    Phase.PLAN: frozenset({Phase.WALK, Phase.HEAD, Phase.COMPLETE, Phase.FAILED}),
    # joined or given up; the end, likewise
    Phase.WALK: frozenset({Phase.PLAN, Phase.HEAD, Phase.COMPLETE, Phase.FAILED}),
    # more jumped there than a walk can afford, or the list has to be swept; else the end
    Phase.HEAD: frozenset({Phase.PLAN, Phase.WALK, Phase.COMPLETE, Phase.FAILED}),
    # its last page may have been cut; an item of it can't be read
    Phase.COMPLETE: frozenset({Phase.PLAN, Phase.FAILED}),
    Phase.FAILED: frozenset(),
}


def next_phase(now: Phase, then: Phase) -> Phase:
    """Return the phase that follows, if the table has it.

    Raises:
        IefError: it does not: that is a bug.
    """
    if then is not now and then not in TRANSITIONS[now]:
        message = (
            f"a batch can't go from {now.name} to {then.name}: this is a bug of ief-async; please "
            "report it with the arguments of the scan and its report"
        )
        raise IefError(message)
    return then
