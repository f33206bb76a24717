"""The key in use: got when it is wanted, renewed ahead of its end, given up when it is refused.

Who finds that a key is due renews it; all others go on with the old one, or wait if there is none.
So one renewal serves everybody, and no task runs in the background.
"""

import asyncio
import inspect
import logging
import math
import traceback
from collections import Counter, deque
from collections.abc import AsyncIterator, Generator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from ief_async._auth.circuit import EVERYBODY, PROVEN_SECONDS, STRIKES, Circuit, circuit_of, copied
from ief_async._auth.flight import Flight, Send
from ief_async._auth.keys import Key
from ief_async._auth.refusals import refuses_key, refuses_project
from ief_async._auth.sources import Credentials, Grant, Scope, Source, kind_of
from ief_async._errors import ApiError, AuthenticationError, ConfigurationError, IefError
from ief_async._events import TokenRefreshed
from ief_async._messages import Reply, Request
from ief_async._observer import Observer, write
from ief_async._policies import Clock

RENEW_AT = 0.8  # of a key's lifetime: of a day five hours are left, of a quarter hour three minutes
RENEW_AGAIN = 0.25  # of what is left then, if it failed
REFUSALS = 2  # in a row, of a key and of its successor
REMEMBERED_KEYS = 4  # whose text may come back in late answers

RENEWALS: ContextVar[tuple[object, ...]] = ContextVar("RENEWALS", default=())  # that code runs for


