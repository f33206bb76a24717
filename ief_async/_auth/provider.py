"""The key in use: obtained when it is first needed, renewed before it expires, replaced if refused.

The request that finds a renewal due does it; all others go on with the old key, or wait if there is
none. So one renewal serves everybody, and no task runs in the background.
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

from ief_async._auth.circuit import (
    ALL_LABELS,
    PROVEN_SECONDS,
    STRIKES,
    Circuit,
    circuit_of,
    copy_of,
)
from ief_async._auth.flight import Send, SingleFlight
from ief_async._auth.keys import Key
from ief_async._auth.refusals import refuses_project
from ief_async._auth.sources import Credentials, Grant, Scope, Source, kind_of
from ief_async._errors import ApiError, AuthenticationError, ConfigurationError, IefError
from ief_async._messages import Reply, Request
from ief_async._observer import Observer, write
from ief_async._policies import Clock

RENEW_AT = 0.8  # of a key's lifetime: of a day five hours are left, of a quarter hour three minutes
RENEW_AGAIN = 0.25  # of what is left then, if it failed
REFUSALS = 2  # in a row, of a key and of its successor
REMEMBERED_KEYS = 4  # whose text may come back in late answers

RENEWALS: ContextVar[tuple[object, ...]] = ContextVar(
    "RENEWALS", default=()
)  # those that the code runs for


class CredentialProvider:
    """The key of one session, or of several that share their credentials.

    All providers of equal credentials know what the service said of them. In all methods `label` is
    the project or target that a request is for: a key that is accepted for one and refused for
    another is wrong for that other one only.

    Attributes:
        renewals: how many keys were obtained.
        project_id: the project that the key is for, if its source tells, else None.
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
        self.project_id: str | None = None
        self._source: Any = None if isinstance(credentials, Key) else credentials
        self._kind = kind_of(credentials)
        self._clock = clock
        self._observer = observer
        self._flight = SingleFlight()
        self._trial_lock = asyncio.Lock()
        self._trial_task: asyncio.Task[Any] | None = None  # whose request tries an unproven key now
        self._renewal: object = None  # the one that runs
        self._key = credentials if isinstance(credentials, Key) else None
        self._past: deque[Key] = deque(maxlen=REMEMBERED_KEYS)
        self._due_at = self._ends_at = math.inf
        circuit = circuit or circuit_of(credentials, endpoint)
        self._login_circuit = circuit  # what the service said of whoever asks for a key
        self._key_circuit = circuit if self._key is not None else Circuit()  # and of the key itself
        self._refusals: Counter[Hashable] = Counter()  # in a row, by label

    def for_another_project(self) -> "CredentialProvider":
        """Return itself if its key is for any project, else one that gets a key of its own."""
        if not self._kind.for_one_project:
            return self
        return CredentialProvider(
            self._source, self._clock, self._observer, circuit=self._login_circuit
        )

    def key(self, label: Hashable = ALL_LABELS) -> Key | None:
        """Return the key, or None if it was replaced since `permit` by one that is unproven.

        Raises:
            AuthenticationError: it was refused less than five minutes ago.
        """
        self.raise_if_open(label)
        if self._unproven() and self._trial_task is not asyncio.current_task():
            return None
        return self._key

    @property
    def ready(self) -> bool:
        """Whether a request may be sent with the key as it is."""
        due = self._is_due() and not self._flight.running
        return self._is_usable() and not due and not self._unproven()

    @asynccontextmanager
    async def permit(
        self, send: Send, scope: Scope, label: Hashable = ALL_LABELS
    ) -> AsyncIterator[None]:
        """Hold a key for one request.

        As long as a key that the service may lock is unproven, one request at a time has a permit.

        Args:
            send: sends a request for a key.
            scope: what a key is needed for.
            label: the project or target that the request is for.
        """
        while True:
            if not self._is_usable() or (self._is_due() and not self._flight.running):
                self.raise_if_reentrant()
                self.raise_if_open(label)
                async with self._flight.exclusive():
                    if not self._is_usable() or self._is_due():
                        await self._renew(send, scope)
            if not self._unproven():
                break
            async with self._trial_lock, self._key_circuit.trial():
                if self._unproven():
                    self._trial_task = asyncio.current_task()
                    try:
                        yield
                    finally:
                        self._trial_task = None
                    return
        yield

    def raise_if_open(self, label: Hashable) -> None:
        """Raise the refusal that keeps requests with this key from being sent, if there is one."""
        refusal = self._key_circuit.refusal(label, self._clock.now())
        if refusal is not None:
            raise refusal

    def raise_if_reentrant(self) -> None:
        """Raise in a source that uses the session which waits for that source's key."""
        if self._renewal is not None and self._renewal in RENEWALS.get():
            message = (
                "the source of the credentials uses the session that waits for its key: give the "
                "source a session of its own"
            )
            raise ConfigurationError(message)

    def _is_usable(self) -> bool:
        return self._key is not None and self._clock.now() < self._ends_at

    def _unproven(self) -> bool:
        """Tell whether the key may be wrong, and would be locked if many requests tried it."""
        return self._key is not None and self._key.locks_on_refusal and not self._key_circuit.proven

    def _is_due(self) -> bool:
        return self._clock.now() >= self._due_at

    async def _renew(self, send: Send, scope: Scope) -> None:
        """Obtain a new key, or raise why not; a key that has not expired stays in use."""
        try:
            await self._log_in(send, scope)
        except AuthenticationError as error:
            failure = error
        else:
            return
        if not self._is_usable():
            raise failure
        left = self._ends_at - self._clock.now()
        self._due_at = self._clock.now() + RENEW_AGAIN * left
        write(logging.WARNING, "%s; the present key is valid for %.0f s more", failure, left)

    async def _log_in(self, send: Send, scope: Scope) -> None:
        """Obtain a new key; of all who share the source, one tries first."""
        circuit, place = self._login_circuit, scope.iam_endpoint
        while isinstance(self._source, Source) and self._clock.now() >= circuit.proven_until:
            seen = circuit.failures
            async with circuit.trial():
                if self._clock.now() < circuit.proven_until:
                    break
                failed_at, failure = circuit.failure or ("", None)
                if failure is not None and circuit.failures > seen and failed_at == place:
                    raise copy_of(failure)  # no answer came to the trial that this one waited for
                await self._try(send, scope)
                return
        await self._try(send, scope)

    async def _try(self, send: Send, scope: Scope) -> None:
        """Obtain a new key, and note what the service says of whoever asks for it."""
        circuit, now = self._login_circuit, self._clock.now()
        project = getattr(self._source, "project", None) or scope.project
        refusal = circuit.refusal(project, now)
        if refusal is not None:
            raise refusal
        try:
            grant = await self._obtain(send, scope)
        except IefError as error:
            failure = _no_credentials(error)
            if isinstance(error, ApiError) and not error.transient:
                proven = self._clock.now() < circuit.proven_until
                of_project = self._kind.for_one_project and refuses_project(
                    error, project, proven=proven
                )
                label = project if of_project else ALL_LABELS
                circuit.open(label, failure, self._clock.now())
            elif error.transient:
                circuit.failures += 1
                circuit.failure = scope.iam_endpoint, copy_of(failure)
        except Exception as error:  # noqa: BLE001  whatever a user's own source raises
            place = traceback.extract_tb(error.__traceback__)[-1]
            failure = AuthenticationError(
                f"the source of the credentials raised {type(error).__name__} in {place.name}, "
                f"line {place.lineno} of {place.filename}"
            )
        else:
            circuit.proven_until = self._clock.now() + PROVEN_SECONDS
            self._adopt(grant, now)
            return
        raise failure

    async def _obtain(self, send: Send, scope: Scope) -> Grant:
        """Obtain a key from the source."""
        if isinstance(self._source, Source):
            given = await _run(self._source.obtain(scope), send)
        else:
            self._renewal = object()
            outer = RENEWALS.set((*RENEWALS.get(), self._renewal))
            try:
                given = self._source()
                if not inspect.isawaitable(given):
                    message = (
                        "the source of the credentials must be an async function: write `async def`"
                    )
                    raise AuthenticationError(message)
                given = await given
            finally:
                RENEWALS.reset(outer)
                self._renewal = None
        grant = Grant(key=given) if isinstance(given, Key) else given
        if not isinstance(grant, Grant):
            message = (
                "the source of the credentials must return a Token or an AccessKey, got "
                f"{type(grant).__name__}"
            )
            raise AuthenticationError(message)
        return grant

    def _adopt(self, grant: Grant, asked_at: float) -> None:
        from ief_async._events import TokenRefreshed  # most sessions make no event

        lifetime = grant.lifetime or math.inf
        self._replace(grant.key)
        self.renewals += 1
        self.project_id = grant.project_id or self.project_id
        self._due_at = asked_at + RENEW_AT * lifetime
        self._ends_at = asked_at + lifetime
        known = "" if lifetime == math.inf else f" for {lifetime:.0f} s"
        refreshed = TokenRefreshed(kind=type(grant.key).__name__, lifetime=grant.lifetime or None)
        self._observer.tell(refreshed, logging.INFO, "obtained a new %s%s", refreshed.kind, known)

    def _replace(self, key: Key | None) -> None:
        if self._key is not None:
            self._past.append(self._key)
        self._key = key
        self._key_circuit.proven = False

    def accept(self, key: Key, label: Hashable = ALL_LABELS) -> None:
        """Note that the service accepted a key; an answer from before a refusal proves nothing."""
        circuit = self._key_circuit
        if key is not self._key or (
            circuit.proven and not circuit.strikes and label in circuit.accepted
        ):
            return
        late = self._unproven() and self._trial_task is not asyncio.current_task()
        if not late and not circuit.is_open(label, self._clock.now()):
            circuit.accept(label)
            del self._refusals[label]

    def refuse(self, key: Key, error: AuthenticationError, label: Hashable = ALL_LABELS) -> bool:
        """Note that the service refused a key; tell whether to try again with a new one."""
        if key is not self._key:  # it was renewed since this request was sent
            return self._source is not None
        if self._source is None and not key.locks_on_refusal:
            return False
        self._login_circuit.proven_until = -math.inf  # tokens die early when a password was changed
        self._refusals[label] += 1
        again = self._source is not None and self._refusals[label] < REFUSALS
        others = self._key_circuit.accepted - {label}
        if self._is_wrong_for_all(key, error, label):
            self._open_circuit(ALL_LABELS, error)
            again = False
        elif not again:
            self._open_circuit(label, error)
        if self._source is not None and (again or not others):
            self._replace(None)
        return again

    def _is_wrong_for_all(self, key: Key, error: AuthenticationError, label: Hashable) -> bool:
        """Count a refusal, and tell whether it means that the key is wrong for every label."""
        circuit = self._key_circuit
        circuit.strikes += 1
        if key.locks_on_refusal and key.refuses_key(error.error_msg):
            circuit.proven = False  # one request tries whether it is refused for others, too
            known, suspected = circuit.accepted - {label}, circuit.suspected
            circuit.suspected = True
            if not known:
                return circuit.strikes >= (1 if self._source is None else REFUSALS)
            return suspected and (label in circuit.accepted or circuit.strikes >= STRIKES)
        return not circuit.accepted and circuit.strikes >= STRIKES

    def _open_circuit(self, label: Hashable, error: AuthenticationError) -> None:
        self._key_circuit.open(label, error, self._clock.now())
        self._refusals.clear() if label is ALL_LABELS else self._refusals.pop(label, None)

    def scrub(self, text: str, sent: Key | None = None) -> str:
        """Return `text` without any secret that was sent, as far back as matters.

        `sent` is the key of the request that `text` answers; it may be older than those known here.
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
    """Send what a source asks for, until it has its key."""
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


def _no_credentials(error: IefError) -> AuthenticationError:
    """Say that there is no key, and why: nothing else of the error matters to the request."""
    # what is wrong with the call, or that nothing was found anywhere, is a sentence of its own
    whole = isinstance(error, ConfigurationError)
    failure = AuthenticationError(
        str(error) if whole else f"No credentials obtained: {error}",
        status=getattr(error, "status", 0),
        error_code=getattr(error, "error_code", ""),
        error_msg=getattr(error, "error_msg", ""),
        retry_after=getattr(error, "retry_after", None),
    )
    failure.request_id, failure.attempts = error.request_id, error.attempts
    failure.elapsed = error.elapsed
    return failure
