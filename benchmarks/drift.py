"""How right a scan is while its list moves: `iter_pods`' planner beside the usual loops.

No network: each reader asks a simulated list, which changes while it is read. Time goes in ticks, a
round trip each: all requests that are in flight together are answered within one tick, in random
order, and the changes of the tick fall between them. A survivor is a row that was there from the
first answer to the last. Compared are

* naive, one page after the other: ``offset += limit`` until a page comes short;
* naive, concurrent: page 0, then all offsets that its count explains, eight at a time;
* the planner of `ief_async`, as `iter_pods` drives it, eight requests in flight.

Printed for each scenario: the trials that lost a survivor (for the planner: in all, and without a
word, that is with the verdict "exact" or "repaired"), rows delivered twice, the trials that it
flagged (verdict "unknown", or a `DriftError`), and its requests against the fewest that a calm list
of 2,000 rows takes from such a server.

Not measured: time, and servers that lie in several ways at once. Where rows that stay may move, no
reader of offsets can be right; those scenarios stand apart.
"""

import argparse
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import attrs

from ief_async import DriftError
from ief_async._checkpoint import Mark
from ief_async._paging.batches import Batch, Query
from ief_async._paging.pages import PageRequest
from ief_async._paging.scan_plan import ScanPlan
from ief_async._paging.shape import requests_for

LIMIT = 100
IN_FLIGHT = 8
QUERY = Query("deployment_ids", ("d",))
MANY_PAGES = 20
WORST_CALM = 1.1
WORST_MEAN = 1.3

Count = Callable[[int, int, random.Random], int | None]


@attrs.frozen(kw_only=True)
class Scenario:
    """What happens in a tick, and how the server answers."""

    rows: int = 2_000
    limit: int = 100
    mu: float = 0.0  # changes a tick
    deletes: float = 0.5  # their share of the changes
    at: str = "anywhere"  # where inserts go
    bursts: float = 0.0  # chance a tick that 50 to 300 neighbours vanish
    rolling: str = ""  # where new rows go when 50 to 300 random ones are replaced
    moving: str = ""  # where a row jumps to, three times in ten ticks
    cap: int = 10**9
    hidden: int = 0  # every so many-th row is cut out of its page
    empty: float = 0.0  # share of pages that come empty
    cached: float = 0.0  # share of pages that are page 0
    lag: int = 1  # states of the list that may answer
    repeated: bool = False  # each tenth row stands twice
    order: str = ""  # "shuffled" or "ties", for each request anew
    count: str = "true"
    offsets: str = "rows"  # or "ignored", or "pages"
    stops: float = 0.0  # chance a tick that the planner's reader stops, and resumes


