"""Keys while requests are made with them: got, shared, renewed, refused."""

import asyncio
import base64
import hashlib
import json
import logging
import pickle
import time
from collections import Counter
from itertools import count
from urllib.parse import quote

import attrs
import pytest
from asking import LOGIN, access_key, ask, kinds, password, seen, session
from conftest import session_at, turns, until

from ief_async import (
    AccessKey,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    EcsMetadata,
    IefSession,
    Limits,
    PermissionDeniedError,
    RetryPolicy,
    Timeouts,
    Token,
    TransportError,
)
from ief_async._auth.sources import Grant
from ief_async._messages import Request
from ief_async.testing import Account, FakeIef, Fault, Service

REFUSED = Fault.status(401, error_code="APIGW.0307", error_msg="renew", shape="apigw")


@pytest.fixture
async def fake(fake_clock):
    """Run a fake fleet of 200 pods whose time is that of the fake clock."""
    async with FakeIef(200, deployments=8, service=Service(clock=fake_clock.clock.wall)) as running:
        yield running


@pytest.fixture
def clock(fake_clock):
    """Give the option that lets a session run on the fake clock."""
    return {"clock": fake_clock.clock}


# ---- tokens --------------------------------------------------------------------------------------


async def test_token_is_got_once_for_all(fake, clock):
    """Requests that start together share one login; what it asks is the documented body."""
    async with session(fake, password(fake), **clock) as ief:
        outcomes = await ask(ief, fake, 16)
        figures = ief.statistics()

    assert {"Page": 16} == kinds(outcomes)
    assert (1, 1, 17) == (seen(fake, LOGIN), figures.token_refreshes, figures.requests)
    login = next(request for request in fake.requests if request.path == LOGIN)
    assert "nocatalog=true" == login.raw_query
    assert json.loads(login.body) == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {
                        "name": fake.user,
                        "password": fake.password,
                        "domain": {"name": fake.domain},
                    }
                },
            },
            "scope": {"project": {"id": fake.project_id}},
        }
    }


async def test_second_factor_is_asked_for_each_login(fake, clock):
    """With a passcode both methods are sent, and a function gives a new code each time."""
    codes = iter(["111111", "222222"])
    credentials = password(fake, user_id=fake.user_id, passcode=lambda: next(codes))
    async with session(fake, credentials, **clock) as ief:
        fake.passcode = "111111"
        assert {"Page": 1} == kinds(await ask(ief, fake))
        fake.passcode = "222222"
        fake.forget_tokens()
        assert {"Page": 1} == kinds(await ask(ief, fake))

    assert 2 == seen(fake, LOGIN)


@pytest.mark.parametrize("face", ["APIGW.0307", "APIGW.0301", "IEF.310002"])
async def test_each_face_of_an_expired_token_is_renewed(fake, clock, face):
    """An expired token, however it is refused, status 400 included: one login and one repeat."""
    fake.expired = face
    async with session(fake, password(fake), **clock) as ief:
        await ask(ief, fake)
        fake.expire_tokens()
        (page,) = await ask(ief, fake)
        figures = ief.statistics()

    assert 2 == page.attempts
    assert (2, 2, 1) == (seen(fake, LOGIN), figures.token_refreshes, figures.retries)


async def test_one_renewal_serves_all_workers(fake, clock):
    """A token that dies under 8 workers is renewed once, and each page is sent once again."""
    async with session(fake, password(fake), **clock) as ief:
        await ask(ief, fake)
        fake.forget_tokens()
        outcomes = await ask(ief, fake, 8)

    assert [2] * 8 == [page.attempts for page in outcomes]
    assert 2 == seen(fake, LOGIN)
    assert 1 + 16 == seen(fake, "/pods")


async def test_staggered_refusals_cost_one_renewal(fake):
    """40 refusals of one dead token, the last long after the renewal, cost one login."""
    wide = {"limits": Limits(concurrency=40)}
    async with session(fake, password(fake), **wide) as ief:
        await ask(ief, fake)
        dead = fake.requests[-1].headers["x-auth-token"]
        fake.forget_tokens()
        turns = count()

        def staggered(request):
            old = request.headers.get("x-auth-token") == dead
            return Fault.slow(next(turns) * 0.01) if old else None

        fake.intercept(staggered)
        outcomes = await ask(ief, fake, 40)

    assert 40 == next(turns)
    assert {"Page": 40} == kinds(outcomes)
    assert 2 == seen(fake, LOGIN)
    assert 1 + 80 == seen(fake, "/pods")


async def test_token_that_is_refused_again_ends_it(fake, clock, fake_clock):
    """A new token that is refused, too, is the error; then nothing is sent for five minutes."""
    async with session(fake, password(fake), **clock) as ief:
        fake.intercept(lambda request: REFUSED if request.path.endswith("/pods") else None)
        first = await ask(ief, fake)
        sent = len(fake.requests)
        unsent = await ask(ief, fake, 8)
        still = len(fake.requests)
        fake.intercept(None)
        fake_clock.time += 300
        later = await ask(ief, fake)

    assert {"AuthenticationError": 1} == kinds(first)
    assert (2, 2) == (seen(fake, LOGIN) - 1, first[0].attempts)
    assert (sent, {"AuthenticationError": 8}) == (still, kinds(unsent))
    assert "Not sent" in unsent[0].__notes__[0]
    assert {"Page": 1} == kinds(later)


