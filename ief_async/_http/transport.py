"""One request from end to end: a key, a slot, a signature, the exchange, and what it means."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import attrs

from ief_async._auth import CredentialProvider, Key, Project, Scope, Secret
from ief_async._errors import (
    ApiError,
    AuthenticationError,
    IefError,
    PayloadError,
    TransportError,
)
from ief_async._http.connections import Connections
from ief_async._http.exchange import ERROR_BODY_BYTES, Exchange, Unreached, exchange
from ief_async._http.pacer import Pacer
from ief_async._http.responses import (
    OK,
    Failure,
    beginning,
    classify_refusal,
    has_error_code,
    is_retried,
    named,
    parse_refusal,
    request_id_of,
    word_refusal,
)
from ief_async._http.sending import Sending
from ief_async._messages import Answer, Reply, Request
from ief_async._observer import Observer, write
from ief_async._policies import Clock, Limits, RetryPolicy, Timeouts
from ief_async._values import Value

T = TypeVar("T")

M = TypeVar("M")

PLAIN_HEADERS = frozenset({"Content-Type"})  # of a request for a key


class Endpoints:
    """The addresses of a service: the first one is used until another one answers in its place.

    Attributes:
        known: all of them.
        home: the first.
        current: the one in use.
    """

    def __init__(self, *known: str) -> None:
        self.known = known
        self.home = self.current = known[0]

    def urls(self, url: str) -> list[str]:
        """Return a URL at each address, the current one first; itself if it is of another host."""
        if len(self.known) == 1:
            return [url]
        old = next((known for known in self.known if url.startswith(f"{known}/")), None)
        if old is None:
            return [url]
        rest = url.removeprefix(old)
        return [known + rest for known in dict.fromkeys((self.current, *self.known))]

    def adopt(self, url: str, unreached: Collection[str]) -> None:
        """Use the address of a URL that was answered, if the current one was not reached."""
        answered = next(known for known in self.known if url.startswith(f"{known}/"))
        if any(failed.startswith(f"{self.current}/") for failed in unreached):
            write(logging.WARNING, "%s can't be reached; going on with %s", self.current, answered)
            self.current = answered


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Transport(Value):
    """Sends the requests of one project at one endpoint. All that it holds may be shared."""

    endpoints: Endpoints
    iam_endpoint: str
    provider: CredentialProvider
    project: Project
    instance_id: str | None
    connections: Connections
    pacer: Pacer
    observer: Observer
    clock: Clock
    retry: RetryPolicy
    limits: Limits
    timeouts: Timeouts

    @property
    def endpoint(self) -> str:
        """Where requests are sent now."""
        return self.endpoints.current

    @property
    def _scope(self) -> Scope:
        return Scope(iam_endpoint=self.iam_endpoint, project=self.project.given or None)

    @property
    def _label(self) -> Hashable:
        """Whom the requests are for: a key may be accepted for one and refused for another."""
        return self.endpoints.home, self.project.given, self.instance_id

    async def get(
        self,
        target: str,
        read: Callable[[bytes], T],
        *,
        deadline: float = math.inf,
        scan: int | None = None,
    ) -> Answer[T]:
        """Fetch a target and `read` its body, with retries.

        Args:
            target: path and query, encoded; ``{project_id}`` stands for the project's id.
            read: makes the value from the body, or raises `PayloadError`.
            deadline: a moment of the clock.
            scan: the scan whose share of the slots it takes.

        Raises:
            IefError: what came of it after all attempts; never an error of aiohttp.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # In a task that was cancelled before and went on, `asyncio.timeout`, which aiohttp
            # connects under, raises CancelledError before Python 3.11.3; in a new task it does not.
            return await asyncio.create_task(self.get(target, read, deadline=deadline, scan=scan))
        self.connections.session()  # what can't be sent at all counts no attempt
        sending = Sending(self.clock.now(), target.partition("?")[0], scan)
        if deadline == math.inf:
            return await self._get(target, read, sending, deadline)
        scope = asyncio.timeout(max(0.0, deadline - sending.started))
        try:
            async with scope:
                return await self._get(target, read, sending, deadline)
        except TimeoutError:
            if not scope.expired():
                raise
        elapsed = self.clock.now() - sending.started
        path = target.partition("?")[0]
        late = TransportError(f"GET {path}: the deadline passed after {elapsed:.3g} s")
        late.attempts, late.elapsed = sending.sent, elapsed
        raise late

    async def _get(
        self, target: str, read: Callable[[bytes], T], sending: Sending, deadline: float
    ) -> Answer[T]:
        project_id = self.project.id or await self.project.find(
            self.provider, self._send, self._ask, self._scope
        )
        target = target.replace("{project_id}", project_id)
        headers = {"Content-Type": "application/json", "X-Project-Id": project_id}
        if self.instance_id:
            headers["ief-instance-id"] = self.instance_id
        request = Request(url=self.endpoint + target, headers=headers)
        return await self._deliver(request, read, sending, deadline)

    async def _deliver(
        self,
        request: Request,
        read: Callable[[bytes], T],
        sending: Sending,
        deadline: float = math.inf,
    ) -> Answer[T]:
        """Send an authenticated request until it is answered; once more if its key was stale."""

        async def attempt(_: int) -> Answer[T]:
            outcome = await self._signed(request, read, sending)
            if isinstance(outcome, IefError):
                raise outcome
            return outcome

        def permit() -> AbstractAsyncContextManager[None]:
            if self.provider.ready:
                return nullcontext()
            return self.provider.permit(self._send, self._scope, self._label)

        while True:
            sending.stale = False  # what is refused before it was sent is refused for good
            try:
                return await self.pacer.run(
                    attempt,
                    retry=self.retry,
                    deadline=deadline,
                    scan=sending.scan,
                    path=sending.path,
                    sent=sending.sent,
                    permit=permit,
                )
            except IefError as error:
                error.attempts = sending.sent
                error.elapsed = self.clock.now() - sending.started
                stale = sending.stale and isinstance(error, AuthenticationError)
                if not stale or sending.refused > 1:
                    raise

    async def _signed(
        self, request: Request, read: Callable[[bytes], T], sending: Sending
    ) -> Answer[T] | IefError:
        """Send a request once, read its answer, and note what that says of the key."""
        key = self.provider.key(self._label)
        sending.stale = key is None
        if key is None:
            return AuthenticationError("the key changed while the request waited for a slot")
        sending.sent += 1

        def meaning(reached: Exchange) -> Answer[T] | IefError:
            if reached.status in request.expected:
                return self._read(request, reached, key, read, sending)
            return self._refusal(request, reached, key)

        outcome = await self._reach(request, key, meaning, sending)
        if isinstance(outcome, AuthenticationError):
            sending.stale = self.provider.refuse(key, outcome, self._label)
            sending.refused += sending.stale
            if sending.stale and sending.refused == 1:
                self.pacer.counters.retries += 1
                if self.observer.wants(logging.DEBUG):
                    self.pacer.tell_retry(
                        outcome, sending.sent, wait=0.0, scan=sending.scan, path=sending.path
                    )
        elif isinstance(outcome, Answer | ApiError) and not getattr(outcome, "transient", False):
            self.provider.accept(key, self._label)
        return outcome

    async def _reach(
        self,
        request: Request,
        key: Key,
        meaning: Callable[[Exchange], M | IefError],
        sending: Sending,
    ) -> M | IefError:
        """Send a request to the current endpoint, or to the others if its name or TLS fails.

        One that answers is kept. If none does, an error that a repeat may fix is preferred.
        """
        failures: list[IefError] = []
        tried: list[str] = []
        for url in self.endpoints.urls(request.url):
            there = request if url == request.url else attrs.evolve(request, url=url)
            outcome = await self._exchange(there, key, meaning, sending)
            if not isinstance(outcome, Unreached):
                if tried:
                    self.endpoints.adopt(url, tried)
                return outcome
            tried.append(url)
            failures.append(outcome.error)
            if not outcome.elsewhere:
                break
        return next((error for error in reversed(failures) if error.transient), failures[-1])

    async def _ask(self, request: Request) -> Reply:
        """Send an authenticated request to another service than IEF."""
        sending = Sending(self.clock.now(), urlsplit(request.url).path)
        answer = await self._deliver(request, bytes, sending)
        return Reply(status=OK, headers={}, body=answer.raw)

    async def _send(self, request: Request) -> Reply:
        """Send a request for a key, which needs no key."""
        sending = Sending(self.clock.now(), urlsplit(request.url).path)

        def meaning(reached: Exchange) -> Reply | IefError:
            if reached.status == OK and OK not in request.expected:
                failure = Failure.UNEXPECTED_OK
                return self._payload_error(
                    request, reached, PayloadError(failure.value), failure, None
                )
            if reached.status not in request.expected:
                return self._refusal(request, reached, None)
            names = {name.lower(): value for name, value in reached.headers.items()}
            return Reply(status=reached.status, headers=names, body=reached.body)

        async def attempt(_: int) -> Reply:
            sending.sent += 1
            outcome = await self._exchange(request, None, meaning, sending)
            if isinstance(outcome, Unreached):
                raise outcome.error
            if isinstance(outcome, IefError):
                raise outcome
            return outcome

        once = attrs.evolve(self.retry, attempts=1)
        return await self.pacer.run(
            attempt, retry=once if request.timeout else self.retry, path=sending.path
        )

    async def _exchange(
        self,
        request: Request,
        key: Key | None,
        meaning: Callable[[Exchange], M | IefError],
        sending: Sending,
    ) -> M | IefError | Unreached:
        """Send a request once, and say what its answer means."""
        self.pacer.counters.requests += 1

        def sign() -> Mapping[str, str]:
            return key.headers(request, now=self.clock.wall()) if key is not None else {}

        answer = exchange(
            self.connections,
            request,
            sign,
            timeouts=self.timeouts,
            max_body_bytes=self.limits.max_body_bytes,
            scrub=partial(self._scrub, request, key),
            quotable=key is not None,
            # what is sent once has no repeat that could make up for a dead connection
            fresh=sending.fresh or request.timeout is not None,
        )
        if self.observer.wants(logging.DEBUG):
            outcome = await self._observed(answer, meaning, request.method, sending)
        else:
            reached = await answer
            outcome = meaning(reached) if isinstance(reached, Exchange) else reached
        sending.fresh = isinstance(outcome, Unreached) and outcome.reused
        return outcome

    async def _observed(
        self,
        answer: Awaitable[Exchange | Unreached],
        meaning: Callable[[Exchange], M | IefError],
        method: str,
        sending: Sending,
    ) -> M | IefError | Unreached:
        """Wait for an answer; emit events when it is asked for and when it came."""
        started = self.clock.now()
        sending.tell_started(self.observer, method)
        try:
            reached = await answer
        except BaseException as error:
            elapsed = self.clock.now() - started
            sending.tell_finished(self.observer, method, elapsed, None, error)
            raise
        elapsed = self.clock.now() - started
        outcome = meaning(reached) if isinstance(reached, Exchange) else reached
        sending.tell_finished(self.observer, method, elapsed, reached, outcome)
        return outcome

    # -- what an answer means ------------------------------------------------------------------

    def _read(
        self,
        request: Request,
        reached: Exchange,
        key: Key,
        read: Callable[[bytes], T],
        sending: Sending,
    ) -> Answer[T] | IefError:
        """Read the body of a 200; if it is an error body, it is that error."""
        if reached.problem:
            problem = PayloadError(reached.problem)
            return self._payload_error(request, reached, problem, Failure.WRONG_BODY, key)
        try:
            value = read(reached.body)
        except PayloadError as error:
            problem = error
        else:
            return Answer(
                value=value,
                raw=reached.body,
                request_id=request_id_of(reached.headers, partial(self._scrub, request, key)),
                elapsed=self.clock.now() - sending.started,
                attempts=sending.sent,
                scrub=self.provider.scrub,
            )
        # no error body is longer, and it would take long to parse
        short = len(reached.body) <= ERROR_BODY_BYTES
        if short and not problem.transient and has_error_code(reached.body):
            return self._refusal(request, reached, key)
        failure = Failure.NOT_JSON if problem.transient else Failure.WRONG_BODY
        return self._payload_error(request, reached, problem, failure, key)

    def _payload_error(
        self,
        request: Request,
        reached: Exchange,
        problem: PayloadError,
        failure: Failure,
        key: Key | None,
    ) -> PayloadError:
        """Add to an error of the body which answer it was."""
        scrub = partial(self._scrub, request, key)
        request_id = request_id_of(reached.headers, scrub)
        error = PayloadError(
            f"{_name_of(request)}{named(request_id)}: {scrub(problem.message)}",
            path=scrub(problem.path),
            snippet=beginning(reached.body, scrub) if problem.snippet else "",
            transient=is_retried(failure),
        )
        error.request_id = request_id
        return error

    def _refusal(self, request: Request, reached: Exchange, key: Key | None) -> ApiError:
        """Turn an answer that says no into an error that says what to do about it."""
        said = parse_refusal(
            reached.status,
            reached.headers,
            reached.body,
            now=self.clock.wall(),
            scrub=partial(self._scrub, request, key),
            quotable=key is not None,
        )
        verdict = classify_refusal(said.status, said.code, for_key=key is None)
        advice = self.provider.advice(key, said.skew)
        error = verdict.error(
            word_refusal(said, verdict, request=_name_of(request), credentials=advice),
            status=said.status,
            error_code=said.code,
            error_msg=said.message,
            retry_after=said.retry_after,
            transient=verdict.retried,
        )
        error.window = said.window
        error.request_id = said.request_id
        return error

    def _scrub(self, request: Request, key: Key | None, text: str) -> str:
        """Return the server's words without anything secret that was sent to it."""
        if key is not None:
            return self.provider.scrub(text, key)
        # a request for a key has its secrets wherever its source put them
        sent = [value for name, value in request.headers.items() if name not in PLAIN_HEADERS]
        sent += [urlsplit(request.url).query, request.body.decode("utf-8", "replace")]
        for one in sent:
            text = Secret(one).scrub(text)
        return self.provider.scrub(text)


def _name_of(request: Request) -> str:
    return f"{request.method} {urlsplit(request.url).path}"
