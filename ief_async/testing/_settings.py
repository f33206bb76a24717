"""Settings of a `FakeIef`: what the account accepts, and how the service behaves."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs
from attrs.validators import optional

from ief_async.testing._quota import Quota
from ief_async.testing._validators import is_at_least, is_one_of, is_share

Expired = Literal["APIGW.0307", "APIGW.0301", "IEF.310002"]
Metadata = Literal["token", "plain", "none"]
OverCap = Literal["clamp", "refuse"]
UnknownIds = Literal["empty", "refuse"]
Order = Literal["stable", "reversed", "shuffled", "ties"]
Offsets = Literal["rows", "ignored", "pages"]
Limits = Literal["kept", "ignored"]
Counts = Literal["true", "none", "page"] | int | Callable[[int, random.Random], int | str | None]


def _is_count(_: object, __: object, counts: object) -> None:
    if not (callable(counts) or isinstance(counts, int) or counts in ("true", "none", "page")):
        msg = f"counts must be 'true', 'none', 'page', a number or a function, got {counts!r}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class Account:
    """The account that a `FakeIef` knows, and the credentials that it accepts.

    Example:
        from ief_async.testing import Account, FakeIef

        async with FakeIef(account=Account(passcode="123456", token_lifetime=60)) as fake:
            ...  # log in as fake.user of fake.domain: the token expires after a minute
            fake.password = "another"  # may be changed while the server runs

    Attributes:
        project_id: The only project that has a fleet. It can't be changed later.
        region: The name of that project.
        projects: The projects of the account, as documents with at least ``id`` and ``name``. By
            default there is one: ``project_id`` under the name ``region``.
        domain: The name of the account.
        user: The name of its only user.
        user_id: The id of that user.
        password: The password of that user.
        passcode: The second factor that a login needs, or None if it needs none.
        access_key: The id of the permanent key (AK).
        secret_key: The secret of the permanent key (SK).
        token_lifetime: How many seconds an issued token is valid.
        token_characters: The length of issued tokens, at least 32; None means the usual length.
        keys_lifetime: How many seconds temporary keys are valid.
        metadata: The metadata service asks for a token of its own (``"token"``), answers without
            one (``"plain"``), or does not exist (``"none"``).
        expired: The error code that refuses an expired token; the service uses three.
    """

    project_id: str = "bcd83056c918480f8f190844bd425b23"
    region: str = "cn-north-4"
    projects: Sequence[Mapping[str, Any]] = attrs.field()
    domain: str = "fake-domain"
    user: str = "fake-user"
    user_id: str = "fake-user-id"
    password: str = attrs.field(default="fake-password", repr=False)
    passcode: str | None = attrs.field(default=None, repr=False)
    access_key: str = "FAKEACCESSKEY0000001"
    secret_key: str = attrs.field(default="FakeSecretKeyThatOpensNothing00000000001", repr=False)
    token_lifetime: float = attrs.field(default=86_400.0, validator=is_at_least(0))
    token_characters: int | None = None
    keys_lifetime: float = attrs.field(default=3_600.0, validator=is_at_least(0))
    metadata: Metadata = attrs.field(default="token", validator=is_one_of(Metadata))
    expired: Expired = attrs.field(default="APIGW.0307", validator=is_one_of(Expired))

    @projects.default
    def _one_project(self) -> Sequence[Mapping[str, Any]]:
        return ({"id": self.project_id, "name": self.region},)


@attrs.frozen(kw_only=True)
class Service:
    """How the service behaves where its documentation leaves it open, and how its lists go wrong.

    Example:
        from ief_async.testing import FakeIef, Service

        async with FakeIef(500, service=Service(order="shuffled", empty_rate=0.05)) as fake:
            ...  # every request sees another order, and one page in twenty is empty

    All lists obey these settings, except that ``lag``, ``hidden_rate`` and ``repeated_rate`` only
    affect the list of pods.

    Attributes:
        default_limit: The page size of a request without ``limit``.
        over_cap: A ``limit`` above ``FakeIef(page_cap=…)`` is reduced to it (``"clamp"``) or
            answered with an error (``"refuse"``).
        unknown_ids: An unknown id has no pods (``"empty"``) or is a 404 (``"refuse"``).
        instance_id: The id of the first instance. If it is set, every list but that of instances
            is empty for a request that does not name it in the header ``ief-instance-id``. It may
            be changed while the server runs.
        order: The order of a list: always the same (``"stable"``), the same from the end
            (``"reversed"``), drawn anew for each request (``"shuffled"``), or drawn anew within
            each three neighbours (``"ties"``).
        offsets: ``offset`` counts rows (``"rows"``), is ignored (``"ignored"``) or is the number
            of a page (``"pages"``).
        limits: ``limit`` is obeyed (``"kept"``) or ignored (``"ignored"``): then an answer has all
            rows from the offset on.
        counts: The ``count`` of an answer: the number of rows in the list (``"true"``), absent
            (``"none"``), the length of the page (``"page"``), always the same number, or the
            result of a function of the true number and a `random.Random`, where None means absent.
        lag: Each request is answered from the list as this request or one of so many before it
            found it.
        empty_rate: The share of requests whose page is empty, while ``count`` is as usual.
        cached_rate: The share of requests that get the rows of offset 0.
        hidden_rate: The share of pods that are counted, but are in no page.
        repeated_rate: The share of pods that are in the list twice, as two neighbours.
        clock: Seconds since 1970. It may be changed while the server runs.
    """

    default_limit: int = attrs.field(default=10, validator=is_at_least(1))
    over_cap: OverCap = attrs.field(default="clamp", validator=is_one_of(OverCap))
    unknown_ids: UnknownIds = attrs.field(default="empty", validator=is_one_of(UnknownIds))
    instance_id: str | None = None
    order: Order = attrs.field(default="stable", validator=is_one_of(Order))
    offsets: Offsets = attrs.field(default="rows", validator=is_one_of(Offsets))
    limits: Limits = attrs.field(default="kept", validator=is_one_of(Limits))
    counts: Counts = attrs.field(default="true", validator=_is_count)
    lag: int = attrs.field(default=0, validator=is_at_least(0))
    empty_rate: float = attrs.field(default=0.0, validator=is_share)
    cached_rate: float = attrs.field(default=0.0, validator=is_share)
    hidden_rate: float = attrs.field(default=0.0, validator=is_share)
    repeated_rate: float = attrs.field(default=0.0, validator=is_share)
    clock: Callable[[], float] = time.time


@attrs.define(kw_only=True)
class Settings:
    """The settings of one `FakeIef`, which may change while it runs; all its parts share them."""

    account: Account
    service: Service
    token: str | None
    page_cap: int | None = attrs.field(validator=optional(is_at_least(1)))
    quota: Quota | None
    latency: float = attrs.field(validator=is_at_least(0))
    endpoint: str = ""


def moved_argument(name: str) -> str | None:
    """Name the class that has an argument which `FakeIef` itself had in version 0.1."""
    for owner in (Account, Service):
        if name in attrs.fields_dict(owner):
            return owner.__name__
    return None