async def test_token_is_renewed_ahead_of_its_end(fake, clock, fake_clock):
    """Tokens of a minute are renewed at four fifths of it: no page is refused or lost."""
    fake.token_lifetime = 60.0
    ids = []
    async with session(fake, password(fake), **clock) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, concurrency=2)
        async for page in stream.pages():
            ids += [pod.id for pod in page.items]
            fake_clock.time += 11
        figures = ief.statistics()

    assert sorted(ids) == sorted(fake.pod_ids())
    assert 0 == stream.report.retries == figures.retries
    assert 1 < seen(fake, LOGIN) == figures.token_refreshes


async def test_who_finds_a_token_due_renews_it_for_all(fake, clock, fake_clock, held_back):
    """While one renews a token that is due, the others go on with it."""
    async with session(fake, password(fake), **clock) as ief:
        await ask(ief, fake)
        old = fake.requests[-1].headers["x-auth-token"]
        fake_clock.time += 0.9 * fake.token_lifetime
        fake.intercept(lambda request: Fault.slow(1) if request.path == LOGIN else None)
        asked = asyncio.create_task(ask(ief, fake, 8))
        await until(lambda: seen(fake, "/pods") == 1 + 7)
        held_back.set()
        outcomes = await asked

    assert {"Page": 8} == kinds(outcomes)
    assert 2 == seen(fake, LOGIN)
    tokens = Counter(request.headers.get("x-auth-token") == old for request in fake.requests[-8:])
    assert {True: 7, False: 1} == tokens


async def test_renewal_ahead_may_fail(fake, clock, fake_clock, caplog):
    """If IAM fails while the token still lasts, it is used on with a warning, renewed later."""
    async with session(fake, password(fake), retry=RetryPolicy(attempts=1), **clock) as ief:
        await ask(ief, fake)
        fake_clock.time += 0.9 * fake.token_lifetime
        fake.intercept(lambda request: Fault.status(500) if request.path == LOGIN else None)
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))
        failed = seen(fake, LOGIN)
        fake.intercept(None)
        fake_clock.time += 0.05 * fake.token_lifetime
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))

    assert (2, 3) == (failed, seen(fake, LOGIN))
    assert 1 == sum(record.levelno == logging.WARNING for record in caplog.records)
    assert "No credentials obtained" in caplog.text


async def test_iam_that_is_down_is_an_authentication_error(fake, clock):
    """All workers wait for one login; it is tried six times, and its failure is everybody's."""
    fake.intercept(lambda request: Fault.status(503) if request.path == LOGIN else None)
    async with session(fake, password(fake), **clock) as ief:
        outcomes = await ask(ief, fake, 8)
        assert (6, 0) == (seen(fake, LOGIN), seen(fake, "/pods"))
        fake.intercept(None)
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))

    assert {"AuthenticationError": 8} == kinds(outcomes)
    assert "No credentials obtained: POST /v3/auth/tokens was answered 503" in str(outcomes[0])
    assert len({id(error) for error in outcomes}) == 8


async def test_iam_that_recovers_is_waited_for(fake, clock):
    """A login that fails or meets a web page is tried again, and nobody notices."""
    fake.script(Fault.status(503), Fault.drop(), Fault.cut(), Fault.html(), Fault.empty())
    async with session(fake, password(fake), **clock) as ief:
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))

    assert 6 == seen(fake, LOGIN)


async def test_scan_ends_with_the_refusal_of_its_token(fake, clock):
    """A static token that is refused ends the scan under any policy; a request per worker."""
    async with session(fake, Token("wrong-token"), **clock) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, concurrency=4, on_error="collect")
        with pytest.raises(AuthenticationError, match="Get a new token"):
            await stream.collect()

    assert len(fake.requests) <= 4


async def test_static_token_is_not_locked_out(fake, clock):
    """A token that was refused once is sent with the next call: no key is locked by tokens."""
    fake.script(REFUSED)
    async with session(fake, Token(fake.token), **clock) as ief:
        assert {"AuthenticationError": 1} == kinds(await ask(ief, fake))
        assert {"Page": 1} == kinds(await ask(ief, fake))


async def test_late_echo_of_an_old_token_is_scrubbed(fake, held_back):
    """A late answer that repeats a token which was renewed meanwhile does not show it."""
    async with session(fake, password(fake)) as ief:
        await ask(ief, fake)
        old = fake.requests[-1].headers["x-auth-token"]
        fake.intercept(
            lambda request: (
                attrs.evolve(Fault.status(403, error_msg=f"no {old}"), delay=1)
                if "late" in request.raw_query
                else None
            )
        )
        late = asyncio.create_task(ief.list_pods(node_id="late"))
        await until(lambda: fake.statistics().in_flight)
        fake.forget_tokens()
        await ask(ief, fake)
        held_back.set()
        with pytest.raises(PermissionDeniedError, match=r"no \*\*\*"):
            await late


