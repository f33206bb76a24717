"""Keys, and how a request is authenticated with them: by a token, or by a signature."""

import hashlib
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import ClassVar, NoReturn
from urllib.parse import quote, unquote, urlsplit

import attrs

from ief_async._auth.kinds import CredentialKind
from ief_async._errors import AuthenticationError, ConfigurationError
from ief_async._messages import Request
from ief_async._texts import Needle

ALGORITHM = "SDK-HMAC-SHA256"
CLOCK_SECONDS = 15 * 60  # that the clock of whoever signs may differ from the server's
TOKEN_BYTES = 66 * 1024  # 64 KiB and the name of the header
SIGNATURE = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
NO_BODY = hashlib.sha256(b"").hexdigest()  # which looks like a signature, and is in every request


class Secret:
    """A string that no ``repr``, ``str``, format, pickle, ``asdict`` or ``vars`` shows."""

    __slots__ = ("_needle", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._needle: Needle | None = None

    def reveal(self) -> str:
        """Return the string; call it only where a header is made."""
        return self._text

    def scrub(self, text: str) -> str:
        """Return `text` without the secret: servers echo what they were sent.

        Any 16 consecutive characters of it are found: escaped as JSON, a URL or HTML, in base64, in
        upper or lower case, cut, or broken over lines. A secret of 8 to 15 characters is found as a
        whole, in the same forms; one of 4 to 7 as a whole word.
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


def _unsendable(value: object, name: str) -> str | None:
    """Say what keeps a value from being sent in a header, without showing it; None if nothing."""
    value = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(value, str):
        return f"{name} must be a string, got {type(value).__name__}"
    if not value:
        return f"{name} must not be empty: is a variable not set?"
    if not all("!" <= character <= "~" for character in value):
        return (
            f"{name} must be printable ASCII without blanks or line ends, got other characters, "
            "too; a value read from a file often ends in a newline: strip it"
        )
    return None


class Key(CredentialKind, ABC):
    """Whatever authenticates a request by headers."""

    __slots__ = ()

    @abstractmethod
    def headers(self, request: Request, *, now: float) -> dict[str, str]:
        """Return the headers that authenticate a request at a moment, in seconds since 1970."""

    @abstractmethod
    def scrub(self, text: str) -> str:
        """Return `text` without the key's secrets in it."""


@attrs.frozen(init=False)
class Token(Key):
    """An IAM token that you already have; sent as ``X-Auth-Token``.

    It is never renewed: when the service refuses it, `AuthenticationError` is raised at once. For
    tokens that are renewed use `PasswordCredentials`, or an async function that returns a `Token`.

    Args:
        value: the token. It is shown by no ``repr``, error or log line.

    Raises:
        ConfigurationError: the value is not a string, is empty, or is not a single line of
            printable ASCII.

    Example:
        ::

            import asyncio

            from ief_async import IefSession, Token
            from ief_async.testing import FakeIef


            async def main() -> None:
                async with FakeIef(pods=3) as fake:
                    session = IefSession(
                        fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint
                    )
                    async with session as ief:
                        print(len(await ief.iter_pods(fake.deployment_ids).collect()))


            asyncio.run(main())
    """

    value: Secret

    def __init__(self, value: str | Secret) -> None:
        problem = _unsendable(value, "Token")
        if problem is not None:
            del value, self  # no traceback may show the one, nor can it show the other
            raise ConfigurationError(problem)
        self.__attrs_init__(value if isinstance(value, Secret) else Secret(value))

    def headers(self, request: Request, *, now: float) -> dict[str, str]:  # noqa: ARG002  a token is the same for all
        """Return the headers that authenticate a request."""
        return {"X-Auth-Token": self.value.reveal()}

    def scrub(self, text: str) -> str:
        """Return `text` without the token in it."""
        return self.value.scrub(text)

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:  # noqa: ARG002  a token has no clock
        """Say what to do when the service refuses it."""
        if renewed:
            return "Check the user's rights in this project, and that the region is the project's."
        return AuthenticationError.advice


@attrs.frozen(init=False)
class AccessKey(Key):
    """An access key (AK/SK), permanent or temporary: every attempt of a request is signed anew.

    The algorithm is SDK-HMAC-SHA256. A refused signature is never retried, since the service locks
    a key for five minutes after a few of them. Until one signed request was accepted, requests are
    sent one at a time, and for five minutes after a refusal none is sent. All sessions and targets
    with an equal key share this; but a key that is accepted for one target and refused for another
    fails for that other one only.

    Args:
        access_key: the id of the access key.
        secret_key: the secret key that belongs to it.
        security_token: what came with a temporary key; None for a permanent one.

    Raises:
        ConfigurationError: one of them is not a string, is empty, or is not a single line of
            printable ASCII.

    Example:
        ::

            import asyncio

            from ief_async import AccessKey, IefSession
            from ief_async.testing import FakeIef


            async def main() -> None:
                async with FakeIef(pods=3) as fake:
                    key = AccessKey(fake.access_key, fake.secret_key)
                    session = IefSession(fake.project_id, credentials=key, endpoint=fake.endpoint)
                    async with session as ief:
                        print(len(await ief.iter_pods(fake.deployment_ids).collect()))


            asyncio.run(main())
    """

    locks_on_refusal: ClassVar[bool] = True
    # the gateway's words for a signature, or for the key that made it
    refusal_words: ClassVar[tuple[str, ...]] = (
        "signature",
        "secretkey",
        "secret key",
        "aksk",
        "ak access",
        "ak sk",
        "security token",
    )

    access_key: Secret
    secret_key: Secret
    security_token: Secret | None

    def __init__(
        self,
        access_key: str | Secret,
        secret_key: str | Secret,
        security_token: str | Secret | None = None,
    ) -> None:
        problem = _unsendable(access_key, "AccessKey(access_key=)") or _unsendable(
            secret_key, "AccessKey(secret_key=)"
        )
        if security_token is not None:
            problem = problem or _unsendable(security_token, "AccessKey(security_token=)")
        if problem is not None:
            del access_key, secret_key, security_token, self  # no traceback may show them
            raise ConfigurationError(problem)
        self.__attrs_init__(
            as_secret(access_key),
            as_secret(secret_key),
            None if security_token is None else as_secret(security_token),
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

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:  # noqa: ARG002  a clock is off whoever gave the key
        """Say what to do when the service refuses it."""
        if abs(skew) > CLOCK_SECONDS:
            ahead = "ahead of" if skew > 0 else "behind"
            return (
                f"This machine's clock is {abs(skew):.0f} s {ahead} the server's, which allows "
                f"{CLOCK_SECONDS} s: set the clock."
            )
        return "Check the access key, its secret key, its security token and the project."

    def identity(self) -> Hashable:
        """Return the key: wherever it is used, it is the same to the service."""
        return self.access_key, self.secret_key, self.security_token

    def account(self) -> tuple[str | None, ...] | None:
        """Return the id of a permanent key; one that is temporary has another tomorrow."""
        return (self.access_key.reveal(),) if self.security_token is None else None


def as_secret(value: str | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)


def _canonical(request: Request, signed: list[tuple[str, str]], names: str) -> str:
    """Return the canonical form of a request, which both sides of a signature compute."""
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
    """Return name and value of a part of a query, and the pair as it is signed."""
    name, _, value = text.partition("=")
    name, value = unquote(name), unquote(value)
    return name, value, f"{percent_encoded(name)}={percent_encoded(value)}"


def percent_encoded(text: str) -> str:
    return quote(text, safe="~")


def http_date(text: str | None) -> datetime | None:
    """Read an HTTP date, or return None if it is not one; without a zone it is UTC (RFC 9110)."""
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
