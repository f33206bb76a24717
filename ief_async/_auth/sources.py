"""Where keys come from: a password, the metadata service, or the caller's own source."""

import json
import re
from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping
from datetime import datetime
from typing import ClassVar, Protocol, TypeGuard, runtime_checkable
from urllib.parse import urlsplit

import attrs

from ief_async._auth.keys import TOKEN_BYTES, AccessKey, Key, Secret, Token, as_secret, http_date
from ief_async._auth.kinds import CredentialKind
from ief_async._errors import ConfigurationError, PayloadError
from ief_async._messages import Reply, Request
from ief_async._models import parse_timestamp
from ief_async._regions import LOOPBACK
from ief_async._values import Value

METADATA = "http://169.254.169.254"  # the same on every elastic cloud server
METADATA_TOKEN_SECONDS = 21_600
PROJECT_ID = re.compile("[0-9a-f]{32}")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Scope(Value):
    """What a key is needed for.

    Attributes:
        iam_endpoint: where IAM answers, without a slash at the end.
        project: the id or the name of the project, or None if neither is known.
    """

    iam_endpoint: str
    project: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Grant(Value):
    """What a source obtained.

    Attributes:
        key: what requests are authenticated with from now on.
        lifetime: seconds that it is valid from the moment it was asked for, or None if unknown.
        project_id: the id of the project that it is for, or None if the answer does not tell.
    """

    key: Key
    lifetime: float | None = None
    project_id: str | None = None


@runtime_checkable
class Source(Protocol):
    """Whatever obtains keys, without any I/O of its own."""

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:
        """Yield each request that is to be sent, take its reply, and return the key."""

    def scrub(self, text: str) -> str:
        """Return `text` without the source's secrets in it."""


KeyFunction = Callable[[], Awaitable[Key]]
Credentials = Key | Source | KeyFunction


class OwnSource(CredentialKind):
    """What is assumed of a source of the caller's own making."""

    __slots__ = ()

    for_one_project: ClassVar[bool] = True


OWN_SOURCE, OWN_FUNCTION = OwnSource(), CredentialKind()


def kind_of(credentials: object) -> CredentialKind:
    """Return who answers for credentials: themselves, or what is assumed of a caller's own."""
    if isinstance(credentials, CredentialKind):
        return credentials
    return OWN_SOURCE if isinstance(credentials, Source) else OWN_FUNCTION


