"""How long the pages of a list are, how far they overlap, and how many rows are counted. Pure."""

import attrs

from ief_async._paging.pages import PageAnswer
from ief_async._paging.verdict import Flags

OVERLAP = 5  # rows, at the least; a hundredth of the page if that is more
OVERLAP_SHARE = 4  # never more than this part of a page as the server gives it


def overlap_of(limit: int, given: int) -> int:
    """Return how many rows pages share, if `limit` are asked for and the server gives `given`."""
    return 0 if given <= 1 else max(1, min(max(OVERLAP, limit // 100), given // OVERLAP_SHARE))


def requests_for(count: int, limit: int) -> int:
    """Return how many requests a calm list takes.

    An empty list, and one that is exactly one page long, take a second request to be sure.
    """
    overlap = overlap_of(limit, limit)
    if count in {0, limit}:
        return 2
    if not overlap:  # pages of one row
        return count
    return max(1, (count - overlap) // (limit - overlap) + 1)


@attrs.define
class PageCap:
    """How long the pages of a list are at most, as far as a session has seen.

    Attributes:
        longest: the most rows that came where more were asked for.
        shown: whether an answer held fewer rows than were asked for while more followed.
    """

    longest: int = 0
    shown: bool = False

    def note(self, rows: int, *, shows: bool) -> None:
        """Note a page that is shorter than was asked for."""
        self.longest = max(self.longest, rows)
        self.shown |= shows

    def may_hold(self, rows: int) -> bool:
        """Tell whether a page of so many rows may have been cut."""
        return self.shown and rows >= self.longest


@attrs.define(eq=False, kw_only=True, repr=False)
class Shape:
    """The page size, the overlap and the counts of one batch, as far as its answers have shown.

    Attributes:
        limit: rows to ask for.
        cap: how long the pages of this list are at most; all scans of a session share it.
        overlaps: whether neighbouring pages are to overlap.
        size: rows of a page as the server gives them; None before the first page came.
        overlap: rows that neighbouring pages share.
        longest: the most rows that a page had.
        count: the largest count seen.
        first_count: the count of the first page.
        last_count: the count seen last.
        least_count: the smallest count seen.
        open_ended: rows may follow that no count explains.
    """

    limit: int
    cap: PageCap = attrs.field(factory=PageCap)
    overlaps: bool = True
    size: int | None = None
    overlap: int = 0
    longest: int = 0
    count: int | None = None
    first_count: int | None = None
    last_count: int | None = None
    least_count: int | None = None
    open_ended: bool = False

    @property
    def given(self) -> int:
        """Rows of a page as the server gives them, or as they are asked for while that is open."""
        return self.size or self.limit

    @property
    def stride(self) -> int:
        """How far the offsets of neighbouring pages are apart."""
        return self.given - self.overlap

    @property
    def count_is_constant(self) -> bool:
        """Whether every answer counted the same, or none counted."""
        return self.least_count == self.count

    def note_count(self, count: int | None) -> None:
        """Note what an answer counted."""
        if count is None:
            return
        self.last_count = count
        self.count = max(count, self.count or 0)
        self.least_count = min(count, self.count if self.least_count is None else self.least_count)

    def note_length(self, answer: PageAnswer) -> None:
        """Note how long a page is; one that is short while more follows shows a cap."""
        rows = len(answer.ids)
        self.longest = max(self.longest, rows)
        if answer.is_short:
            self.cap.note(rows, shows=answer.count is not None and answer.count > answer.end)

    def learn(self, answer: PageAnswer, flags: Flags) -> None:
        """Learn the size of pages from the first one. There are three cases.

        A page that is longer than was asked for: the server ignores `limit`. A short page that is
        not the whole list by its count, or is just as long as a cap that the list has shown: a cap.
        Anything else: the size that was asked for.
        """
        given, count = len(answer.ids), answer.count
        if answer.is_short and count is not None and count > answer.end:
            flags.clamped = True
        capped = answer.is_short and (count != answer.end or self.cap.may_hold(given))
        longer = given > answer.request.limit
        if longer:
            flags.limit_ignored = True
        self.resize(given if capped or longer else self.limit)
        self.first_count = count
        full = capped or answer.end >= answer.request.limit
        self.open_ended = count is None or count < answer.end or (count == answer.end and full)

    def resize(self, size: int) -> None:
        """Take this for the size of pages from now on."""
        self.size = size
        self.overlap = overlap_of(self.limit, size) if self.overlaps else 0

    def may_be_cut(self, answer: PageAnswer) -> bool:
        """Tell whether a short page may have been cut: no page was longer, nor known to be."""
        rows = len(answer.ids)
        return answer.is_short and rows >= self.longest and rows < self.given

    def is_cut(self, answer: PageAnswer) -> bool:
        """Tell whether a short page is as long as the longest that the list is known to give."""
        return self.may_be_cut(answer) and self.cap.may_hold(len(answer.ids))
