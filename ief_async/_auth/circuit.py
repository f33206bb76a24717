"""What a service said of credentials, for all who share them: one wrong key is sent once.

A `Circuit` is a circuit breaker: while it is open, nothing is sent. It is shared by the providers
of any session, event loop and thread, so nothing of a loop is in it, and no secret: it is found by
the value of the credentials, and is gone with the last object that has this value.
"""

import asyncio
import copy
import os
import threading
import weakref
from collections.abc import AsyncIterator, Hashable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from ief_async._auth.sources import kind_of
from ief_async._errors import AuthenticationError, IefError

OPEN_SECONDS = 300.0  # for so long the service locks a key that failed a few times in a row
PROVEN_SECONDS = 60.0  # for so long a login proves that the password is right
TRIAL_SECONDS = 120.0  # how long one waits for another's trial, whose loop may have been stopped
STRIKES = 4  # refusals in a row, of any targets, before a key is taken to be wrong; six lock it
PUBLIC_CLOUD = ".myhuaweicloud.com"

E = TypeVar("E", bound=IefError)
ALL_LABELS = None  # in place of a label: what holds for every project and target


class Circuit:
    """What was accepted and refused, and for whom: a label is a project, or a target.

    Whoever uses it decides when it opens. A key that is locked on refusal goes through states::

        untried    nothing was accepted: one request at a time
            -> proven     one was accepted
            -> open       a refusal of the key itself, or `STRIKES` of any kind
        proven     requests are sent together
            -> suspected  a refusal of the key itself, which others were accepted with
            -> open       the same, if no other label was accepted
        suspected  what was accepted is still known, but one request at a time tries again
            -> proven     it was accepted
            -> open       it was refused, too, for a label that was accepted, or by `STRIKES`
        open       nothing is sent
            -> untried    `OPEN_SECONDS` later

    In each of them a refused label may be open alone, which leaves the state as it is.

    Attributes:
        proven: whether the service accepted the key since it last refused it.
        proven_until: until when, on the clock of whoever uses it, a login counts as proof.
        accepted: the labels that it was accepted for.
        suspected: whether it was refused since, in words about the key itself.
        strikes: refusals in a row, of whatever label.
        failures: trials of a login that told nothing.
        failure: where the last of them was, and how it failed.
    """

    def __init__(self) -> None:
        self.proven: bool = False
        self.proven_until: float = float("-inf")
        self.accepted: set[Hashable] = set()
        self.suspected: bool = False
        self.strikes: int = 0
        self.failures: int = 0
        self.failure: tuple[str, IefError] | None = None
        self._open_until: dict[Hashable, tuple[float, AuthenticationError]] = {}
        self._lock = threading.Lock()
        self._trial: tuple[int, Future[None]] | None = None
        self._holders: set[int] = set()

    # -- open or closed ------------------------------------------------------------------------

    def open(self, label: Hashable, error: AuthenticationError, now: float) -> None:
        """Let nothing be sent for a label for a while: whoever goes on being refused is locked."""
        self._open_until[label] = now + OPEN_SECONDS, copy_of(error)
        self.proven = False if label is ALL_LABELS else self.proven
        if label is ALL_LABELS:
            self.proven_until = float("-inf")
            self.accepted.clear()
            self.suspected, self.strikes = False, 0

    def is_open(self, label: Hashable, now: float) -> bool:
        """Tell whether nothing may be sent for a label."""
        return any(
            now < self._open_until[one][0] for one in (ALL_LABELS, label) if one in self._open_until
        )

    def refusal(self, label: Hashable, now: float) -> AuthenticationError | None:
        """Return a copy of the refusal that keeps a label from sending, or None."""
        for one in (ALL_LABELS, label):
            until, error = self._open_until.get(one, (now, None))
            if error is not None and now < until:
                refusal = copy_of(error)
                refusal.add_note(
                    f"Not sent: the same credentials were refused less than {OPEN_SECONDS:g} s "
                    "ago, and the service locks out whoever goes on trying."
                )
                return refusal
        return None

    def accept(self, label: Hashable) -> None:
        """Note that the service accepted the key."""
        self.proven = True
        self.suspected, self.strikes = False, 0
        self.accepted.add(label)

    # -- one trial at a time -------------------------------------------------------------------

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        """Be the only one who tries, of all loops and threads; wait for another's trial to end."""
        own: Future[None] = Future()
        own.set_running_or_notify_cancel()  # so that a waiter who is cancelled can't cancel it
        passed_over = None
        while (running := self._begin(own, passed_over)) is not None:
            left = asyncio.wrap_future(running)
            try:
                done, _ = await asyncio.wait({left}, timeout=TRIAL_SECONDS)
            finally:
                left.cancel()  # else it would be told of the end in a loop that may be closed
            passed_over = None if done else running
        try:
            yield
        finally:
            with self._lock:
                if self._trial is not None and self._trial[1] is own:
                    self._trial = None
            own.set_result(None)

    def _begin(self, own: Future[None], passed_over: Future[None] | None) -> Future[None] | None:
        """Begin a trial; or return what tells that another's has ended."""
        with self._lock:
            if self._trial is not None:
                process, running = self._trial
                if process == os.getpid() and running is not passed_over:
                    return running
            self._trial = os.getpid(), own
            return None

    # -- who shares it -------------------------------------------------------------------------

    def hold(self, credentials: object) -> None:
        """Last for as long as these credentials do."""
        number = id(credentials)
        if number not in self._holders:
            self._holders.add(number)
            weakref.finalize(credentials, self._release, number).atexit = False

    def _release(self, number: int) -> None:
        self._holders.discard(number)


_KNOWN: "weakref.WeakValueDictionary[Hashable, Circuit]" = weakref.WeakValueDictionary()
_KNOWN_LOCK = threading.Lock()


def circuit_of(credentials: object, endpoint: str) -> Circuit:
    """Return the circuit of all credentials that are equal to these, where these are checked.

    Passwords and access keys are the same wherever their values are, for each cloud. Of other
    sources nobody knows what they stand for: each has a circuit of its own.
    """
    identity = kind_of(credentials).identity()
    if identity is None:
        return Circuit()
    key = (type(credentials), identity, _cloud(endpoint))
    try:
        hash(key)
    except TypeError:  # a passcode function that is no value
        return Circuit()
    with _KNOWN_LOCK:
        circuit = _KNOWN.get(key)
        if circuit is None:
            circuit = _KNOWN[key] = Circuit()
        circuit.hold(credentials)
        return circuit


def _cloud(endpoint: str) -> str:
    """Return what has the same accounts: an address, or all of the public cloud."""
    parts = urlsplit(endpoint)
    return PUBLIC_CLOUD if (parts.hostname or "").endswith(PUBLIC_CLOUD) else parts.netloc


def copy_of(error: E) -> E:
    """Return an error of its own for each who gets it: where it was met is added to its notes."""
    again = copy.copy(error)
    if hasattr(error, "__notes__"):
        again.__notes__ = [*error.__notes__]
    return again