async def test_wrong_password_is_sent_once(fake, clock, fake_clock):
    """A login that is refused is not repeated: not for other workers, nor for five minutes."""
    async with session(fake, password(fake, password="wrong-password"), **clock) as ief:
        outcomes = await ask(ief, fake, 16)
        again = await ask(ief, fake, 16)
        fake_clock.time += 301
        later = await ask(ief, fake)

    assert {"AuthenticationError": 16} == kinds(outcomes) == kinds(again)
    assert {"AuthenticationError": 1} == kinds(later)
    assert 2 == seen(fake, LOGIN) == len(fake.requests)
    assert 401 == outcomes[0].status
    assert "wrong-password" not in str(outcomes[0])
    assert " was answered 401: The username or password is wrong." in str(outcomes[0])
    assert " Check domain, user, password, project or region, and iam_endpoint." in str(outcomes[0])


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("metadata", [False, True], ids=["password", "metadata"])
async def test_refusal_of_a_key_advises_on_its_source(fake, clock, status, metadata):
    """Whoever refuses to give a key is not IEF: the advice is about what the key is got with."""
    fake.intercept(lambda _: Fault.status(status))
    source = EcsMetadata(endpoint=fake.metadata_endpoint) if metadata else password(fake)
    async with session(fake, source, **clock) as ief:
        (error,) = await ask(ief, fake)

    assert AuthenticationError is type(error)
    assert str(error).endswith(f". {source.advice()}")


@pytest.mark.parametrize("characters", [4_096, 8_192, 16_384, 32_000])
async def test_long_tokens_are_taken_and_sent(fake, clock, characters):
    """Tokens of 4 to 32 KB arrive in one header of IAM's answer and go out in one of ours."""
    fake.token_characters = characters
    async with session(fake, password(fake), **clock) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))

    assert characters == len(fake.requests[-1].headers["x-auth-token"])


async def test_longest_token_is_taken(fake, clock):
    """A token of 64 KiB is read; that the gateway takes 32 KB at most is the gateway's word."""
    fake.token_characters = 65_536
    async with session(fake, password(fake), **clock) as ief:
        (error,) = await ask(ief, fake)

    assert (BadRequestError, 494) == (type(error), error.status)
    assert 1 == ief.statistics().token_refreshes


@pytest.mark.parametrize(
    "fault",
    [
        Fault.body(b'{"token": {}}', status=201),
        Fault.body(b"{}", status=201, headers=[("X-Subject-Token", "")]),
        Fault.body(b"{}", status=201, headers=[("X-Subject-Token", "two words")]),
        Fault.redirect("https://example.com/"),
    ],
    ids=["no-header", "empty", "blank", "redirect"],
)
async def test_login_without_a_token_is_an_error(fake, clock, fault):
    """An answer of IAM that gives no token is an AuthenticationError, and is not repeated."""
    fake.intercept(lambda request: fault if request.path == LOGIN else None)
    async with session(fake, password(fake), **clock) as ief:
        (error,) = await ask(ief, fake)

    assert AuthenticationError is type(error)
    assert 1 == len(fake.requests)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": 7}', b'{"token": {"expires_at": 7}}'])
async def test_token_of_unknown_life_is_used(fake, clock, body):
    """A login whose body tells nothing gives a token all the same, until it is refused."""
    header = ("X-Subject-Token", fake.token)
    fake.intercept(
        lambda request: (
            Fault.body(body, status=201, headers=[header]) if request.path == LOGIN else None
        )
    )
    async with session(fake, password(fake), **clock) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))


async def test_who_is_cancelled_while_it_renews_leaves_it_to_the_next(fake):
    """A worker that is cancelled in mid-login does not harm the others: the next one logs in."""
    async with session(fake, password(fake)) as ief:
        begun = asyncio.Event()

        def hang_once(_):
            fault = None if begun.is_set() else Fault.hang()
            begun.set()
            return fault

        fake.intercept(hang_once)
        first = asyncio.create_task(ief.list_pods(node_id=fake.node_ids[0]))
        await begun.wait()
        others = asyncio.create_task(ask(ief, fake, 4))
        await turns()
        first.cancel()
        assert {"Page": 4} == kinds(await others)

    assert 2 == seen(fake, LOGIN)


async def test_another_project_has_a_token_of_its_own(fake, clock):
    """with_options(project_id=) logs in for that project; a key that is for all is shared."""
    other = "f" * 32
    fake.projects = [*fake.projects, {"id": other, "name": "other"}]
    async with session(fake, password(fake), **clock) as ief:
        await ask(ief, fake)
        (error,) = await ask(ief.with_options(project_id=other), fake)
        assert {"Page": 1} == kinds(await ask(ief, fake))

    assert BadRequestError is type(error)
    scopes = [
        json.loads(request.body)["auth"]["scope"]["project"]["id"]
        for request in fake.requests
        if request.path == LOGIN
    ]
    assert [fake.project_id, other] == scopes


NEW = "canary-of-a-new-key"
KEYS = b'{"credential": {"secret": "canary-of-a-new-key"}}'
UNREADABLE = [
    b"HTTP/1.1 201 Created\r\nX-Subject-Token canary-of-a-new-key\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nX-Subject-Token: canary-of-a-new-key\r\n",
    b"HTTP/1.1 201 Created\r\nX-Subject-Token: " + 6_000 * b"canary-of-a-new-key" + b"\r\n\r\n",
]