class Keyring:
    """The key of one session, or of several that share their credentials.

    What the service said of it is known to all keyrings of equal credentials. `whose` is, in all
    methods, the project or target that a request is for: what is accepted for one and refused for
    another is a matter of that other one.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        observer: Observer,
        *,
        endpoint: str = "",
        circuit: Circuit | None = None,
    ) -> None:
        self.renewals: int = 0
        self.project_id: str | None = None  # that the key is for, if its source tells
        self._source: Any = None if isinstance(credentials, Key) else credentials
        self._kind = kind_of(credentials)
        self._clock = clock
        self._observer = observer
        self._flight = Flight()
        self._alone = asyncio.Lock()
        self._first: asyncio.Task[Any] | None = None  # whose request goes alone now
        self._renewal: object = None  # the one that runs
        self._key = credentials if isinstance(credentials, Key) else None
        self._past: deque[Key] = deque(maxlen=REMEMBERED_KEYS)
        self._due_at = self._ends_at = math.inf
        circuit = circuit or circuit_of(credentials, endpoint)
        self._logins = circuit  # what was said of the source
        self._use = circuit if self._key is not None else Circuit()  # and of the key
        self._refusals: Counter[Hashable] = Counter()  # of each one in a row

    def for_another_project(self) -> "Keyring":
        """Return itself if its key is for any project, else one that gets a key of its own."""
        if not self._kind.for_one_project:
            return self
        return Keyring(self._source, self._clock, self._observer, circuit=self._logins)

    def key(self, whose: Hashable = EVERYBODY) -> Key | None:
        """Return the key; None if it changed since it was this request's turn, and is unproven.

        Raises the refusal that ended the last try, if that is not long ago.
        """
        self.refuse_shut(whose)
        if self._goes_alone() and self._first is not asyncio.current_task():
            return None
        return self._key

    @property
    def ready(self) -> bool:
        """Whether a request may be sent with the key as it is."""
        due = self._due() and not self._flight.running
        return self._usable() and not due and not self._goes_alone()

    @asynccontextmanager
    async def turn(
        self, send: Send, scope: Scope, whose: Hashable = EVERYBODY
    ) -> AsyncIterator[None]:
        """Have a key for one request; what is signed goes alone until the server took one."""
        while True:
            if not self._usable() or (self._due() and not self._flight.running):
                self.refuse_circle()
                self.refuse_shut(whose)
                async with self._flight.turn():
                    if not self._usable() or self._due():
                        await self._renew(send, scope)
            if not self._goes_alone():
                break
            async with self._alone, self._use.alone():
                if self._goes_alone():
                    self._first = asyncio.current_task()
                    try:
                        yield
                    finally:
                        self._first = None
                    return
        yield

    def refuse_shut(self, whose: Hashable) -> None:
        """Raise the refusal of the key that keeps requests from being sent, if there is one."""
        refusal = self._use.refusal(whose, self._clock.now())
        if refusal is not None:
            raise refusal

    def refuse_circle(self) -> None:
        """Raise in a source that asks the session for what the session asks it for."""
        if self._renewal is not None and self._renewal in RENEWALS.get():
            message = (
                "the source of the credentials uses the session that waits for its key: give it a "
                "session of its own"
            )
            raise ConfigurationError(message)

    def _usable(self) -> bool:
        return self._key is not None and self._clock.now() < self._ends_at

    def _goes_alone(self) -> bool:
        return self._key is not None and self._key.locks_on_refusal and not self._use.proven

    def _due(self) -> bool:
        return self._clock.now() >= self._due_at

    async def _renew(self, send: Send, scope: Scope) -> None:
        """Get a new key, or raise why that failed; a key that still lasts stays in use."""
        try:
            await self._log_in(send, scope)
        except AuthenticationError as error:
            failure = error
        else:
            return
        if not self._usable():
            raise failure
        left = self._ends_at - self._clock.now()
        self._due_at = self._clock.now() + RENEW_AGAIN * left
        write(logging.WARNING, "%s; the present key lasts for %.0f s more", failure, left)

    async def _log_in(self, send: Send, scope: Scope) -> None:
        """Get a new key; of all who share the source, the first one that tries does so alone."""
        logins, at = self._logins, scope.iam_endpoint
        while isinstance(self._source, Source) and self._clock.now() >= logins.proven_until:
            seen = logins.failures
            async with logins.alone():
                if self._clock.now() < logins.proven_until:
                    break
                failed_at, failure = logins.failure or ("", None)
                if failure is not None and logins.failures > seen and failed_at == at:
                    raise copied(failure)  # IAM gave no answer to whom this one waited for
                await self._try(send, scope)
                return
        await self._try(send, scope)

    async def _try(self, send: Send, scope: Scope) -> None:
        """Get a new key, and note what the service says of who asks."""
        logins, now = self._logins, self._clock.now()
        project = getattr(self._source, "project", None) or scope.project
        refusal = logins.refusal(project, now)
        if refusal is not None:
            raise refusal
        try:
            grant = await self._obtain(send, scope)
        except IefError as error:
            failure = _unobtained(error)
            if isinstance(error, ApiError) and not error.transient:
                proven = self._clock.now() < logins.proven_until
                of_project = self._kind.for_one_project and refuses_project(
                    error, project, proven=proven
                )
                label = project if of_project else EVERYBODY
                logins.shut(label, failure, self._clock.now())
            elif error.transient:
                logins.failures += 1
                logins.failure = scope.iam_endpoint, copied(failure)
        except Exception as error:  # noqa: BLE001  whatever a user's own source raises
            place = traceback.extract_tb(error.__traceback__)[-1]
            failure = AuthenticationError(
                f"the source of the credentials raised {type(error).__name__} in {place.name}, "
                f"line {place.lineno} of {place.filename}"
            )
        else:
            logins.proven_until = self._clock.now() + PROVEN_SECONDS
            self._take(grant, now)
            return
        raise failure

    async def _obtain(self, send: Send, scope: Scope) -> Grant:
        """Get a key, as the source says."""
        if isinstance(self._source, Source):
            given = await _run(self._source.obtain(scope), send)
        else:
            self._renewal = object()
            outer = RENEWALS.set((*RENEWALS.get(), self._renewal))
            try:
                given = self._source()
                if not inspect.isawaitable(given):
                    message = (
                        "the source of the credentials is no async function: write `async def`"
                    )
                    raise AuthenticationError(message)
                given = await given
            finally:
                RENEWALS.reset(outer)
                self._renewal = None
        grant = Grant(key=given) if isinstance(given, Key) else given
        if not isinstance(grant, Grant):
            message = (
                "the source of the credentials has to give a Token or an AccessKey, but gave "
                f"{type(grant).__name__}"
            )
            raise AuthenticationError(message)
        return grant

    def _take(self, grant: Grant, asked_at: float) -> None:
        lifetime = grant.lifetime or math.inf
        self._replace(grant.key)
        self.renewals += 1
        self.project_id = grant.project_id or self.project_id
        self._due_at = asked_at + RENEW_AT * lifetime
        self._ends_at = asked_at + lifetime
        known = "" if lifetime == math.inf else f" for {lifetime:.0f} s"
        refreshed = TokenRefreshed(kind=type(grant.key).__name__, lifetime=grant.lifetime or None)
        self._observer.tell(refreshed, logging.INFO, "got a new %s%s", refreshed.kind, known)

    def _replace(self, key: Key | None) -> None:
        if self._key is not None:
            self._past.append(self._key)
        self._key = key
        self._use.proven = False

    def accept(self, key: Key, whose: Hashable = EVERYBODY) -> None:
        """Note that the server took a key; what it took before it refused one proves nothing."""
        use = self._use
        if key is not self._key or (use.proven and not use.strikes and whose in use.accepted):
            return
        late = self._goes_alone() and self._first is not asyncio.current_task()
        if not late and not use.is_shut(whose, self._clock.now()):
            use.accept(whose)
            del self._refusals[whose]

    def refuse(self, key: Key, error: AuthenticationError, whose: Hashable = EVERYBODY) -> bool:
        """Note that the server refused a key; tell whether another try with a new one may help."""
        if key is not self._key:  # it was renewed since this request was sent
            return self._source is not None
        if self._source is None and not key.locks_on_refusal:
            return False
        self._logins.proven_until = -math.inf  # tokens die early when a password was changed
        self._refusals[whose] += 1
        again = self._source is not None and self._refusals[whose] < REFUSALS
        others = self._use.accepted - {whose}
        if self._condemns(key, error, whose):
            self._shut(EVERYBODY, error)
            again = False
        elif not again:
            self._shut(whose, error)
        if self._source is not None and (again or not others):
            self._replace(None)
        return again

    def _condemns(self, key: Key, error: AuthenticationError, whose: Hashable) -> bool:
        """Tell whether a refusal means that the key is wrong for everybody, and count it."""
        use = self._use
        use.strikes += 1
        if key.locks_on_refusal and refuses_key(error):
            use.proven = False  # the next one goes alone, to see whether it holds for others, too
            known, suspected = use.accepted - {whose}, use.suspected
            use.suspected = True
            if not known:
                return use.strikes >= (1 if self._source is None else REFUSALS)
            return suspected and (whose in use.accepted or use.strikes >= STRIKES)
        return not use.accepted and use.strikes >= STRIKES

    def _shut(self, whose: Hashable, error: AuthenticationError) -> None:
        self._use.shut(whose, error, self._clock.now())
        self._refusals.clear() if whose is EVERYBODY else self._refusals.pop(whose, None)

    def scrub(self, text: str, sent: Key | None = None) -> str:
        """Return `text` without any secret that was ever sent, as far back as matters.

        `sent` is the key of the request that it answers, which may be older than those known here.
        """
        known: list[Any] = [*self._past, self._key, self._source]
        if sent is not None and sent is not self._key:
            known.insert(0, sent)
        for key in known:
            text = key.scrub(text) if hasattr(key, "scrub") else text
        return text

    def advice(self, key: Key | None, skew: float) -> str:
        """Say what to do about a refusal of this key, or of whoever asks for one if it is None."""
        kind = self._kind if key is None else key
        return kind.advice(skew=skew, renewed=self._source is not None)


async def _run(flow: Generator[Request, Reply, Grant], send: Send) -> Grant:
    """Send what a source wants to be sent, until it has what it wants."""
    try:
        request = next(flow)
        while True:
            try:
                reply = await send(request)
            except IefError as error:
                request = flow.throw(error)
            else:
                request = flow.send(reply)
    except StopIteration as end:
        granted: Grant = end.value
        return granted


def _unobtained(error: IefError) -> AuthenticationError:
    """Say that there is no key, and why: nothing else of the error matters to who wanted one."""
    failure = AuthenticationError(
        f"no credentials were got: {error}",
        status=getattr(error, "status", 0),
        error_code=getattr(error, "error_code", ""),
        error_msg=getattr(error, "error_msg", ""),
        retry_after=getattr(error, "retry_after", None),
    )
    failure.request_id, failure.attempts = error.request_id, error.attempts
    failure.elapsed = error.elapsed
    return failure