CALM = {"calm": Scenario()}
MOVING = {
    **{f"{mu:g} changes a tick": Scenario(mu=mu) for mu in (0.05, 0.2, 1, 3, 10)},
    "deletes": Scenario(mu=1, deletes=1),
    "inserts at the head": Scenario(mu=1, deletes=0, at="head"),
    "inserts at the tail": Scenario(mu=1, deletes=0, at="tail"),
    "bursts of deletes": Scenario(bursts=0.1),
    "rolling, new at the head": Scenario(mu=0.5, rolling="head"),
    "rolling, new at the tail": Scenario(mu=0.5, rolling="tail"),
    "rolling, new anywhere": Scenario(mu=0.5, rolling="anywhere"),
    "20,000 rows, 5 changes": Scenario(rows=20_000, limit=1_000, mu=5),
}
ODD = {
    "clamp to 50": Scenario(mu=0.2, cap=50),
    "clamp to 10": Scenario(mu=0.2, cap=10),
    "a tenth hidden": Scenario(mu=0.2, hidden=10),
    "empty pages": Scenario(mu=0.2, empty=0.05),
    "pages from a cache": Scenario(mu=0.2, cached=0.05),
    "replicas that lag": Scenario(mu=0.2, lag=5),
    "rows that stand twice": Scenario(mu=0.2, repeated=True),
    "count 37 too high": Scenario(mu=0.2, count="high"),
    "count 37 too low": Scenario(mu=0.2, count="low"),
    "count 0": Scenario(mu=0.2, count="zero"),
    "count of the page": Scenario(mu=0.2, count="page"),
    "count that jitters": Scenario(mu=0.2, count="jitter"),
    "no count": Scenario(mu=0.2, count="none"),
    "offset ignored": Scenario(mu=0.2, offsets="ignored"),
    "offset as page number": Scenario(mu=0.2, offsets="pages"),
}
RESUMED = {
    "resumed": Scenario(mu=0.2, stops=0.3),
    "resumed, 3 changes": Scenario(mu=3, stops=0.3),
    "resumed, deletes": Scenario(mu=1, deletes=1, stops=0.3),
    "resumed, clamp to 10": Scenario(rows=200, mu=0.2, cap=10, stops=0.3),
    "one row a page": Scenario(rows=100, limit=1, mu=0.2),
    "clamp to 1": Scenario(rows=100, mu=0.2, cap=1),
    "one row, resumed": Scenario(rows=100, limit=1, mu=0.5, deletes=1, stops=0.3),
    "clamp to 1, resumed": Scenario(rows=100, mu=0.5, deletes=1, cap=1, stops=0.3),
}
UNORDERED = {
    "shuffled": Scenario(order="shuffled"),
    "ties of three": Scenario(order="ties"),
    "ties, 0.2 changes": Scenario(mu=0.2, order="ties"),
    "rows jump to the head": Scenario(mu=0.2, moving="head"),
    "rows jump anywhere": Scenario(mu=0.2, moving="anywhere"),
}
ALL = CALM | MOVING | ODD | RESUMED | UNORDERED
COUNTS: dict[str, Count] = {
    "true": lambda total, _, __: total,
    "high": lambda total, _, __: total + 37,
    "low": lambda total, _, __: total - 37,
    "zero": lambda _, __, ___: 0,
    "page": lambda _, page, __: page,
    "jitter": lambda total, _, chance: total + chance.randint(-5, 5),
    "none": lambda _, __, ___: None,
}


class MovingList:
    """A list, its changes, and the answers of its server."""

    def __init__(self, scenario: Scenario, chance: random.Random) -> None:
        self.scenario = scenario
        self.chance = chance
        self.rows = [f"p{number}" for number in range(scenario.rows)]
        self.survivors = set(self.rows)
        self.requests = 0
        self._inserted = 0
        self._states: deque[list[str]] = deque(maxlen=scenario.lag)

    def _place(self, where: str) -> int:
        ends = {"head": 0, "tail": len(self.rows)}
        return ends.get(where, self.chance.randint(0, len(self.rows)))

    def _insert(self, where: str) -> None:
        self.rows.insert(self._place(where), f"new{self._inserted}")
        self._inserted += 1

    def _delete(self, number: int = 1) -> None:
        if self.rows:
            at = self.chance.randrange(len(self.rows))
            self.survivors.difference_update(self.rows[at : at + number])
            del self.rows[at : at + number]

    def change(self, share: float) -> None:
        """Let this share of a tick go by."""
        scenario, chance = self.scenario, self.chance
        for _ in range(self._poisson(scenario.mu * share)):
            if chance.random() < scenario.deletes:
                self._delete()
            else:
                self._insert(scenario.at)
        if chance.random() < scenario.bursts * share:
            self._delete(chance.randint(50, 300))
        if scenario.rolling and chance.random() < 0.1 * share:
            number = chance.randint(50, 300)
            for _ in range(number):
                self._delete()
            for _ in range(number):
                self._insert(scenario.rolling)
        if scenario.moving and self.rows and chance.random() < 0.3 * share:
            row = self.rows.pop(chance.randrange(len(self.rows)))
            self.rows.insert(self._place(scenario.moving), row)

    def _poisson(self, mean: float) -> int:
        least, number, product = math.exp(-mean), 0, self.chance.random()
        while product > least:
            number += 1
            product *= self.chance.random()
        return number

    def _ordered(self, rows: list[str]) -> list[str]:
        if self.scenario.order == "shuffled":
            return self.chance.sample(rows, len(rows))
        if self.scenario.order == "ties":
            ties = (rows[at : at + 3] for at in range(0, len(rows), 3))
            return [row for tie in ties for row in self.chance.sample(tie, len(tie))]
        if self.scenario.repeated:
            return [row for row in rows for _ in range(1 + row.endswith("7"))]
        return rows

    def answer(self, offset: int, limit: int) -> tuple[int | None, list[str]]:
        """Answer a request by what the list is now, or was."""
        self.requests += 1
        scenario, chance = self.scenario, self.chance
        rows = self.rows
        if scenario.lag > 1:
            self._states.append(list(rows))
            rows = chance.choice(self._states)
        rows = self._ordered(rows)
        first = {"rows": offset, "ignored": 0, "pages": offset * limit}[scenario.offsets]
        first = 0 if chance.random() < scenario.cached else first
        page = rows[first : first + min(limit, scenario.cap)]
        if scenario.hidden:
            page = [row for row in page if not self._is_hidden(row)]
        if chance.random() < scenario.empty:
            page = []
        return COUNTS[scenario.count](len(rows), len(page), chance), page

    def _is_hidden(self, row: str) -> bool:
        return bool(self.scenario.hidden) and row.endswith("3")

    def lost(self, delivered: list[str]) -> bool:
        """Tell whether a survivor that the server shows at all is not among these."""
        visible = {row for row in self.survivors if not self._is_hidden(row)}
        return not visible <= set(delivered)