@pytest.mark.parametrize("answer", UNREADABLE, ids=["no-header", "half", "too-long"])
async def test_token_in_an_answer_that_is_not_http_is_not_shown(fake, clock, answer):
    """What of IAM's answer can't be read may be the new token, so the error quotes none of it."""
    fake.intercept(lambda _: Fault.raw(answer))
    async with session(fake, password(fake), retry=RetryPolicy(attempts=1), **clock) as ief:
        (error,) = await ask(ief, fake)

    assert AuthenticationError is type(error)
    assert "canary" not in str(error)


@pytest.mark.parametrize("status", [201, 206, 302, 401, 500])
async def test_key_under_another_status_is_not_shown(fake, clock, status):
    """An answer whose status is not the expected one may hold the key: its body is not shown."""
    answer = Fault.body(KEYS, status=status)
    fake.intercept(lambda request: answer if request.path.endswith("/securitykey") else None)
    keys = EcsMetadata(endpoint=fake.metadata_endpoint)
    async with session(fake, keys, **clock) as ief:
        (error,) = await ask(ief, fake)

    assert (AuthenticationError, status) == (type(error), error.status)
    assert NEW not in f"{error} {vars(error)}"


async def test_echo_of_the_metadata_token_is_scrubbed(fake, clock):
    """The metadata service's own token, sent for the keys, is not in the error it echoes."""
    sent = []

    def echo(request):
        sent.append(request.headers.get("x-metadata-token"))
        return Fault.status(401, error_msg=f"no {sent[-1]}") if sent[-1] else None

    fake.intercept(echo)
    async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint), **clock) as ief:
        (error,) = await ask(ief, fake)

    assert "no ***" in str(error)
    assert sent[-1] not in f"{error} {vars(error)}"


def in_any_form(text):
    """Return what a server may make of a text that it sends back."""
    return {
        "bare": text,
        "json": json.dumps(json.dumps(text)),
        "url": quote(text, safe=""),
        "html": "".join(f"&#{ord(one)};" for one in text),
        "cut": text[5:30],
        "split": " ".join(text[at : at + 20] for at in range(0, len(text), 20)),
        "base64": base64.b64encode(text.encode()).decode(),
    }


@pytest.mark.parametrize("form", in_any_form(""))
@pytest.mark.parametrize("step", ["token", "keys"])
@pytest.mark.parametrize("place", ["header", "body"])
async def test_metadata_token_in_a_request_id_is_scrubbed(fake, form, step, place, caplog):
    """What was sent for a key and comes back as a request id is in no error, log or event."""
    caplog.set_level(logging.DEBUG)
    sent, events = [], []

    def echo(request):
        if not request.path.endswith("/securitykey" if step == "keys" else "/ticket"):
            return None
        sent.append(request.headers["x-metadata-token" if step == "keys" else "x-ticket"])
        shown = in_any_form(sent[-1])[form]
        if place == "header":
            return Fault.status(403, headers=[("X-Request-Id", shown)])
        document = {"error_msg": f"no {shown}", "error_code": shown, "request_id": shown}
        return Fault.body(json.dumps(document).encode(), status=403)

    fake.intercept(echo)
    ticket = ByTicket(f"{fake.endpoint}/ticket", "another-Ticket/of+24==characters")
    source = EcsMetadata(endpoint=fake.metadata_endpoint) if step == "keys" else ticket
    async with session(fake, source, on_event=events.append) as ief:
        (error,) = await ask(ief, fake)

    shown = [str(error), repr(vars(error)), repr(events), caplog.text, repr(pickle.dumps(error, 0))]
    assert "***" in f"{error.request_id} {error}"
    secret = sent[-1]
    pieces = [secret[at : at + 16] for at in range(len(secret) - 15)]
    coded = in_any_form(secret)[form]
    pieces += [coded[at : at + 24] for at in range(3, len(coded) - 26)]
    assert not [piece for piece in pieces if any(piece in text for text in shown)]


async def test_token_in_the_request_id_of_a_page_is_scrubbed(fake):
    """A good answer whose request id is the token has stars for it."""
    fake.intercept(
        lambda request: Fault.headers(("X-Request-Id", quote(request.headers["x-auth-token"])))
    )
    async with session(fake, Token(f"{'Ab/+'.join(map(str, range(30)))}==")) as ief:
        fake.token = f"{'Ab/+'.join(map(str, range(30)))}=="
        (page,) = await ask(ief, fake)

    assert "***" == page.request_id


async def test_bare_signature_is_scrubbed(fake, clock):
    """A signature that comes back without its name is masked; the hash of no body is not."""
    nothing = hashlib.sha256(b"").hexdigest()

    def echo(request):
        signature = request.headers["authorization"].rpartition("=")[2]
        return Fault.status(403, error_msg=f"not {signature}|{nothing}", shape="apigw")

    fake.intercept(echo)
    async with session(fake, access_key(fake), **clock) as ief:
        (error,) = await ask(ief, fake)

    assert f"not ***|{nothing}" == error.error_msg


