"""Many scans as one stream: whichever has something to give is next."""

import asyncio
import operator
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import attrs

from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._errors import IefError, OnError, PartialScanError, TargetFailure
from ief_async._scan.reading import Reader
from ief_async._scan.reports import ScanProgress, ScanReport
from ief_async._scan.scan import Scan

T = TypeVar("T")

PLACES = 64  # scans that run at once
PATIENCE = 1.0  # seconds for which a scan may keep its place with nothing to give
FLEET = fingerprint("scan_fleet")  # what tells a fleet's checkpoint from that of one scan


class Closing(Protocol):
    """What all scans of a fleet share, and what ends with them: their connections."""

    async def close(self) -> None:
        """Close it."""

    def abandon(self) -> None:
        """Close it from wherever the garbage collector happens to run."""


@attrs.define(eq=False, repr=False)
class Member(Generic[T]):
    """A target at work.

    Attributes:
        target: whose items it brings.
        scan: its scan.
        name: what tells it from the others in errors and reports.
        mark: likewise in checkpoints: the fingerprint of its scan where no other target has the
            same.
        over: whether nothing more comes of it.
        has_place: whether it keeps another scan from beginning.
    """

    target: Hashable
    scan: Scan[T]
    name: str
    mark: int
    over: bool = False
    has_place: bool = False


