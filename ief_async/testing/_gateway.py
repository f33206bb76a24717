"""From a request to its answer: what the API gateway checks, then IAM, metadata and the lists."""

import functools
import random
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import parse_qsl

from ief_async.testing._answers import HEADER_TOO_LARGE, Answer, FakeRequest, RefusedError
from ief_async.testing._fleet import Fleet
from ief_async.testing._iam import Iam
from ief_async.testing._lists import DocumentList, Lists
from ief_async.testing._motion import Motion
from ief_async.testing._pods import Ids, Kind, fraction_of, to_json
from ief_async.testing._quota import Meter
from ief_async.testing._settings import Settings

_T = TypeVar("_T")

_KINDS: dict[str, Kind] = {
    "deployment_ids": "deployment",
    "deployment_id": "deployment",
    "node_id": "node",
    "group_id": "group",
}
_LINE_LIMIT = 32 << 10
_HEAD_LIMIT = 128 << 10
_LONGEST_NUMBER = 18


class Gateway:
    """Answers requests as the service does; it has no socket and no event loop."""

    def __init__(
        self,
        settings: Settings,
        ids: Ids,
        fleet: Fleet,
        *,
        lists: Lists,
        iam: Iam,
        motions: Sequence[Motion],
        seed: int,
    ) -> None:
        self._settings = settings
        self._ids = ids
        self._fleet = fleet
        self._lists = lists
        self._iam = iam
        self._motions = motions
        self._meter = Meter()
        self._chance = random.Random(f"answers {seed}")  # noqa: S311 - repeatable, and no secret
        self.throttled = 0
        service = settings.service

        def is_in_share(what: str, rate: float, number: int) -> bool:
            return fraction_of(seed, what, fleet.id_of(number)) < rate

        self.is_hidden = functools.cache(
            functools.partial(is_in_share, "hidden", service.hidden_rate)
        )
        self._is_repeated = functools.cache(
            functools.partial(is_in_share, "repeated", service.repeated_rate)
        )

    def respond(self, seen: FakeRequest) -> Answer:
        """Return the answer of a request, a refusal included."""
        try:
            self._check_request(seen)
            return self._route(seen)
        except RefusedError as refusal:
            return refusal.answer

    def _check_request(self, seen: FakeRequest) -> None:
        sizes = [len(name) + len(value) for name, value in seen.headers.items()]
        if len(seen.path) + len(seen.raw_query) > _LINE_LIMIT:
            raise RefusedError(414, shape="apigw")
        if max(sizes, default=0) > _LINE_LIMIT or sum(sizes) > _HEAD_LIMIT:
            raise RefusedError(HEADER_TOO_LARGE, shape="apigw")
        quota = self._settings.quota if "/edgemgr/" in seen.path else None
        if quota is not None and not self._meter.admit(quota, self._settings.service.clock()):
            self.throttled += 1
            raise RefusedError(429, quota.error_code, quota.text, shape="apigw")

    def _route(self, seen: FakeRequest) -> Answer:
        _, *parts = seen.path.split("/")
        match [seen.method, *parts]:
            case ["GET", "v3", project_id, "edgemgr", "pods"]:
                self._authenticate(seen, project_id)
                return Answer(self._list_pods(seen))
            case ["GET", version, project_id, "edgemgr", name] if (
                documents := self._lists.by_path.get(f"{version}/{name}")
            ):
                self._authenticate(seen, project_id)
                return Answer(self._list_documents(seen, documents))
            case ["POST", "v3", "auth", "tokens"]:
                return self._iam.issue_token(seen)
            case ["GET", "v3", "projects"]:
                return self._iam.list_projects(seen)
            case ["PUT", "meta-data", "latest", "api", "token"]:
                return self._iam.metadata_token(seen)
            case ["GET", "openstack", "latest", "securitykey"]:
                return self._iam.security_key(seen)
            case _:
                raise RefusedError(404, shape="apigw")

    def _authenticate(self, seen: FakeRequest, project_id: str) -> None:
        if self._settings.token is not None:
            self._iam.authenticate(seen, project_id)
        if project_id != self._settings.account.project_id:
            raise RefusedError(400)

    # --- lists ---

    def _list_pods(self, seen: FakeRequest) -> bytes:
        pairs = parse_qsl(seen.raw_query, keep_blank_values=True)
        asked = [(name, value) for name, value in pairs if name in _KINDS]
        if len(asked) != 1 or not asked[0][1]:
            message = "Exactly one of deployment_ids, deployment_id, node_id, group_id is needed"
            raise RefusedError(400, "IEF.100001", message)
        (name, value), query = asked[0], dict(pairs)
        kind, ids = _KINDS[name], tuple(value.split(",") if name == "deployment_ids" else [value])
        self._check_known(kind, ids)
        default_limit = self._settings.service.default_limit
        offset = _number(query.get("offset", "0"), 0, "IEF.100004", "offset")
        limit = _number(query.get("limit", str(default_limit)), 1, "IEF.100005", "limit")
        size = self._page_size(limit)
        for motion in self._motions:
            self._fleet.move(motion)
        rows = self._pod_rows(kind, ids) if self._knows_instance(seen) else ()
        page = self._page(rows, offset, size)
        if self._settings.service.hidden_rate:
            page = [row for row in page if not self.is_hidden(row)]
        return self._fleet.page(page, self._count(len(rows), len(page)))

    def _list_documents(self, seen: FakeRequest, documents: DocumentList) -> bytes:
        query = seen.query
        default_limit = documents.default_limit or self._settings.service.default_limit
        offset = _number(query.get("offset", "0"), 0, "IEF.100004", "offset")
        limit = _number(
            query.get("limit", str(default_limit)), 1, "IEF.100005", "limit", documents.max_limit
        )
        size = self._page_size(limit)
        for kind in ("node", "group"):
            if query.get(f"{kind}_id"):
                self._check_known(kind, (query[f"{kind}_id"],))
        rows = documents.select(query)
        if documents.by_instance and not self._knows_instance(seen):
            rows = ()
        if not query.get("sort"):
            rows = self._shuffled(rows)
        page = self._page(rows, offset, size)
        total = self._count(len(rows), len(page))
        counted = {} if total is None else {"count": total}
        found = {documents.key: [*page]}
        return to_json(counted | found if documents.count_first else found | counted)

    def _knows_instance(self, seen: FakeRequest) -> bool:
        instance_id = self._settings.service.instance_id
        return instance_id in {None, seen.headers.get("ief-instance-id")}

    def _check_known(self, kind: Kind, ids: tuple[str, ...]) -> None:
        if self._settings.service.unknown_ids == "refuse" and not {*ids} <= {*self._ids.of(kind)}:
            raise RefusedError(404, "IEF.100001", f"The {kind} doesn't exist")

    def _pod_rows(self, kind: Kind, ids: tuple[str, ...]) -> Sequence[int]:
        rows = self._fleet.matching(kind, ids, self._fleet.lagging_order(self._chance))
        if self._settings.service.repeated_rate:
            rows = [row for row in rows for _ in range(1 + self._is_repeated(row))]
        return self._shuffled(rows)

    def _shuffled(self, rows: Sequence[_T]) -> Sequence[_T]:
        order = self._settings.service.order
        if order not in {"shuffled", "ties"}:
            return rows
        drawn = self._chance.random
        tied = 3 if order == "ties" else max(len(rows), 1)
        places = sorted(range(len(rows)), key=lambda place: place // tied + drawn())
        return [rows[place] for place in places]

    def _page(self, rows: Sequence[_T], offset: int, size: int) -> Sequence[_T]:
        service = self._settings.service
        first = {"rows": offset, "pages": offset * size, "ignored": 0}[service.offsets]
        if self._chance.random() < service.cached_rate:
            first = 0
        page = rows[first:] if service.limits == "ignored" else rows[first : first + size]
        return () if self._chance.random() < service.empty_rate else page

    def _count(self, total: int, shown: int) -> int | str | None:
        match self._settings.service.counts:
            case "true":
                return total
            case "none":
                return None
            case "page":
                return shown
            case int(number):
                return number
            case count_of:
                return count_of(total, self._chance)

    def _page_size(self, limit: int) -> int:
        cap = self._settings.page_cap
        if cap is None or limit <= cap:
            return limit
        if self._settings.service.over_cap == "refuse":
            raise RefusedError(400, "IEF.100005", "The limit is out of specification")
        return cap


def _number(text: str, least: int, code: str, name: str, most: int | None = None) -> int:
    if (
        text.isascii()
        and text.isdecimal()
        and len(text) <= _LONGEST_NUMBER
        and least <= int(text) <= (most or int(text))
    ):
        return int(text)
    raise RefusedError(400, code, f"The {name} is out of specification")