@pytest.mark.parametrize("secret", ['a "quoted" word', "back\\slash", "ein Paßwort", "two  blanks"])
@pytest.mark.parametrize("way", ["bare", "json"])
async def test_echo_of_a_password_is_scrubbed_in_any_form(fake, clock, secret, way):
    """A password is found in the body that IAM repeats, escapes and wide blanks included."""

    def echo(request):
        words = secret if way == "bare" else request.body.decode()
        return Fault.status(400, error_msg=f"bad: {words}", shape="iam")

    fake.intercept(echo)
    async with session(fake, password(fake, password=secret), **clock) as ief:
        (error,) = await ask(ief, fake)

    assert "***" in str(error)
    for form in (secret, json.dumps(secret)[1:-1], " ".join(secret.split())):
        assert form not in str(error)


# ---- sources of a user's own ---------------------------------------------------------------------


async def no_token():
    """Give nothing."""


async def text():
    """Give a text where a Token is wanted."""
    return "secret-text"


async def empty_token():
    """Give an empty token."""
    return Token("")


async def newline():
    """Give a token with a line end."""
    return Token("secret-token\n")


async def failing():
    """Fail."""
    vault = {}
    return Token(vault["secret-name"])


def at_once():
    """Give a token, but not to who awaits it."""
    return Token("secret-token")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (at_once, "must be an async function: write `async def`"),
        (no_token, "got NoneType"),
        (text, "got str"),
        (empty_token, "empty"),
        (newline, "line end"),
        (failing, "raised KeyError in failing"),
    ],
)
async def test_source_that_gives_no_key_is_an_authentication_error(fake, clock, source, words):
    """What a source raises or gives instead of a key is said, without any value."""
    async with session(fake, source, **clock) as ief:
        (error,) = await ask(ief, fake)

    assert AuthenticationError is type(error)
    assert words in str(error)
    assert "secret-" not in str(error)
    assert (None, None) == (error.__cause__, error.__context__)
    assert not fake.requests


async def test_source_that_hangs_ends_with_the_deadline(fake):
    """A source that never gives anything does not outlive the scan's deadline."""

    async def hanging():
        await asyncio.Event().wait()

    async with session(fake, hanging) as ief:
        with pytest.raises(TransportError, match="deadline"):
            await ief.iter_pods(fake.deployment_ids, deadline=0.05).collect()


@pytest.mark.parametrize("way", ["call", "scan"])
async def test_source_that_waits_for_itself_is_told(fake, way):
    """A source that asks the session which waits for its key ends with an error; it hung."""

    async def circular():
        if way == "call":
            await ief.list_pods(node_id="n")
        else:
            await ief.iter_pods(fake.deployment_ids).collect()

    async with session(fake, circular) as ief, asyncio.timeout(30):
        outcomes = await ask(ief, fake, 4)

    assert {"AuthenticationError": 4} == kinds(outcomes)
    assert "uses the session that waits for its key" in str(outcomes[0])
    assert not fake.requests


async def test_source_may_use_another_session(fake):
    """A source that asks a session of its own is no circle."""

    async def another():
        await other.list_pods(node_id="n")
        return Token(fake.token)

    async def first():
        return Token(fake.token)

    async with session(fake, first) as other, session(fake, another) as ief:
        assert {"Page": 4} == kinds(await ask(ief, fake, 4))


async def test_source_is_asked_again_when_its_token_is_refused(fake, clock):
    """A function gives tokens as long as the last one is refused only once."""
    tokens = iter(["gone-token", fake.token])

    async def source():
        return Token(next(tokens))

    async with session(fake, source, **clock) as ief:
        outcomes = await ask(ief, fake, 8)

    assert {"Page": 8} == kinds(outcomes)
    assert [2] * 8 == [page.attempts for page in outcomes]


@attrs.frozen
class ByTicket:
    """A source of a user's own, without any I/O: one request, and what its answer means."""

    url: str
    ticket: str = "secret-ticket"

    def obtain(self, scope):
        """Ask for the text that is the token."""
        assert scope.iam_endpoint
        reply = yield Request(url=self.url, headers={"X-Ticket": self.ticket})
        return Grant(key=Token(reply.body.decode()), lifetime=60.0)

    def scrub(self, text):
        """Leave out the ticket."""
        return text.replace("secret-ticket", "***")


async def test_source_may_be_an_object_of_ones_own(fake, clock):
    """Whatever has obtain and scrub is a source: its request is sent, its secret never shown."""
    ticket = ByTicket(f"{fake.endpoint}/ticket")
    fake.script(Fault.status(403, error_msg="no such secret-ticket"))
    async with session(fake, ticket, **clock) as ief:
        (error,) = await ask(ief, fake)
    fake.script(Fault.body(fake.token.encode()))
    async with session(fake, ticket, **clock) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))

    assert AuthenticationError is type(error)
    assert "no such ***" in str(error)
    assert "secret-ticket" == fake.requests[0].headers["x-ticket"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("text", "str: write Token"),
        (7, "int$"),
        (None, "NoneType$"),
        (EcsMetadata, "a class: write EcsMetadata"),
        (object(), "object$"),
    ],
)
def test_credentials_of_another_kind_are_refused(wrong, words):
    """What is neither a key nor a source is refused at once, with what to write instead."""
    with pytest.raises(ConfigurationError, match=rf"credentials must be a Token.*got {words}"):
        IefSession("p", credentials=wrong, endpoint="http://127.0.0.1:9")


