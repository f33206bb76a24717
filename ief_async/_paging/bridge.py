"""The walk that joins pages which share no row, and what it may cost. Pure."""

import enum

import attrs

from ief_async._errors import DriftError
from ief_async._paging.chain import Chain
from ief_async._paging.pages import PageAnswer
from ief_async._paging.requests import Requests

# The budget of a whole batch for pages that bring nothing new: so many, and so many more for each
# page that brought something. A long list may have long walks, and no list is read without an end.
SPARE_PAGES = 40
PAGES_EARNED = 2
SWEEPS = 3  # how often a list without an order is read again until it is all there


class Step(enum.Enum):
    """What a walk does next."""

    ASKED = enum.auto()  # a page that may join the others is asked for
    READ_ON = enum.auto()  # the gap is closed: what is behind it can be planned again
    SKIP = enum.auto()  # pages do not overlap: only the rows of the empty page can be given up
    GAP = enum.auto()  # nothing joins the pages
    TOO_FAR = enum.auto()  # the budget is spent: nothing is proven from here on


@attrs.define(eq=False, kw_only=True, repr=False)
class Bridge:
    """A walk between pages that are anchored and pages that are not.

    It begins one stride to the left of the page that is not anchored, and doubles its step until a
    page is anchored; then it goes to the right, and halves what is between.

    Attributes:
        requests: what was asked for.
        chain: the pages that were accepted.
        step: how far the next step to the left is.
        anchored: the offset of the page of this walk that was anchored last, or None.
        unanchored: the offsets of its pages that were not.
        spent: pages of the whole batch that brought nothing new, and those that walks asked for.
        earned: pages of the whole batch that brought something new.
        head_read: whether the head of the list was read again.
        sweeps: how often the whole list was read again.
    """

    requests: Requests
    chain: Chain
    step: int = 1
    anchored: int | None = None
    unanchored: set[int] = attrs.field(factory=set)
    spent: int = 0
    earned: int = 0
    head_read: bool = False
    sweeps: int = 0

    def note_page(self, *, fresh: bool) -> None:
        """Note whether a page brought something new: it pays for later walks."""
        if fresh:
            self.earned += 1
        else:
            self.spent += 1

    def begin(self) -> Step:
        """Begin a walk, to what joins the first page that waits, or to the end of the list."""
        chain, shape, last = self.chain, self.chain.shape, self.chain.last
        size = shape.given
        if last is not None and 0 < len(last.ids) < min(size, last.request.limit) and chain.waiting:
            chain.verdict.flags.clamped = True
            shape.resize(len(last.ids))
        self._restart()
        if chain.empty_from is not None:
            self.unanchored.add(chain.empty_from)
        waiting = chain.first_waiting
        offset = chain.behind
        if waiting is None and shape.last_count is not None and not shape.open_ended:
            offset = min(offset, shape.last_count - size + 1)
        elif waiting is not None and waiting < chain.edge:
            offset = waiting - shape.stride
        return self.ask(offset)

    def _restart(self) -> None:
        self.step, self.anchored, self.unanchored = self.chain.shape.stride, None, set()

    def ask(self, offset: int) -> Step:
        """Ask for one more page, if the budget of the batch has it."""
        self.chain.verdict.re_reads += 1
        self.spent += 1
        if self.spent > SPARE_PAGES + PAGES_EARNED * self.earned:
            return Step.TOO_FAR
        self.requests.repeat(offset)
        return Step.ASKED

    def note_anchored(self, answer: PageAnswer) -> None:
        """Note a page of the walk that was anchored, and accepted."""
        behind = self.chain.behind_of(answer)
        self.anchored, self.step = answer.offset, self.chain.shape.stride
        self.unanchored = {at for at in self.unanchored if at >= behind}  # the others are older

    def note_unanchored(self, answer: PageAnswer) -> None:
        """Note a page of the walk that was not anchored.

        Raises:
            DriftError: the page one row before it was: the server does not count offsets in rows.
        """
        offset = answer.offset
        self.unanchored.add(offset)
        if len(answer.ids) > 1 and self.anchored == offset - 1 and not self.chain.past_first:
            message = (
                f"the pages at offsets {offset - 1} and {offset} share no row: the server "
                "takes offset for something else, such as a page number"
            )
            raise DriftError(message)

    def go_on(self) -> Step:
        """Take the next step. There are seven cases.

        `low` is the anchored page of this walk that is furthest right, `high` the first one that
        is not anchored, and `behind` where the anchored rows end.
        """
        chain = self.chain
        behind, low, high = chain.behind, self.anchored, min(self.unanchored, default=None)
        if low is not None and not chain.waiting and (high is None or behind < high):
            return Step.READ_ON
        if high is not None and not chain.shape.overlap:
            return Step.SKIP
        if low is None:  # to the left, further each time
            offset = (high or 0) - self.step
            self.step *= 2
        elif high is None or behind < high:  # to the right, from what is anchored
            offset = max(behind, low + 1)
        elif high - low > 1:  # between them; row by row while offsets are not understood
            offset = (low + high) // 2 if chain.past_first else low + 1
        elif chain.past_first:  # what was anchored has gone since: to the left of it, anew
            self._restart()
            offset = low - self.step
        else:
            return Step.GAP
        return self.ask(offset)