def one_by_one(moving: MovingList) -> list[str]:
    """Read page after page until one is short: the loop that is written first."""
    limit, delivered = moving.scenario.limit, list[str]()
    for offset in range(0, 2 * moving.scenario.rows, limit):
        _, page = moving.answer(offset, limit)
        delivered += page
        if len(page) < limit:
            break
        moving.change(1)
    return delivered


def all_at_once(moving: MovingList) -> list[str]:
    """Read page 0, and then all pages that its count explains, eight in flight."""
    limit = moving.scenario.limit
    count, delivered = moving.answer(0, limit)
    offsets = list(range(limit, count or 0, limit))
    for at in range(0, len(offsets), IN_FLIGHT):
        together = offsets[at : at + IN_FLIGHT]
        for offset in moving.chance.sample(together, len(together)):
            moving.change(1 / len(together))
            delivered += moving.answer(offset, limit)[1]
    return delivered


@attrs.frozen
class Reading:
    """What the planner made of one list: what each scan delivered, until one was not stopped."""

    scans: list[list[str]]
    flagged: bool

    @property
    def delivered(self) -> list[str]:
        """What all of them delivered."""
        return [row for scan in self.scans for row in scan]

    @property
    def repeated(self) -> int:
        """How many rows one scan delivered that it had delivered before."""
        return sum(len(scan) - len(set(scan)) for scan in self.scans)


def planned(moving: MovingList, *, log: bool = False) -> Reading:
    """Read as `iter_pods` does, and resume where a scan was stopped."""
    scans: list[list[str]] = []
    mark: Mark | None = Mark()
    while mark is not None:
        plan = ScanPlan(concurrency=IN_FLIGHT, ordered=True, limit=moving.scenario.limit)
        plan.add(Batch(QUERY, mark))
        plan.closed = True
        scans.append([])
        try:
            mark = scanned(moving, plan, scans[-1], log=log)
        except DriftError as error:
            if log:
                print(error)
            return Reading(scans, flagged=True)
        (report,) = plan.reports()
        if log:
            print(report)
        if report.complete and report.drift == "unknown":
            return Reading(scans, flagged=True)
    return Reading(scans, flagged=False)


def scanned(moving: MovingList, plan: ScanPlan, delivered: list[str], *, log: bool) -> Mark | None:
    """Read to the end, or until the scan is stopped: then return where it goes on."""
    while requests := list(_asked(plan)):
        moving.chance.shuffle(requests)
        for request in requests:
            moving.change(1 / len(requests))
            count, page = moving.answer(request.offset, request.limit)
            if log:
                ends = (page[0], page[-1]) if page else ()
                print(request.offset, request.limit, "->", count, len(page), *ends)
            plan.receive(request, count, page, page)
        while (accepted := plan.take()) is not None:
            delivered += [accepted.page[at] for at in accepted.positions]
            plan.acknowledge(accepted)
        if moving.scenario.stops and moving.chance.random() < moving.scenario.stops:
            return plan.entries()[0].mark
    return None


def _asked(plan: ScanPlan) -> Iterator[PageRequest]:
    while isinstance(request := plan.next_request(), PageRequest):
        yield request


@attrs.define
class Figures:
    """What the trials of one scenario came to."""

    trials: int = 0
    lost_one_by_one: int = 0
    lost_at_once: int = 0
    lost: int = 0
    lost_silently: int = 0
    repeated: int = 0
    flagged: int = 0
    requests: int = 0
    most: int = 0