def test_function_that_was_called_already_is_refused():
    """A coroutine is no source, as it can be awaited once only."""
    begun = no_token()
    with pytest.raises(ConfigurationError, match="coroutine: give the function, not what it"):
        IefSession("p", credentials=begun, endpoint="http://127.0.0.1:9")
    begun.close()


# ---- access keys ---------------------------------------------------------------------------------


async def test_what_matters_is_signed(fake, clock):
    """Every header that the server reads is signed; those that proxies rewrite are not."""
    keys = AccessKey(fake.access_key, fake.secret_key)
    async with session(fake, keys, instance_id="an-instance", **clock) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))

    (request,) = fake.requests
    names = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    assert "content-type;host;ief-instance-id;x-project-id;x-sdk-date" == names
    assert request.headers["user-agent"]
    assert "x-auth-token" not in request.headers


@pytest.mark.parametrize("name", ["边缘 节点", "a+b~c*d/e", "x%2Fy", "=&?#", "a,b:c@d"])
async def test_sent_url_is_the_signed_url(fake, clock, name):
    """Whatever a parameter holds, the server computes the signature of what it received."""
    async with session(fake, access_key(fake), **clock) as ief:
        page = await ief.list_pods(node_id=fake.node_ids[0], plugin_instance_name=name)
        nodes = await ief.iter_nodes(name=name, sort="created_at:desc").collect()

    assert page.items
    assert [] == nodes
    assert name == fake.requests[0].query["plugin_instance_name"]
    assert name == fake.requests[1].query["name"]


async def test_every_attempt_is_signed_anew(fake, clock):
    """Each repeat has a date and a signature of its own, however late it is."""
    fake.script(Fault.status(503), Fault.throttle("1000"), Fault.drop())
    patient = RetryPolicy(base=1, retry_after_cap=2_000)
    async with session(fake, access_key(fake), retry=patient, **clock) as ief:
        (page,) = await ask(ief, fake)

    dates = [request.headers["x-sdk-date"] for request in fake.requests]
    assert 4 == page.attempts == len(set(dates))
    assert 4 == len({request.headers["authorization"] for request in fake.requests})


async def test_wrong_secret_key_is_sent_once(fake, clock, fake_clock):
    """16 workers with a wrong secret key send one signed request, and the key is not locked."""
    async with session(fake, AccessKey(fake.access_key, "wrong-secret-key"), **clock) as ief:
        outcomes = await ask(ief, fake, 16)
        again = await ask(ief, fake, 16)
        sent = len(fake.requests)
        fake_clock.time += 301
        later = await ask(ief, fake, 16)

    assert {"AuthenticationError": 16} == kinds(outcomes) == kinds(again) == kinds(later)
    assert (1, 2) == (sent, len(fake.requests))
    assert not fake.locked_keys
    assert "Check the access key" in str(outcomes[0])


async def test_scans_of_a_wrong_key_send_one_request(fake, clock):
    """Scans that run side by side on one session send one wrong signature together."""
    async with session(fake, AccessKey(fake.access_key, "wrong-secret-key"), **clock) as ief:
        scans = [ief.iter_pods([one]).collect() for one in fake.deployment_ids]
        outcomes = await asyncio.gather(*scans, return_exceptions=True)

    assert {"AuthenticationError": 8} == kinds(outcomes)
    assert 1 == len(fake.requests)


async def test_first_signed_request_goes_alone(fake, clock, held_back):
    """Nothing else is sent before the server took one signature; then all slots are used."""
    fake.intercept(lambda _: Fault.slow(1))
    async with session(fake, access_key(fake), **clock) as ief:
        asked = asyncio.create_task(ask(ief, fake, 16))
        await until(lambda: fake.statistics().in_flight == 1)
        await turns()
        assert 1 == fake.statistics().requests
        held_back.set()  # for the first alone
        held_back.clear()
        await until(lambda: fake.statistics().in_flight == 15)
        held_back.set()
        assert {"Page": 16} == kinds(await asked)


async def test_failures_that_say_nothing_of_the_key_keep_it_alone(fake, clock):
    """503, 429 and a cut connection prove no key: requests go one by one until one is answered."""
    alone = []

    def watch(_):
        alone.append(fake.statistics().in_flight)
        fault = [Fault.status(503), Fault.drop(), Fault.throttle("0")][len(alone) % 3]
        return attrs.evolve(fault, delay=0.01) if len(alone) < 6 else Fault.slow(0.01)

    fake.intercept(watch)
    async with session(fake, access_key(fake), **clock) as ief:
        assert {"Page": 16} == kinds(await ask(ief, fake, 16))

    assert [0] * 6 == alone[:6]


async def test_key_that_is_refused_in_mid_scan_stops_it(fake, clock, fake_clock):
    """When a key that was good is refused, what was not sent yet is not sent any more."""
    async with session(fake, access_key(fake), **clock) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, concurrency=3, page_size=5)
        with pytest.raises(AuthenticationError):
            async for _ in stream.pages():
                fake.secret_key = "another-secret-key"
        await stream.aclose()
        other = await ask(ief, fake, 8)
        wrong = fake.wrong_signatures[fake.access_key]
        fake_clock.time += 301
        later = await ask(ief, fake, 8)

    assert 1 <= wrong <= 3
    assert wrong + 1 == fake.wrong_signatures[fake.access_key]
    assert {"AuthenticationError": 8} == kinds(other) == kinds(later)


