"""How a request shows who sends it, and how that is got. Pure: no clock, no loop, no socket.

A key (`Token`, `AccessKey`) makes the headers of a request. A source (`PasswordCredentials`,
`EcsMetadata`) gets a key: `obtain` yields each request that is to be sent for it, is sent the
answer, and returns a `Grant`. Whatever has the same two methods is a source, too.

A secret lives in one `Secret` and is revealed in one place: where headers and bodies are made.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import ClassVar, NoReturn, Protocol, TypeGuard, runtime_checkable
from urllib.parse import quote, unquote, urlsplit

import attrs

from ief_async._errors import ApiError, ConfigurationError, PayloadError
from ief_async._models import parse_timestamp
from ief_async._texts import Needle

ALGORITHM = "SDK-HMAC-SHA256"
CLOCK_SECONDS = 15 * 60  # that the clock of whoever signs may differ from the server's
TOKEN_BYTES = 66 * 1024  # 64 KiB and the name of the header
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
METADATA = "http://169.254.169.254"  # the same on every elastic cloud server
METADATA_TOKEN_SECONDS = 21_600
SIGNATURE = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
NO_BODY = hashlib.sha256(b"").hexdigest()  # which looks like a signature, and is in every request
PROJECT_ID = re.compile("[0-9a-f]{32}")


class Secret:
    """A text that no ``repr``, ``str``, format, pickle, ``asdict`` or ``vars`` shows."""

    __slots__ = ("_needle", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._needle: Needle | None = None

    def reveal(self) -> str:
        """Return the text; call it only where a header is made."""
        return self._text

    def scrub(self, text: str) -> str:
        """Return `text` without the secret: servers echo what they were sent.

        Any 16 characters of it that follow each other are found, escaped as JSON, a URL or HTML, in
        base64, in other letters, cut, or broken over lines. A secret of 8 to 15 characters is found
        as a whole, in the same forms; one of 4 to 7 as a whole word.
        """
        if self._needle is None:
            self._needle = Needle(self._text)
        return self._needle.scrub(text)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        message = "a Secret is not pickled or copied; make the credentials where they are used"
        raise TypeError(message)


def _problem(value: object, name: str = "Token") -> str | None:
    """Say what keeps a value from being sent in a header, without showing it."""
    value = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(value, str):
        return f"{name} takes a text, but was given {type(value).__name__}"
    if not value:
        return f"{name} takes a text, but was given an empty one: is a variable not set?"
    if not all("!" <= character <= "~" for character in value):
        return (
            f"{name} takes printable ASCII without blanks or line ends, but was given other "
            "characters, too; one that is read from a file often ends in a newline: strip it"
        )
    return None


# ---- what goes over the wire -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Request:
    """A request as it is sent.

    Attributes:
        method: in capitals.
        url: the whole of it, encoded.
        headers: those that matter to the server; they are signed by an `AccessKey`.
        body: as it is sent.
        expected: statuses whose answer is wanted; any other is an error.
        timeout: seconds for one attempt, and then there is only one; None: as for any request.
        header_bytes: how long a header of the answer may be; None: as is usual.
    """

    method: str = "GET"
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    expected: frozenset[int] = frozenset({200})
    timeout: float | None = None
    header_bytes: int | None = None


@attrs.frozen(kw_only=True)
class Reply:
    """What came of a request: any of its expected statuses, with names of headers in lower case."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Scope:
    """What a key is wanted for.

    Attributes:
        iam_endpoint: where IAM answers, without a slash at the end.
        project: the id or the name of the project, or None if neither is known.
    """

    iam_endpoint: str
    project: str | None = None


# ---- keys --------------------------------------------------------------------------------------


@attrs.frozen(init=False)
class Token:
    """An IAM token that was got elsewhere; sent as ``X-Auth-Token``.

    It is never renewed: when the server refuses it, `AuthenticationError` is raised at once.

    Raises:
        ConfigurationError: it is no single line of printable ASCII.
    """

    value: Secret

    def __init__(self, value: str | Secret) -> None:
        problem = _problem(value)
        if problem is not None:
            del value, self  # no traceback is to show the one, nor can it show the other
            raise ConfigurationError(problem)
        self.__attrs_init__(value if isinstance(value, Secret) else Secret(value))

    def headers(self, request: Request, *, now: float) -> dict[str, str]:  # noqa: ARG002  a token is the same for all
        """Return the headers that authenticate a request."""
        return {"X-Auth-Token": self.value.reveal()}

    def scrub(self, text: str) -> str:
        """Return `text` without the token in it."""
        return self.value.scrub(text)


