"""Lists, servers that answer for them in any order, and a patient consumer: no network, no time."""

import random

import attrs
from hypothesis import strategies as st

from ief_async._paging.batches import Batch, Query
from ief_async._paging.pages import PageRequest
from ief_async._paging.scan_plan import ScanPlan

QUERY = Query("deployment_ids", ("d",))


def names(count, prefix="p"):
    """Return this many ids."""
    return [f"{prefix}{number}" for number in range(count)]


@attrs.define
class Server:
    """A list, and the ways in which a server may answer for it."""

    rows: list[str]
    cap: int = 10**9
    count: object = "true"  # "true", "none", "page", or the number that is always said
    hidden: frozenset[str] = frozenset()  # cut out of every slice after it was made
    ignores: str = ""  # "offset" or "limit"
    empties: dict[int, int] = attrs.field(factory=dict)  # offset -> how often it comes empty
    changes: random.Random | None = None  # if given, rows come and go between the answers
    asked: int = 0

    def answer(self, request):
        """Answer as the service does: what is counted, and a slice of the list."""
        self.asked += 1
        self.change()
        limit = 10**9 if self.ignores == "limit" else min(request.limit, self.cap)
        offset = 0 if self.ignores == "offset" else request.offset
        page = [row for row in self.rows[offset : offset + limit] if row not in self.hidden]
        if self.empties.get(request.offset, 0) > 0:
            self.empties[request.offset] -= 1
            page = []
        said = {"true": len(self.rows), "none": None, "page": len(page)}
        return said.get(self.count, self.count), page

    def change(self):
        """Delete a row or insert one, at a random place."""
        if self.changes is not None:
            place = self.changes.randrange(len(self.rows) + 1)
            if self.changes.random() < 0.5:
                self.rows[place:place] = [f"new{self.asked}"]
            else:
                del self.rows[place : place + 1]


def drive(servers, *, seed=0, patience=1.0, **options):
    """Scan these lists; return (batch, id) as delivered, the plan, and the widest window."""
    chance = random.Random(seed)
    plan = ScanPlan(**{"limit": 10, "concurrency": 4, "ordered": True} | options)
    in_flight, lists, delivered, window = [], iter(servers), [], 0
    while not plan.done:
        while isinstance(request := plan.next_request(), PageRequest):
            in_flight.append(request)
        assert len(in_flight) <= plan.concurrency
        window = max(window, len(in_flight) + plan._open.held)
        if plan.wants_batch:
            if next(lists, None) is None:
                plan.closed = True
            else:
                plan.add(Batch(QUERY))
        elif in_flight and (plan._next_ready() is None or chance.random() < patience):
            request = in_flight.pop(chance.randrange(len(in_flight)))
            count, page = servers[request.batch].answer(request)
            plan.receive(request, count, page, page)
        else:
            accepted = plan.take()
            assert accepted is not None, "nothing in flight, nothing ready, and not at the end"
            plan.acknowledge(accepted)
            delivered += [(accepted.request.batch, accepted.page[at]) for at in accepted.positions]
    return delivered, plan, window


def read(server, **options):
    """Scan one list; return the ids in the order of their delivery, and the report."""
    delivered, plan, _ = drive([server], **options)
    return [row for _, row in delivered], plan.reports()[0]


any_order = {
    "concurrency": st.integers(1, 6),
    "seed": st.integers(0, 2**32),
    "patience": st.sampled_from([0.1, 0.5, 1.0]),
}