async def test_late_answer_does_not_close_the_circuit(fake, clock, held_back):
    """What the server took before it refused the key proves nothing: the circuit stays open."""
    early = attrs.evolve(Fault.body(b'{"pods": [], "count": 0}'), delay=1)
    async with session(fake, access_key(fake), **clock) as ief:
        await ask(ief, fake)
        fake.intercept(lambda request: early if "late" in request.raw_query else None)
        late = asyncio.create_task(ief.list_pods(node_id="late"))
        await until(lambda: fake.statistics().in_flight)
        fake.secret_key = "another-secret-key"
        assert {"AuthenticationError": 1} == kinds(await ask(ief, fake))
        held_back.set()
        assert () == (await late).items
        assert {"AuthenticationError": 16} == kinds(await ask(ief, fake, 16))

    assert 1 == fake.wrong_signatures[fake.access_key]
    assert not fake.locked_keys


async def test_unproven_key_goes_alone_before_those_that_wait_for_a_slot(
    fake, clock, fake_clock, held_back
):
    """Requests with a permit for the old key are not sent together under a new, wrong one."""
    fake.keys_lifetime = 900.0
    wrong = Fault.edit(lambda body: body.replace(b'"secret":"', b'"secret":"x'))
    full = asyncio.Event()

    def slow(request):
        if fake.statistics().in_flight == 7:  # this one makes eight, and many wait for a slot
            full.set()
        if request.path.endswith("/securitykey"):
            return wrong
        return Fault.slow(1) if request.query.get("offset", "0") != "0" else None

    keys = EcsMetadata(endpoint=fake.metadata_endpoint)
    async with session(fake, keys, limits=Limits(concurrency=8), **clock) as ief:
        await ask(ief, fake)
        fake.intercept(slow)
        scan = ief.iter_pods(fake.deployment_ids, page_size=2, concurrency=100)
        many = asyncio.create_task(scan.collect())
        await full.wait()
        fake_clock.time += 0.9 * fake.keys_lifetime
        held_back.set()
        (single,) = await ask(ief, fake)
        with pytest.raises(AuthenticationError):
            await many

    assert AuthenticationError is type(single)
    assert not fake.locked_keys
    assert 2 == sum(fake.wrong_signatures.values())


async def test_shared_failure_has_notes_of_its_own(fake, clock):
    """What several scans fail with together says of each only where that one was."""
    fake.intercept(
        lambda request: Fault.status(503) if request.path.endswith("/projects") else None
    )
    options = {"endpoint": fake.endpoint, "iam_endpoint": fake.endpoint, "region": "cn-north-4"}
    async with session_at(credentials=access_key(fake), **options, **clock) as ief:
        scans = [ief.iter_pods([one]).collect() for one in fake.deployment_ids]
        errors = await asyncio.gather(*scans, return_exceptions=True)

    assert 6 == seen(fake, "/projects")
    for error, identity in zip(errors, fake.deployment_ids, strict=True):
        (place,) = [note for note in error.__notes__ if note.startswith("In batch")]
        assert identity in place


async def test_request_that_is_always_refused_is_repeated_once(fake):
    """A request that is refused while others are accepted with the same tokens makes no loop."""

    def answer(request):
        return attrs.evolve(REFUSED, delay=0.02) if "bad" in request.raw_query else None

    fake.intercept(answer)
    async with session(fake, password(fake)) as ief:
        bad = asyncio.create_task(ief.list_pods(node_id="bad"))
        while not bad.done():
            assert {"Page": 1} == kinds(await ask(ief, fake))
        with pytest.raises(AuthenticationError) as caught:
            await bad

    assert 2 == caught.value.attempts


@pytest.mark.parametrize(("off", "words"), [(3_600, "behind"), (-3_600, "ahead of")])
async def test_clock_that_is_off_is_named(off, words):
    """An hour between the clocks is said, and whose clock is to be set."""
    async with (
        FakeIef(20, service=Service(clock=lambda: time.time() + off)) as fake,
        session(fake, access_key(fake)) as ief,
    ):
        (error,) = await ask(ief, fake)

    assert AuthenticationError is type(error)
    assert f"{words} the server's, which allows 900 s: set the clock" in str(error)
    assert 1 == error.attempts


@pytest.mark.parametrize("zone", ["CST-8", "EST5"], indirect=True)
@pytest.mark.usefixtures("zone")
async def test_date_without_a_zone_gives_no_false_advice(fake):
    """A refusal whose Date is of the asctime form is not blamed on the clock in Shanghai either."""
    asctime = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime())
    refused = Fault.status(401, error_code="APIGW.0301", error_msg="verify aksk signature fail")
    dated = refused.answer.with_headers(("Date", asctime))
    fake.script(attrs.evolve(refused, answer=dated))
    async with session(fake, access_key(fake)) as ief:
        (error,) = await ask(ief, fake)

    assert AuthenticationError is type(error)
    assert "set the clock" not in str(error)


async def test_clock_that_is_off_a_little_is_not_named(fake, clock, fake_clock):
    """Ten minutes are no reason for a refusal, and are not blamed for one."""
    fake.clock = lambda: fake_clock.clock.wall() + 600
    async with session(fake, access_key(fake), **clock) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))
        fake.secret_key = "another-secret-key"
        (error,) = await ask(ief, fake)

    assert "set the clock" not in str(error)