def tried(name: str, trials: int, seed: int) -> Figures:
    """Run the trials of a scenario."""
    figures = Figures(trials)
    for trial in range(trials):
        lists = [MovingList(ALL[name], _chance(name, seed + trial)) for _ in range(3)]
        figures.lost_one_by_one += lists[0].lost(one_by_one(lists[0]))
        figures.lost_at_once += lists[1].lost(all_at_once(lists[1]))
        reading = planned(lists[2])
        lost = lists[2].lost(reading.delivered)
        figures.lost += lost
        figures.lost_silently += lost and not reading.flagged
        figures.repeated += reading.repeated
        figures.flagged += reading.flagged
        figures.requests += lists[2].requests
        figures.most = max(figures.most, lists[2].requests)
    return figures


def _chance(name: str, seed: int) -> random.Random:
    return random.Random(f"{name} {seed}")  # noqa: S311  repeatable, and no secret


def fewest(name: str) -> int:
    """Return how many requests a calm list takes at least from such a server."""
    scenario = ALL[name]
    return math.ceil(scenario.rows / min(scenario.cap, scenario.limit))


HEAD = (
    f"{'':26}{'one by one':>12}{'at once':>10} |{'lost':>8}{'silently':>10}{'repeated':>10}"
    f"{'flagged':>10}{'requests':>10}{'most':>6}"
)


def line(name: str, figures: Figures) -> str:
    """Return the figures of a scenario as a line of the table."""

    def share(number: int) -> str:
        return f"{100 * number / figures.trials:.2f} %"

    mean = figures.requests / figures.trials / fewest(name)
    return (
        f"{name:26}{share(figures.lost_one_by_one):>12}{share(figures.lost_at_once):>10} |"
        f"{share(figures.lost):>8}{figures.lost_silently:>10}{figures.repeated:>10}"
        f"{share(figures.flagged):>10}{mean:>10.3f}{figures.most:>6}"
    )


def calm_requests() -> tuple[float, int]:
    """Return the worst ratio of a calm list from 20 pages on, and the most extra below that."""
    ratio, extra = 0.0, 0
    for count in range(60 * LIMIT + 1):
        least = max(1, math.ceil(count / LIMIT))
        if least >= MANY_PAGES:
            ratio = max(ratio, requests_for(count, LIMIT) / least)
        else:
            extra = max(extra, requests_for(count, LIMIT) - least)
    return ratio, extra


def main() -> int:
    """Run what was asked for; exit with 1 if something was lost silently or came twice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), metavar="SCENARIO")
    parser.add_argument("--trial", choices=ALL, metavar="SCENARIO", help="show one trial: --seed")
    given = parser.parse_args()
    if given.trial:
        planned(MovingList(ALL[given.trial], _chance(given.trial, given.seed)), log=True)
        return 0
    print(f"{given.trials} trials each, 2,000 rows, 100 a page, {IN_FLIGHT} in flight\n")
    print(f"{'':26}{'trials that lost rows':>22} | ief_async\n{HEAD}")
    bad, apart = 0, False
    ratios: list[float] = []
    with ProcessPoolExecutor() as pool:
        figures = [pool.submit(tried, name, given.trials, given.seed) for name in given.only]
        for name, future in zip(given.only, figures, strict=True):
            result = future.result()
            if name in UNORDERED and not apart:
                print("rows that change places, which no reader of offsets can always notice:")
            apart = name in UNORDERED
            print(line(name, result), flush=True)
            if name not in UNORDERED:
                bad += result.lost_silently + result.repeated
            if (
                name not in RESUMED | UNORDERED and ALL[name].offsets == "rows"
            ):  # else it gives up early
                ratios.append(result.requests / result.trials / fewest(name))
    ratio, extra = calm_requests()
    mean = sum(ratios) / max(1, len(ratios))
    verdicts = {False: "not met", True: "met"}
    print(
        f"\nlost silently or repeated, rows that keep their order: {bad} (0: {verdicts[not bad]})"
    )
    print(
        f"requests of a calm list: {ratio:.3f} times the fewest from 20 pages on "
        f"(<= {WORST_CALM}: {verdicts[ratio <= WORST_CALM]}), below that {extra} more at most"
    )
    print(
        f"requests of all these scenarios together: {mean:.3f} times the fewest "
        f"(<= {WORST_MEAN}: {verdicts[mean <= WORST_MEAN]})"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