@attrs.frozen(init=False)
class AccessKey:
    """An access key (AK/SK), permanent or temporary: every request is signed, each attempt anew.

    The algorithm is SDK-HMAC-SHA256. A refusal of the signature is never retried, since the service
    locks a key for five minutes after a few of them: nothing is sent with a refused key for five
    minutes, and the first request that it signs goes alone until one is accepted. That holds for
    all sessions and targets with an equal key together; but what is accepted for one of them and
    refused for another is a matter of that other one.

    Args:
        access_key: the access key id.
        secret_key: what belongs to it.
        security_token: what came with a temporary key.

    Raises:
        ConfigurationError: one of them is no single line of printable ASCII.
    """

    access_key: Secret
    secret_key: Secret
    security_token: Secret | None

    def __init__(
        self,
        access_key: str | Secret,
        secret_key: str | Secret,
        security_token: str | Secret | None = None,
    ) -> None:
        problem = _problem(access_key, "AccessKey(access_key=)") or _problem(
            secret_key, "AccessKey(secret_key=)"
        )
        if security_token is not None:
            problem = problem or _problem(security_token, "AccessKey(security_token=)")
        if problem is not None:
            del access_key, secret_key, security_token, self  # as above
            raise ConfigurationError(problem)
        self.__attrs_init__(
            _secret(access_key),
            _secret(secret_key),
            None if security_token is None else _secret(security_token),
        )

    def headers(self, request: Request, *, now: float) -> dict[str, str]:
        """Return the headers that authenticate a request at a moment, in seconds since 1970."""
        own = {
            "Host": urlsplit(request.url).netloc,
            "X-Sdk-Date": datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ"),
        }
        if self.security_token is not None:
            own["X-Security-Token"] = self.security_token.reveal()
        signed = sorted(
            (name.lower(), value.strip())
            for name, value in {**request.headers, **own}.items()
            if "_" not in name  # gateways drop such headers
        )
        names = ";".join(name for name, _ in signed)
        digest = hashlib.sha256(_canonical(request, signed, names).encode()).hexdigest()
        text = f"{ALGORITHM}\n{own['X-Sdk-Date']}\n{digest}"
        signature = hmac.digest(self.secret_key.reveal().encode(), text.encode(), "sha256").hex()
        own["Authorization"] = (
            f"{ALGORITHM} Access={self.access_key.reveal()}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        return own

    def scrub(self, text: str) -> str:
        """Return `text` without the key and without any signature in it."""
        for secret in (self.secret_key, self.security_token, self.access_key):
            text = secret.scrub(text) if secret is not None else text
        text = re.sub(r"(Signature=)[0-9A-Fa-f]+", r"\1***", text)
        return SIGNATURE.sub(lambda one: one[0] if one[0] == NO_BODY else "***", text)


def _secret(value: str | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)


def _canonical(request: Request, signed: list[tuple[str, str]], names: str) -> str:
    """Write a request as both sides of a signature do."""
    parts = urlsplit(request.url)
    path = quote(unquote(parts.path), safe="/~")  # an escaped slash is a slash to both sides
    pairs = sorted(_pair(pair) for pair in parts.query.split("&") if pair)
    query = "&".join(encoded for _, _, encoded in pairs)
    headers = "".join(f"{name}:{value}\n" for name, value in signed)
    digest = hashlib.sha256(request.body).hexdigest()
    path = path if path.endswith("/") else f"{path}/"
    return f"{request.method}\n{path}\n{query}\n{headers}\n{names}\n{digest}"


@lru_cache(maxsize=64)  # each page of a batch asks for the same ids, which take 0.1 ms
def _pair(text: str) -> tuple[str, str, str]:
    """Return name and value of a part of a query, and both as they are signed."""
    name, _, value = text.partition("=")
    name, value = unquote(name), unquote(value)
    return name, value, f"{_encoded(name)}={_encoded(value)}"


def _encoded(text: str) -> str:
    return quote(text, safe="~")


def http_date(text: str | None) -> datetime | None:
    """Read a date of HTTP, or return None if it is no such; without a zone it is UTC (RFC 9110)."""
    try:
        moment = parsedate_to_datetime(text or "")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        moment.timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return moment


def clock_skew(date: str | None, *, now: float) -> float:
    """Return how many seconds a clock is ahead of a server's ``Date``; 0 if there is none."""
    moment = http_date(date)
    return 0.0 if moment is None else now - moment.timestamp()


Key = Token | AccessKey


# ---- sources -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Grant:
    """What a source got.

    Attributes:
        key: what requests are made with from now on.
        lifetime: seconds that it lasts from the moment it was asked for, or None if unknown.
        project_id: the project that it is for, if the answer tells.
    """

    key: Key
    lifetime: float | None = None
    project_id: str | None = None


@runtime_checkable
class Source(Protocol):
    """Whatever gets keys, without any I/O of its own."""

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:
        """Yield each request that is to be sent; return what came of them."""

    def scrub(self, text: str) -> str:
        """Return `text` without the source's secrets in it."""


KeyFunction = Callable[[], Awaitable[Key]]
Credentials = Key | Source | KeyFunction


def for_one_project(credentials: object) -> bool:
    """Tell whether what these credentials get is for one project; a source that can't say is."""
    return isinstance(credentials, Source) and not getattr(credentials, "for_any_project", False)


@attrs.frozen(init=False)
class PasswordCredentials:
    """An IAM user's password: tokens are got with it, and renewed before they end.

    A token is for one project: the session's, unless `project` names another. One that the server
    refuses is renewed once, however many requests it was refused for, and each of them is sent once
    again. (``POST /v3/auth/tokens`` of IAM, without the catalogue.)

    A password that is refused is sent once, whatever sessions and targets hold equal credentials:
    the first login goes alone, and after a refusal none is sent for five minutes. A login that is
    refused for the sake of its project keeps no other project's from being sent.

    Args:
        domain: the name of the account that the user belongs to.
        user: the user's name. An account that signs in with a HUAWEI ID gets no token by password.
        password: the user's password.
        project: id (32 hexadecimal digits) or name of the project that the token is for; else the
            session's `project_id`, or its `region`, which is the name of the region's own project.
        user_id: with `passcode`, the user's id.
        passcode: for users with a second factor: the code, or a function that gives the present one
            each time a token is asked for, as a code is good for half a minute only.

    Raises:
        ConfigurationError: one of them is empty or no text.
    """

    domain: str
    user: str
    password: Secret
    project: str | None
    user_id: str | None
    passcode: Secret | Callable[[], str] | None
    advice: ClassVar[str] = "Check domain, user, password, project or region, and iam_endpoint."

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
            problem = "PasswordCredentials takes passcode= and user_id= together, or neither"
        for name, value, kinds in (
            ("domain", domain, str),
            ("user", user, str),
            ("password", password, str | Secret),
            ("project", project, str | None),
            ("user_id", user_id, str | None),
        ):
            if not isinstance(value, kinds) or value == "":
                kind = "an empty one" if value == "" else type(value).__name__
                problem = f"PasswordCredentials({name}=) takes a text, but was given {kind}"
        if problem is not None:
            del domain, user, password, project, user_id, passcode, value, self  # as above
            raise ConfigurationError(problem)
        self.__attrs_init__(
            domain,
            user,
            _secret(password),
            project,
            user_id,
            Secret(passcode) if isinstance(passcode, str) else passcode,
        )

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:
        """Ask IAM for a token of the project."""
        project = self.project or scope.project
        if project is None:
            message = (
                "a token is for one project: give project_id=, region= or credentials' project="
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
        token = _mapping(_mapping(_document(reply.body)).get("token"))
        begin, end = (_moment(token.get(name)) for name in ("issued_at", "expires_at"))
        project_id = _mapping(token.get("project")).get("id")
        return Grant(
            key=key,
            lifetime=_seconds(begin or _sent(reply), end),
            project_id=project_id if _is_id(project_id) else None,
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


@attrs.frozen(kw_only=True)
class EcsMetadata:
    """The temporary keys of the elastic cloud server that this runs on, by its agency.

    They are renewed before they end. Elsewhere nothing answers: that is an `AuthenticationError`
    after `timeout`.

    Attributes:
        timeout: seconds for each of its two requests, which are not repeated.
        endpoint: where the metadata service answers.
    """

    for_any_project: ClassVar[bool] = True  # its keys are, so whoever has it shares them

    timeout: float = 1.0
    endpoint: str = attrs.field(factory=lambda: METADATA)
    advice: ClassVar[str] = "Check that this is an elastic cloud server, and that it has an agency."

    @endpoint.validator
    def _check_endpoint(self, _: object, value: str) -> None:
        host = urlsplit(value).hostname
        if value != METADATA and host not in LOOPBACK:
            message = f"EcsMetadata(endpoint=) takes {METADATA} or loopback, but was given {host!r}"
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
        said = _mapping(_mapping(_document(reply.body)).get("credential"))
        texts = [said.get(name) for name in ("access", "secret", "securitytoken")]
        end = _moment(said.get("expires_at"))
        try:
            key = AccessKey(*texts)  # type: ignore[arg-type]  # what is no text is refused
        except ConfigurationError:
            key = None
        del texts, said
        if key is None:
            message = (
                "the metadata service gave no credential with access, secret and securitytoken"
            )
            raise PayloadError(message)
        return Grant(key=key, lifetime=_seconds(_sent(reply), end))

    def scrub(self, text: str) -> str:
        """Return `text`: there is no secret in it before the keys are got."""
        return text


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _is_id(value: object) -> TypeGuard[str]:
    """Tell whether a value can stand in a path and a header: it comes from a server."""
    return isinstance(value, str) and re.fullmatch("[0-9A-Za-z_-]{1,64}", value) is not None


def _moment(value: object) -> datetime | None:
    return parse_timestamp(value) if isinstance(value, str) else None


def _sent(reply: Reply) -> datetime | None:
    """Return when the server says it answered: its own clock measures what it lends."""
    return http_date(reply.headers.get("date"))


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    """Return how long something lasts; what is over before it begins is not known."""
    if begin is None or end is None or begin.tzinfo is None:
        return None
    seconds = (end - begin).total_seconds()
    return seconds if seconds > 0 else None


def account_of(credentials: object) -> tuple[str | None, ...] | None:
    """Return what tells an account, and is no secret and lasts; None if there is nothing such."""
    if isinstance(credentials, PasswordCredentials):
        known = credentials
        return known.domain, known.user, known.user_id, known.project
    if isinstance(credentials, AccessKey) and credentials.security_token is None:
        return (credentials.access_key.reveal(),)
    return None


def login_of(credentials: object) -> str | None:
    """Return what an account may be called where people read it."""
    if isinstance(credentials, PasswordCredentials):
        parts = (credentials.domain, credentials.user, credentials.project)
        return "/".join(part for part in parts if part)
    return None


# ---- refusals ----------------------------------------------------------------------------------

# what speaks of a signature or of the key that made it, in the gateway's words
KEY_WORDS = ("signature", "secretkey", "secret key", "aksk", "ak access", "ak sk", "security token")
# what speaks of who logs in, whatever project that is for; and what speaks of the project
ACCOUNT_WORDS = (
    *("password", "username", "user name", "account", "verification code", "locked", "disabled"),
    *("密码", "用户名", "帐号", "账号", "验证码", "锁定"),
)
PROJECT_WORDS = ("project", "scope", "tenant", "项目")
NO_RIGHT = frozenset({403, 404})


def refuses_key(error: ApiError) -> bool:
    """Tell whether a refusal speaks of the key itself, and not of what it was used for."""
    said = error.error_msg.lower()
    return any(word in said for word in KEY_WORDS)


def refuses_project(error: ApiError, project: str | None, *, proven: bool) -> bool:
    """Tell whether a login was refused for the sake of its project: others may be let in.

    What says neither is about whoever logs in, unless that was `proven` to be right just now.
    """
    said = error.error_msg.lower()
    if any(word in said for word in ACCOUNT_WORDS):
        return False
    if any(word in said for word in PROJECT_WORDS) or (project and project.lower() in said):
        return True
    return proven or error.status in NO_RIGHT


# ---- projects ----------------------------------------------------------------------------------


def project_request(iam_endpoint: str, name: str) -> Request:
    """Return the request that looks a project up by its name; it is to be signed."""
    return Request(url=f"{iam_endpoint}/v3/projects?name={_encoded(name)}")


def project_of(reply: Reply, name: str, scrub: Callable[[str], str] = str) -> str:
    """Return the id of the one project in an answer, which `scrub` takes secrets out of.

    Raises:
        ConfigurationError: there is none, or there are several, which it lists.
        PayloadError: it is no list of projects.
    """
    projects = _mapping(_document(reply.body)).get("projects")
    if not isinstance(projects, list):
        message = "IAM's answer to the project lookup is no list of projects"
        raise PayloadError(message, path="projects")
    found = [_mapping(project) for project in projects]
    known = [str(project["id"]) for project in found if project.get("id")]
    if len(known) == 1 and _is_id(known[0]):
        return known[0]
    if len(known) == 1:
        message = "IAM's answer to the project lookup has an invalid project id"
        raise PayloadError(message, path="projects[0].id")
    listed = ", ".join(f"{project.get('id')} ({project.get('name')})" for project in found)
    listed = scrub(listed)
    message = (
        f"IAM knows no project named {name!r:.80}"
        if not known
        else (f"IAM knows {len(known)} projects named {name!r:.80}: {listed:.600}")
    )
    message = f"{message}; give project_id="
    raise ConfigurationError(message)