# ---- temporary keys ------------------------------------------------------------------------------


async def test_temporary_keys_are_got_and_signed_with(fake, clock):
    """The keys of a server's metadata are used with their security token, which is signed, too."""
    async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint), **clock) as ief:
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))

    assert 1 == seen(fake, "/securitykey") == seen(fake, "/api/token")
    request = fake.requests[-1]
    assert "x-security-token" in request.headers["authorization"].split("Signature=")[0]
    assert request.headers["x-security-token"]


async def test_temporary_keys_are_for_every_project(fake, clock):
    """with_options(project_id=) goes on with a server's keys: they are got once for all."""
    async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint), **clock) as ief:
        for number in range(8):
            await ask(ief.with_options(project_id=f"{number}" * 32), fake)
        figures = ief.statistics()

    assert 1 == seen(fake, "/securitykey") == figures.token_refreshes


async def test_metadata_without_tokens_gives_keys(fake, clock):
    """A metadata service that knows of no tokens is asked without one."""
    fake.metadata = "plain"
    async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint), **clock) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))


async def test_temporary_keys_are_renewed_relative_to_their_life(fake, clock, fake_clock):
    """Keys of a quarter hour last three minutes before their end are renewed, not at 40 minutes."""
    fake.keys_lifetime = 900.0
    async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint), **clock) as ief:
        for _ in range(45):
            assert {"Page": 1} == kinds(await ask(ief, fake))
            fake_clock.time += 60
        figures = ief.statistics()

    assert 0 == figures.retries
    assert 4 == seen(fake, "/securitykey") == figures.token_refreshes


async def test_revoked_keys_are_renewed_once(fake, clock):
    """Temporary keys that are refused are got anew by one worker, and each request is repeated."""
    async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint), **clock) as ief:
        await ask(ief, fake)
        fake.revoke_keys()
        outcomes = await ask(ief, fake, 8)

    assert {"Page": 8} == kinds(outcomes)
    assert 2 == seen(fake, "/securitykey")


async def test_metadata_that_is_not_there_is_soon_known(loop_time):
    """Where nothing answers, that is an AuthenticationError after the time-out, in one attempt."""

    def never(_):
        loop_time.let_pass(7)
        return Fault.hang()

    async with FakeIef(5, account=Account(metadata="none")) as fake:
        async with session(fake, EcsMetadata(endpoint=fake.metadata_endpoint)) as ief:
            (nobody,) = await ask(ief, fake)
        fake.intercept(never)
        slow = EcsMetadata(endpoint=fake.metadata_endpoint, timeout=5)
        async with session(fake, slow) as ief:
            (silent,) = await ask(ief, fake)

    assert AuthenticationError is type(nobody) is type(silent)
    assert "securitykey was answered 404" in str(nobody)
    assert "no complete answer in time" in str(silent)
    assert 1 == seen(fake, "/securitykey")
    assert 2 == seen(fake, "/api/token")


# ---- other refusals ------------------------------------------------------------------------------


async def test_forbidden_batch_is_not_repeated(fake, clock):
    """A 403 for one deployment is that batch's error, and nothing is sent again or renewed."""
    forbidden = Fault.status(403, shape="apigw")
    bad = fake.deployment_ids[3]
    fake.intercept(lambda request: forbidden if bad in request.raw_query else None)
    async with session(fake, password(fake), **clock) as ief:
        stream = ief.iter_pods(fake.deployment_ids, batch_size=1, on_error="collect")
        await stream.collect()

    (failure,) = stream.report.failures
    assert (bad,) == failure.ids
    assert PermissionDeniedError is type(failure.error)
    assert (1, 0) == (seen(fake, LOGIN), ief.statistics().retries)


@pytest.mark.parametrize("kind", ["token", "password", "access_key"])
async def test_redirect_gets_no_credentials(fake, clock, kind):
    """Another server that an answer points at never sees a token, a key or a password."""
    credentials = {
        "token": Token(fake.token),
        "password": password(fake),
        "access_key": access_key(fake),
    }[kind]
    async with FakeIef(5) as attacker:
        away = Fault.redirect(f"{attacker.endpoint}/v3/auth/tokens", status=307)
        fake.intercept(lambda _: away)
        async with session(fake, credentials, **clock) as ief:
            (error,) = await ask(ief, fake)

        assert "Redirects are not followed" in str(error)
        assert not attacker.requests


@pytest.mark.parametrize("name", ["endpoint", "iam_endpoint"])
def test_plain_http_is_for_loopback(name):
    """Neither tokens nor passwords are sent to plain http anywhere but on this machine."""
    options = {"endpoint": "https://ief.example.com", name: "http://ief.example.com"}
    with pytest.raises(ConfigurationError, match=f"^{name} must be https://"):
        IefSession("p", credentials=Token("t"), **options)


async def test_waiting_for_a_key_holds_no_slot(fake):
    """While one logs in, the others hold no slot that the login itself needs."""
    narrow = {"limits": Limits(concurrency=1), "timeout": Timeouts(total=5)}
    async with session(fake, password(fake), **narrow) as ief:
        assert {"Page": 8} == kinds(await ask(ief, fake, 8))