@attrs.frozen(init=False)
class PasswordCredentials(CredentialKind):
    """An IAM user's password: tokens are obtained with it, and renewed before they expire.

    A token is for one project: the session's, unless `project` names another. A token that the
    service refuses is renewed once, however many requests it was refused for, and each of these is
    sent once more. (``POST /v3/auth/tokens`` of IAM, without the catalogue.)

    A wrong password is sent once, however many sessions and targets hold equal credentials: the
    first login is made alone, and for five minutes after a refusal none is made. A login that is
    refused because of its project does not keep logins for other projects from being made.

    Args:
        domain: the name of the account that the user belongs to.
        user: the user's name. An account that signs in with a HUAWEI ID gets no token by password.
        password: the user's password. It is shown by no ``repr``, error or log line.
        project: id (32 hexadecimal digits) or name of the project that the token is for; None for
            the session's `project_id`, or its `region`, which is the name of the region's project.
        user_id: the user's id; needed with `passcode`.
        passcode: for users with a second factor: the code, or a function that returns the current
            code whenever a token is asked for, since a code is valid for half a minute.

    Raises:
        ConfigurationError: one of them is empty or not a string, or only one of `user_id` and
            `passcode` is given.

    Example:
        ::

            import asyncio

            from ief_async import IefSession, PasswordCredentials
            from ief_async.testing import FakeIef


            async def main() -> None:
                async with FakeIef(pods=3) as fake:
                    login = PasswordCredentials(
                        domain=fake.domain, user=fake.user, password=fake.password
                    )
                    session = IefSession(
                        fake.project_id,
                        credentials=login,
                        endpoint=fake.endpoint,
                        iam_endpoint=fake.iam_endpoint,
                    )
                    async with session as ief:
                        print(len(await ief.iter_pods(fake.deployment_ids).collect()))


            asyncio.run(main())
    """

    for_one_project: ClassVar[bool] = True

    domain: str
    user: str
    password: Secret
    project: str | None
    user_id: str | None
    passcode: Secret | Callable[[], str] | None

    def __init__(
        self,
        *,
        domain: str,
        user: str,
        password: str | Secret,
        project: str | None = None,
        user_id: str | None = None,
        passcode: str | Callable[[], str] | None = None,
    ) -> None:
        problem = None
        if (passcode is None) != (user_id is None):
            problem = "PasswordCredentials must have both of passcode= and user_id=, or neither"
        for name, value, kinds in (
            ("domain", domain, str),
            ("user", user, str),
            ("password", password, str | Secret),
            ("project", project, str | None),
            ("user_id", user_id, str | None),
        ):
            if value == "":
                problem = f"PasswordCredentials({name}=) must not be empty"
            elif not isinstance(value, kinds):
                kind = type(value).__name__
                problem = f"PasswordCredentials({name}=) must be a string, got {kind}"
        if problem is not None:
            # no traceback may show them
            del domain, user, password, project, user_id, passcode, value, self
            raise ConfigurationError(problem)
        self.__attrs_init__(
            domain,
            user,
            as_secret(password),
            project,
            user_id,
            Secret(passcode) if isinstance(passcode, str) else passcode,
        )

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:
        """Ask IAM for a token of the project."""
        project = self.project or scope.project
        if project is None:
            message = (
                "A token is for one project: give project_id=, region= or credentials' project="
            )
            raise ConfigurationError(message)
        reply = yield Request(
            method="POST",
            url=f"{scope.iam_endpoint}/v3/auth/tokens?nocatalog=true",
            headers={"Content-Type": "application/json;charset=utf8"},
            body=self._body(project),
            expected=frozenset({201}),
            header_bytes=TOKEN_BYTES,
        )
        text = reply.headers.get("x-subject-token", "")
        try:
            key = Token(text)
        except ConfigurationError:
            key = None
        del text
        if key is None:
            message = "IAM answered 201 without a token in X-Subject-Token"
            raise PayloadError(message)
        token = mapping_of(mapping_of(document_of(reply.body)).get("token"))
        begin, end = (_timestamp(token.get(name)) for name in ("issued_at", "expires_at"))
        project_id = mapping_of(token.get("project")).get("id")
        return Grant(
            key=key,
            lifetime=_lifetime(begin or _answered_at(reply), end),
            project_id=project_id if is_id(project_id) else None,
        )

    def _body(self, project: str) -> bytes:
        methods = ["password"]
        identity: dict[str, object] = {
            "methods": methods,
            "password": {
                "user": {
                    "name": self.user,
                    "password": self.password.reveal(),
                    "domain": {"name": self.domain},
                }
            },
        }
        if self.passcode is not None:
            code = self.passcode.reveal() if isinstance(self.passcode, Secret) else self.passcode()
            methods.append("totp")
            identity["totp"] = {"user": {"id": self.user_id, "passcode": code}}
        name = "id" if PROJECT_ID.fullmatch(project) else "name"
        scope = {"project": {name: project}}
        return json.dumps({"auth": {"identity": identity, "scope": scope}}).encode()

    def scrub(self, text: str) -> str:
        """Return `text` without the password and the passcode in it."""
        text = self.password.scrub(text)
        return self.passcode.scrub(text) if isinstance(self.passcode, Secret) else text

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:  # noqa: ARG002  the same whatever else is so
        """Say what to do when the service refuses it."""
        return "Check domain, user, password, project or region, and iam_endpoint."

    def identity(self) -> Hashable:
        """Return who logs in, and how: it is the same to the service for any project."""
        return self.domain, self.user, self.password, self.user_id, self.passcode

    def account(self) -> tuple[str | None, ...]:
        """Return who logs in, for which project."""
        return self.domain, self.user, self.user_id, self.project

    def login(self) -> str:
        """Return what people call the account."""
        return "/".join(part for part in (self.domain, self.user, self.project) if part)