class Fleet(Generic[T]):
    """The engine of a stream over many scans. Their items come in turn, each with its target.

    What it does for an item, and what it holds, does not depend on the number of targets. So many
    scans as there are places run at once; one that is over makes room for the next one, and so does
    one that has nothing to give for a while, as it holds nothing.
    """

    of_targets = True

    def __init__(
        self,
        members: Sequence[Member[T]],
        connections: Closing,
        on_error: OnError,
        reader: Reader[T],
    ) -> None:
        self._members = members
        self._reader = reader
        self._places = PLACES  # that are free
        self._waiting = deque(members)  # that have not begun
        self._left = len(members)  # that are not over
        self._begun = False
        self._to_look_at: dict[int, Member[T]] = {}  # by their mark; served longest ago first
        self._connections = connections
        self._on_error = on_error
        self._failures: dict[Hashable, TargetFailure] = {}
        self._served: Member[T] | None = None  # whose items the consumer has in hand
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        for member in members:
            member.scan.on_change = partial(self._on_change, member)

    @property
    def reader(self) -> Reader[Any]:
        """What makes the items of all targets."""
        return self._reader

    @reader.setter
    def reader(self, reader: Reader[Any]) -> None:
        self._reader = reader
        for member in self._members:
            member.scan.reader = reader.for_target(member.target)

    def begin(self) -> None:
        """Start the first scans, unless that was done before; refuse to on another event loop."""
        for member in self._members[:1]:
            member.scan.begin()
        if not self._begun:
            self._begun = True
            for member in self._members:
                member.scan.start_deadline()
            self._fill_places()

    def _fill_places(self) -> None:
        """Begin scans while there are places."""
        while self._waiting and self._places > 0 and not self._over:
            member = self._waiting.popleft()
            self._places -= 1
            member.has_place = True
            member.scan.begin()
            asyncio.get_running_loop().call_later(PATIENCE, self._leave_place_if_idle, member)

    def _leave_place_if_idle(self, member: Member[T]) -> None:
        if not member.scan.ready and member is not self._served:
            self._leave_place(member)

    def _leave_place(self, member: Member[T]) -> None:
        """Have the next scan begin in the place of this one."""
        self._places += member.has_place
        member.has_place = False
        self._fill_places()

    def _on_change(self, member: Member[T]) -> None:
        """Have a look at a target, when its turn comes."""
        self._to_look_at.setdefault(member.mark, member)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the consumer's side -------------------------------------------------------------------

    async def next_items(self) -> Iterator[Any]:
        """Return some items of whichever target has any, each with its target; none at the end."""
        while (member := await self._choose()) is not None:
            try:
                items = await member.scan.next_items()
            except IefError as error:
                problem = error
            else:
                if operator.length_hint(items):
                    return zip(repeat(member.target), items, strict=False)
                self._note_end(member)
                continue
            await self._on_target_failed(member, problem)
        return iter(())

    async def next_whole_page(self) -> Any:
        """Return the next page of any target, or None at the end."""
        while (member := await self._choose()) is not None:
            try:
                page = await member.scan.next_whole_page()
            except IefError as error:
                problem = error
            else:
                if page is not None:
                    items = tuple(zip(repeat(member.target), page.items, strict=False))
                    checkpoint = self._checkpoint({member.mark: page.checkpoint})
                    whole: Any = page  # its items are of another type from here on
                    return attrs.evolve(whole, items=items, checkpoint=checkpoint)
                self._note_end(member)
                continue
            await self._on_target_failed(member, problem)
        return None

    def _note_end(self, member: Member[T]) -> None:
        """Have the next scan begin, if this one is over."""
        if member.scan.over and not member.over:
            member.over = True
            self._left -= 1
            self._leave_place(member)

    async def _choose(self) -> Member[T] | None:
        """Return a target that has something to give, once there is one; None at the end."""
        if (served := self._served) is not None:
            served.scan.cursor.acknowledge()
            self._to_look_at[served.mark] = self._to_look_at.pop(served.mark, served)  # at the end
            self._served = None
        while not self._over:
            while self._to_look_at:
                member = self._to_look_at.pop(next(iter(self._to_look_at)))
                if not member.over and member.scan.ready:
                    self._served = member
                    return member
            if not self._left:
                await self._end()
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return None

    async def _on_target_failed(self, member: Member[T], error: IefError) -> None:
        """Note that a target failed, or end all of them if that is the policy."""
        error.add_note(f"In target {member.name}.")
        if self._on_error == "raise" or member.scan.fatal:
            await self.aclose()
            self._raise(error)
        self._failures[member.target] = TargetFailure(member.name, error)

    # -- the end -------------------------------------------------------------------------------

    async def _end(self) -> None:
        await self.aclose()
        if self._failures and self._on_error == "defer":
            message = (
                f"{len(self._failures)} of {len(self._members)} targets failed, wholly or in part; "
                "all others were delivered; resume from .checkpoint to read what is missing"
            )
            self._raise(PartialScanError(message, list(self._failures.values())))

    def _raise(self, error: IefError) -> NoReturn:
        error.checkpoint = self.checkpoint()
        try:
            raise error
        finally:
            del error  # it holds this frame, which would hold it: a cycle

    def cancel(self, error: BaseException | None = None) -> None:
        """End all scans, maybe by an error, without waiting for their tasks."""
        self._cancel(error)
        self._connections.abandon()

    def _cancel(self, error: BaseException | None = None) -> None:
        self._over = True
        for member in self._members:
            member.scan.cancel(error if member is self._served else None)
        self._wake()

    def abandon(self) -> None:
        """End all scans from wherever the garbage collector happens to run."""
        self._over = True
        for member in self._members:
            member.scan.abandon()
        self._connections.abandon()

    async def aclose(self) -> None:
        """End all scans, and wait until no task of them runs and every connection is closed."""
        self._cancel()
        cancelled: asyncio.CancelledError | None = None
        for member in self._members:
            try:
                await member.scan.aclose()
            except asyncio.CancelledError as error:  # the others end all the same
                cancelled = cancelled or error
        await self._connections.close()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it holds this frame, which would hold it: a cycle

    # -- what is known -------------------------------------------------------------------------

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is finished with, of each target."""
        return self._checkpoint({})

    def _checkpoint(self, given: Mapping[int, ScanCheckpoint | None]) -> ScanCheckpoint:
        """Return the checkpoint of all targets; of some it may be given, by their mark."""
        targets = tuple(
            attrs.evolve(given.get(one.mark) or one.scan.cursor.checkpoint(), scan=one.mark)
            for one in self._members
        )
        return ScanCheckpoint(scan=FLEET, parts=(), targets=targets)

    def progress(self) -> ScanProgress:
        """Return how far all targets are together."""
        all_of = [member.scan.progress() for member in self._members]
        expected = [one.expected_items for one in all_of]
        known = [number for number in expected if number is not None]
        return ScanProgress(
            batches=sum(one.batches for one in all_of),
            pages=sum(one.pages for one in all_of),
            items=sum(one.items for one in all_of),
            expected_items=sum(known) if len(known) == len(expected) else None,
            retries=sum(one.retries for one in all_of),
            elapsed=max((one.elapsed for one in all_of), default=0.0),
        )

    def _all_failures(self, reports: Mapping[Any, ScanReport]) -> tuple[TargetFailure, ...]:
        """Return the targets that failed; with "collect" their scans raise nothing."""
        failures = dict(self._failures)
        for member in self._members:
            target, report = member.target, reports[member.target]
            if report.failures and target not in failures:
                message = f"{len(report.failures)} batches failed, all others were delivered"
                error = PartialScanError(message, report.failures)
                failures[target] = TargetFailure(member.name, error)
        return tuple(failures.values())

    def report(self) -> ScanReport:
        """Return what all targets came to, and each."""
        targets = {member.target: member.scan.report() for member in self._members}
        reports = targets.values()
        return ScanReport(
            batches=tuple(chain.from_iterable(report.batches for report in reports)),
            failures=self._all_failures(targets),
            unknown_fields=_total(report.unknown_fields for report in reports),
            unknown_values=_total(report.unknown_values for report in reports),
            pages=sum(report.pages for report in reports),
            items=sum(report.items for report in reports),
            bad_items=sum(report.bad_items for report in reports),
            unknown_model_fields=_in_all(report.unknown_model_fields for report in reports),
            model_errors=_total(report.model_errors for report in reports),
            retries=sum(report.retries for report in reports),
            elapsed=max((report.elapsed for report in reports), default=0.0),
            most_pages=sum(report.most_pages for report in reports),
            most_bytes=sum(report.most_bytes for report in reports),
            complete=not self._failures and all(report.complete for report in reports),
            targets=targets,
        )


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up what was counted by name."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _in_all(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the names that stand in every one of these."""
    first, *others = [*names] or [()]
    return tuple(one for one in first if all(one in other for other in others))
