"""One batch: asks for its pages, takes the answers, and says what came of it. Pure.

It puts together five things, each with a module of its own, under the laws of `phases`: `Requests`
(what to ask for next), `Shape` (page size, overlap, counts), `Chain` (what was accepted), `Bridge`
(the walk over a gap) and `Verdict` (counts and flags); `Delivery` has what the consumer gets of it.
"""

from collections.abc import Sequence

import attrs

from ief_async._checkpoint import Mark
from ief_async._errors import DriftError, OnDrift
from ief_async._paging.batches import Query
from ief_async._paging.bridge import SWEEPS, Bridge, Step
from ief_async._paging.chain import Chain
from ief_async._paging.delivery import START, Delivery
from ief_async._paging.pages import PageAnswer, PageRequest
from ief_async._paging.phases import Phase, next_phase
from ief_async._paging.requests import Requests, Signal
from ief_async._paging.shape import Shape
from ief_async._paging.verdict import BatchReport, Verdict


@attrs.define(eq=False, kw_only=True, repr=False)
class BatchPlan:
    """One batch from page 0 to its end: answered in any order, accepted in the list's order.

    Attributes:
        number: as errors and reports name it.
        place: where its ids stand among all; the halves of a batch that is split keep its place.
        query: what it asks for.
        shape: the page size, the overlap and the counts.
        on_drift: what to do about a list that moves.
        look_ahead: pages that may be asked for at once where no count helps.
        count_only: page 0 is asked for its count, and nothing more.
        resumed_from: where a checkpoint goes on with it.
        phase: what it is doing.
        verdict: what it came to.
        chain: the pages that were accepted.
        requests: what was asked for.
        bridge: the walk that joins pages which share no row.
        delivery: the pages on their way to the consumer.
    """

    number: int
    place: tuple[int, ...]
    query: Query
    shape: Shape
    on_drift: OnDrift = "repair"
    look_ahead: int = 1
    count_only: bool = False
    resumed_from: Mark = START
    phase: Phase = attrs.field(default=Phase.FIRST, init=False)
    verdict: Verdict = attrs.field(factory=Verdict, init=False)
    chain: Chain = attrs.field(init=False)
    requests: Requests = attrs.field(init=False)
    bridge: Bridge = attrs.field(init=False)
    delivery: Delivery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chain = chain = Chain(shape=self.shape, verdict=self.verdict)
        if self.resumed_from.offset:
            chain.resume(self.resumed_from, self.number, self.query)
        self.requests = requests = Requests(
            number=self.number,
            query=self.query,
            chain=chain,
            look_ahead=self.look_ahead,
            next_offset=chain.first_offset,
        )
        self.bridge = Bridge(requests=requests, chain=chain)
        self.delivery = Delivery(chain=chain, mark=self.resumed_from)

    def _go(self, phase: Phase) -> None:
        self.phase = next_phase(self.phase, phase)

    # -- what is known ---------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether it was read to its end."""
        return self.phase is Phase.COMPLETE

    @property
    def over(self) -> bool:
        """Whether nothing more is read of it."""
        return self.phase is Phase.COMPLETE or self.phase is Phase.FAILED

    @property
    def expected(self) -> int | None:
        """How many rows this reading brings by its count, once that is known."""
        count = self.shape.count
        known = count is not None and (self.shape.size is not None or self.count_only)
        return max(0, (count or 0) - self.chain.resumed_at) if known else None

    @property
    def promised(self) -> int:
        """How many rows it will bring without another request, if its count is right."""
        return self.requests.promised(planned=self.phase is Phase.PLAN)

    def report(self) -> BatchReport:
        """Return what reading the batch came to, or has come to so far."""
        return self.verdict.report(
            self.number, self.query.ids, self.shape.count, self.shape.size, complete=self.complete
        )

    # -- asking and receiving --------------------------------------------------------------------

    def next_request(self, wanted: int | None = None) -> PageRequest | Signal:
        """Say which page to ask for now.

        `wanted` is how many rows of this batch are needed at all; None: every one.
        """
        if self.over:
            return Signal.DONE
        more = None if wanted is None else wanted - self.promised
        return self.requests.next(more, planned=self.phase is Phase.PLAN)

    def receive(
        self, request: PageRequest, count: int | None, ids: Sequence[str], page: object
    ) -> None:
        """Take one answer. What it makes deliverable becomes ready, in the list's order.

        Raises:
            DriftError: the list does not end, or what it answers makes no sense; with
                ``on_drift="raise"`` also: the batch was read to its end, and rows are in doubt.
        """
        self.requests.in_flight.discard(request.offset)
        if self.over:
            return
        self.shape.note_count(count)
        if self.count_only:
            self._go(Phase.COMPLETE)
            return
        answer = PageAnswer(request, count, ids, page)
        self.shape.note_length(answer)
        if self.chain.repeats_first(answer):
            self.chain.ended = True
        elif not ids and self.requests.repeats_empty(answer):
            self.verdict.re_reads += (count or 0) > request.offset
            return
        else:
            if self.phase is Phase.FIRST:
                self.requests.learn(answer)
                self._go(Phase.PLAN)
            self._handle(answer)
        self._advance()

    def _handle(self, answer: PageAnswer) -> None:
        """Do with an answer what the phase asks for. There are six cases."""
        if not answer.ids and answer.offset == 0:
            self.chain.ended = True
        elif answer.offset == self.requests.probe:
            self._look_behind(answer)
        elif self.phase is Phase.HEAD:
            self._look_at_head(answer)
        elif self.phase is Phase.WALK:
            self._walk_on(answer)
        elif answer.ids:
            self.chain.wait(answer)
        else:
            self.chain.note_empty(answer.offset)

    # -- accepting -------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Accept each page whose turn has come; then wait, bridge a gap, or come to the end."""
        requests = self.requests
        while (answer := requests.pop_anchored(planned=self.phase is Phase.PLAN)) is not None:
            self._accept(answer)
        if self.chain.ended and not (self.shape.open_ended and requests.in_flight):
            self._conclude()  # where no count helps, what is in flight may know better
        elif requests.pending:
            return
        elif self.phase is Phase.WALK:
            self._follow(self.bridge.go_on())
        elif self.phase is not Phase.PLAN or requests.next_offset >= requests.horizon():
            self._seek()

    def _accept(self, answer: PageAnswer) -> None:
        """Deliver a page, and see whether the list ends with it."""
        chain, shape = self.chain, self.shape
        counted = answer.count is not None and answer.end >= answer.count
        chain.find_rows_before(answer, self.delivery.mark.anchors)
        fresh = self._deliver(answer, proven=chain.proof)
        chain.append(answer)
        self.verdict.re_reads += self.bridge.sweeps > 0
        short = len(answer.ids) < min(shape.given, answer.request.limit)
        whole = counted and not shape.overlap and not shape.open_ended
        swept = self.bridge.sweeps > 0 and chain.counted
        if short and counted and shape.is_cut(answer):
            short = False
            self.requests.look_behind(answer)
        if (short and (counted or answer.count is None)) or whole or swept:
            chain.ended = True
        elif fresh:
            chain.ended = False
        else:
            self.requests.probe_behind(answer, short=short)
        chain.note_progress(answer, fresh=fresh, planned=self.phase is Phase.PLAN)

    def _deliver(self, answer: PageAnswer, *, proven: bool) -> bool:
        """Make the new rows of a page ready; tell whether there are any."""
        fresh = self.delivery.add(answer, proven=proven)
        self.bridge.note_page(fresh=fresh)
        return fresh

    def _look_behind(self, answer: PageAnswer) -> None:
        """Take what is behind a page that brought nothing and should have shown the end.

        There are four cases: rows that follow what was accepted; rows that don't, so pages are
        shorter than known; nothing, below the count; nothing, as it should be.
        """
        chain, requests = self.chain, self.requests
        requests.probe = None
        if answer.ids and chain.anchors(answer):
            self._accept(answer)
        elif answer.ids:
            self.verdict.flags.clamped = True
            self._go(Phase.PLAN)
            requests.plan_shorter()
        elif (answer.count or 0) > answer.offset and not chain.waiting:
            chain.end_below_count()  # its count lies; a list that shrank would count less

    # -- bridging --------------------------------------------------------------------------------

    @property
    def _repairs(self) -> bool:
        return self.on_drift in {"repair", "raise"}

    def _seek(self) -> None:
        """Look for what joins the first page that waits, or for the end of a list that shrank.

        There are four cases. Nothing can be proven: take what there is. The caller wants no
        repairs: likewise, with a flag. Pages don't overlap, and one stayed empty: that is the end.
        Anything else: a walk.
        """
        chain, overlap = self.chain, self.shape.overlap
        nothing_to_join = not (chain.ids or chain.waiting)
        if not chain.proof or nothing_to_join:
            self._conclude()
        elif overlap and not self._repairs:
            self._follow(Step.GAP if chain.waiting else Step.TOO_FAR)
        elif not overlap and not chain.waiting and chain.empty_from is not None:
            chain.end_below_count()
            self._conclude()
        else:
            self._go(Phase.WALK)
            self._follow(self.bridge.begin())

    def _walk_on(self, answer: PageAnswer) -> None:
        """Take the answer to a step of the walk."""
        self.bridge.head_read |= answer.offset == 0
        if self.chain.anchors(answer):
            self._accept(answer)
            self.bridge.note_anchored(answer)
        else:
            self.bridge.note_unanchored(answer)

    def _follow(self, step: Step) -> None:
        """Do what a step of the walk leads to."""
        chain, flags = self.chain, self.verdict.flags
        if step is Step.ASKED:
            return
        self._go(Phase.PLAN)
        if step is Step.READ_ON:
            self.requests.read_on()
        elif step is Step.SKIP:
            self._skip_empty()
        else:  # take pages as they come from here on: what joins them is not to be found
            flags.gap |= step is Step.GAP
            flags.unproven |= step is Step.TOO_FAR
            chain.proof = False
            self._advance()

    def _skip_empty(self) -> None:
        """Give up the rows of a page that stays empty: nothing but offsets is known here."""
        chain = self.chain
        if chain.first_waiting is not None:
            self.verdict.flags.gap = True
            chain.edge = chain.first_waiting
            self._advance()
        else:
            chain.end_below_count()
            self._conclude()

    # -- ending ----------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """Deliver what is left; then say how it goes on. There are four cases.

        Something moved: read the head once more. Rows changed places: sweep the list again. The
        last page may have been cut, as was seen since it came: read on. Else that was all.
        """
        chain, bridge = self.chain, self.bridge
        for offset in sorted(chain.waiting):
            self._deliver(chain.waiting.pop(offset), proven=False)
        if self._repairs and chain.head_may_have_moved and not bridge.head_read:
            self._go(Phase.HEAD)
            bridge.head_read = True
            self.verdict.re_reads += 1
            self.requests.repeat(0)
        elif self._repairs and chain.lacks_counted_rows and bridge.sweeps < SWEEPS:
            self._go(Phase.PLAN)
            chain.proof = chain.ended = False
            bridge.sweeps += 1
            self.requests.next_offset, chain.empty_from = 0, None
        elif chain.tail is not None and chain.is_cut:
            self._read_on(chain.tail)
        else:
            self._finish()

    def _look_at_head(self, answer: PageAnswer) -> None:
        """Take what stands before the rows of the old page 0, which keep their order."""
        chain, verdict = self.chain, self.verdict
        first = chain.first.ids if chain.first is not None else ()
        chain.compare_order(first, answer.ids)
        dropped, chain.last = verdict.duplicates, None
        fresh = self._deliver(answer, proven=False)
        verdict.duplicates = dropped
        chain.ended = not fresh or not set(first).isdisjoint(answer.ids)
        if not chain.ended:
            self._follow(self.bridge.ask(max(answer.offset + 1, chain.behind_of(answer))))

    def _finish(self) -> None:
        """Close the batch, judge it, and free what was held to tell its rows apart."""
        self.chain.judge(self.on_drift)
        if self.on_drift == "raise" and self.verdict.drift == "unknown":
            self.chain.positions_lost = True
            self.fail()
            message = (
                "the list moved in a way that leaves rows in doubt "
                f"({', '.join(self.verdict.flags.names())}); "
                'scan again, or take what came with on_drift="repair"'
            )
            raise DriftError(message)
        self._go(Phase.COMPLETE)
        if not self.may_be_cut:
            self.release()

    @property
    def may_be_cut(self) -> bool:
        """Whether it ended with a page that may have been cut: see `doubt`."""
        return self.complete and self.chain.may_be_cut

    def doubt(self) -> None:
        """Read on behind the last page, as it may have been cut, though it looked like the end."""
        self.verdict.drift = "unknown"
        if self.chain.tail is not None:
            self._read_on(self.chain.tail)

    def _read_on(self, tail: PageAnswer) -> None:
        self._go(Phase.PLAN)
        self.chain.last, self.chain.ended = tail, False  # the head has no page behind it
        self.requests.look_behind(tail)

    def fail(self, *, unread: int | None = None) -> None:
        """Read nothing more; if so many rows that were taken stay unread, so do those behind."""
        self._go(Phase.FAILED)
        self.release()
        if unread is not None:
            self.verdict.items -= unread + self.delivery.discard()

    def release(self) -> None:
        """Free what only reading on needs."""
        self.requests.again.clear()
        self.chain.release()