@attrs.frozen(kw_only=True)
class EcsMetadata(CredentialKind):
    """The temporary keys of the elastic cloud server that this runs on, by its agency.

    They are renewed before they expire. Where nothing answers, as on any other machine, requests
    raise `AuthenticationError` after `timeout`.

    Attributes:
        timeout: seconds for each of its two requests, which are not repeated.
        endpoint: where the metadata service answers: its own address, or one on loopback.

    Raises:
        ConfigurationError: `endpoint` is another address.

    Example:
        ::

            import asyncio

            from ief_async import EcsMetadata, IefSession
            from ief_async.testing import FakeIef


            async def main() -> None:
                async with FakeIef(pods=3) as fake:
                    session = IefSession(
                        fake.project_id,
                        credentials=EcsMetadata(endpoint=fake.metadata_endpoint),
                        endpoint=fake.endpoint,
                    )
                    async with session as ief:
                        print(len(await ief.iter_pods(fake.deployment_ids).collect()))


            asyncio.run(main())
    """

    timeout: float = 1.0
    endpoint: str = attrs.field(factory=lambda: METADATA)

    @endpoint.validator
    def _check_endpoint(self, _: object, value: str) -> None:
        host = urlsplit(value).hostname
        if value != METADATA and host not in LOOPBACK:
            message = (
                f"EcsMetadata(endpoint=) must be {METADATA} or a loopback address, got {host!r}"
            )
            raise ConfigurationError(message)

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:  # noqa: ARG002  keys are for all projects
        """Ask for a token of the metadata service, if it gives any, and for the keys."""
        reply = yield Request(
            method="PUT",
            url=f"{self.endpoint}/meta-data/latest/api/token",
            headers={"X-Metadata-Token-Ttl-Seconds": str(METADATA_TOKEN_SECONDS)},
            expected=frozenset({200, 404, 405, 503}),
            timeout=self.timeout,
        )
        headers = {}
        if reply.status == 200:  # noqa: PLR2004  as HTTP has it
            headers["X-Metadata-Token"] = reply.body.decode("ascii", "replace").strip()
        reply = yield Request(
            url=f"{self.endpoint}/openstack/latest/securitykey",
            headers=headers,
            timeout=self.timeout,
        )
        said = mapping_of(mapping_of(document_of(reply.body)).get("credential"))
        texts = [said.get(name) for name in ("access", "secret", "securitytoken")]
        end = _timestamp(said.get("expires_at"))
        try:
            key = AccessKey(*texts)  # type: ignore[arg-type]  # what is not a string is refused
        except ConfigurationError:
            key = None
        del texts, said
        if key is None:
            message = (
                "the metadata service gave no credential with access, secret and securitytoken"
            )
            raise PayloadError(message)
        return Grant(key=key, lifetime=_lifetime(_answered_at(reply), end))

    def scrub(self, text: str) -> str:
        """Return `text`: there is no secret in it before the keys are obtained."""
        return text

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:  # noqa: ARG002  the same whatever else is so
        """Say what to do when the metadata service gives no keys."""
        return "Check that this is an elastic cloud server, and that it has an agency."


def document_of(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def mapping_of(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def is_id(value: object) -> TypeGuard[str]:
    """Tell whether a value can stand in a path and a header: it comes from a server."""
    return isinstance(value, str) and re.fullmatch("[0-9A-Za-z_-]{1,64}", value) is not None


def _timestamp(value: object) -> datetime | None:
    return parse_timestamp(value) if isinstance(value, str) else None


def _answered_at(reply: Reply) -> datetime | None:
    """Return when the server says it answered: a lifetime is measured by one clock."""
    return http_date(reply.headers.get("date"))


def _lifetime(begin: datetime | None, end: datetime | None) -> float | None:
    """Return how many seconds a key is valid; None if unknown, or if it ends before it begins."""
    if begin is None or end is None or begin.tzinfo is None:
        return None
    seconds = (end - begin).total_seconds()
    return seconds if seconds > 0 else None
