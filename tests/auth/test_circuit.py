"""What several sessions and targets know together of one key: refused once, for whom it matters."""

import asyncio
import gc
import threading
from collections import Counter

import attrs
import pytest
from asking import LOGIN, ask, kinds, password, seen, session
from conftest import session_with, turns, until

from ief_async import (
    AccessKey,
    AuthenticationError,
    EcsMetadata,
    IefSession,
    PartialScanError,
    RetryPolicy,
    Target,
    Token,
    scan_fleet,
)
from ief_async._auth import circuit as circuits
from ief_async._auth.circuit import circuit_of
from ief_async._auth.keys import Key
from ief_async._auth.sources import Grant
from ief_async._messages import Request
from ief_async.testing import FakeIef, Fault

PROJECTS = [f"{at:032x}" for at in range(12)]
SIGNATURE = "Incorrect IAM authentication information: verify aksk signature fail"
STRAY = {
    "plain": Fault.status(401),
    "gateway": Fault.status(401, shape="apigw"),
    "signature": Fault.status(401, error_code="APIGW.0301", error_msg=SIGNATURE, shape="apigw"),
    "empty": Fault.status(401, shape="empty"),
}


@pytest.fixture
async def fake():
    """Run a fake fleet of 200 pods whose account has twelve more projects."""
    projects = [{"id": one, "name": f"project-{at}"} for at, one in enumerate(PROJECTS)]
    async with FakeIef(200, deployments=8) as running:
        running.projects = [*running.projects, *projects]
        yield running


def target(fake, **options):
    """Return a target at the fake."""
    where = {"endpoint": fake.endpoint, "iam_endpoint": fake.iam_endpoint}
    return Target(**{"project_id": fake.project_id, **where, **options})


async def failures_of(targets, **options):
    """Return what each target of a fleet failed with, and what came of the others."""
    stream = scan_fleet(targets, on_error="collect", retry=RetryPolicy(attempts=1), **options)
    items = [item async for item in stream]
    return {one.target: one.error for one in stream.report.failures}, items


# ---- passwords -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["one-object", "equal-objects"])
async def test_wrong_password_of_many_projects_is_sent_once(fake, shared):
    """Twelve targets of as many projects with one wrong password are one login."""
    one = password(fake, password="wrong-password")
    targets = [
        target(
            fake,
            project_id=project,
            credentials=one if shared else password(fake, password="wrong-password"),
        )
        for project in PROJECTS
    ]
    failures, _ = await failures_of(targets)

    assert {AuthenticationError} == {type(error) for error in failures.values()}
    assert (12, 1) == (len(failures), len(fake.requests))


async def test_wrong_password_of_independent_sessions_is_sent_once(fake):
    """Sessions that only hold equal credentials, and those derived from them, send one login."""
    one = password(fake, password="wrong-password")
    other = password(fake, password="wrong-password", project="project-1")
    async with session(fake, one) as first, session(fake, other) as second:
        derived = first.with_options(project_id=PROJECTS[0])
        outcomes = await asyncio.gather(*(ask(ief, fake, 4) for ief in (first, second, derived)))
        again = await ask(second, fake, 4)
    async with session(fake, one) as third:
        last = await ask(third, fake)

    assert {"AuthenticationError": 4} == kinds(again)
    assert [{"AuthenticationError": 4}] * 3 == [kinds(some) for some in outcomes]
    assert "Not sent" in last[0].__notes__[0]
    assert 1 == len(fake.requests)


def test_wrong_password_in_several_threads_is_sent_once():
    """Event loops in threads of their own wait for each other's first login, and believe it."""
    with FakeIef(20) as fake:
        fake.intercept(lambda _: Fault.slow(0.1))
        one, errors = password(fake, password="wrong-password"), []

        async def read():
            async with session(fake, one) as ief:
                errors.extend(await ask(ief, fake, 2))

        threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {"AuthenticationError": 8} == kinds(errors)
    assert 1 == seen(fake, LOGIN)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("status", [None, 400, 401, 403, 404])
async def test_login_refused_for_one_project_stops_no_other(fake, first, status):
    """No such project, or no right in it, is that target's failure; the other is read whole."""
    refused = Fault.status(status, error_msg="no right in this project", shape="iam")
    fake.intercept(
        lambda request: (
            refused if status and request.path == LOGIN and b'"gone"' in request.body else None
        )
    )
    good = target(fake, credentials=password(fake))
    bad = target(fake, project_id=None, region="cn-north-4", credentials=password(fake))
    bad = Target(
        credentials=password(fake, project="gone"),
        region="cn-north-4",
        endpoint=fake.endpoint,
        iam_endpoint=fake.endpoint,
    )
    failures, items = await failures_of([bad, good] if first else [good, bad])

    assert ([bad.name], 200) == ([*failures], len(items))
    assert 2 == seen(fake, LOGIN)


async def test_password_that_was_changed_is_sent_once(fake):
    """When tokens die as the password was changed, one of all sessions finds out, for all."""
    one = password(fake)
    async with session(fake, one) as ief:
        sessions = [ief, *(ief.with_options(instance_id=f"i{at}") for at in range(3))]
        others = [session(fake, one) for _ in range(3)]
        for each in (*sessions, *others):
            assert {"Page": 1} == kinds(await ask(each, fake))
        before = seen(fake, LOGIN)
        fake.forget_tokens()
        fake.password = "another-password"
        outcomes = await asyncio.gather(*(ask(each, fake, 4) for each in (*sessions, *others)))
        for each in others:
            await each.aclose()

    assert [{"AuthenticationError": 4}] * 7 == [kinds(some) for some in outcomes]
    assert before + 1 == seen(fake, LOGIN)


async def test_right_password_logs_in_for_all_projects_together(fake, held_back):
    """Only the first login is made alone: once it is accepted all others are made together."""
    fake.intercept(lambda request: Fault.slow(1) if request.path == LOGIN else None)
    async with session(fake, password(fake)) as ief:
        for_each = [ief.with_options(project_id=one) for one in PROJECTS]
        asked = asyncio.gather(*(ask(one, fake) for one in for_each))
        await until(lambda: fake.statistics().in_flight == 1)
        await turns()
        assert 1 == seen(fake, LOGIN)
        held_back.set()  # for the first alone
        held_back.clear()
        await until(lambda: seen(fake, LOGIN) == len(PROJECTS))
        held_back.set()
        await asked


async def test_login_that_gets_no_answer_is_everybodys(fake):
    """While IAM is down, who waits for the first login shares its failure, and keeps nobody out."""
    fake.intercept(lambda request: Fault.status(503) if request.path == LOGIN else None)
    targets = [target(fake, project_id=one, credentials=password(fake)) for one in PROJECTS]
    failures, _ = await failures_of(targets)
    sent = seen(fake, LOGIN)
    fake.intercept(None)
    _, items = await failures_of([target(fake, credentials=password(fake))])

    assert 12 == len(failures)
    assert sent < 12
    assert 200 == len(items)


async def test_cancelled_trial_leaves_it_to_the_next(fake):
    """A session that is cancelled in its login keeps no other session waiting."""
    begun, one = asyncio.Event(), password(fake)

    def hang_once(_):
        fault = None if begun.is_set() else Fault.hang()
        begun.set()
        return fault

    fake.intercept(hang_once)
    async with session(fake, one) as first, session(fake, one) as second:
        hanging = asyncio.create_task(ask(first, fake))
        await begun.wait()
        other = asyncio.create_task(ask(second, fake))
        await asyncio.sleep(0)
        hanging.cancel()
        assert {"Page": 1} == kinds(await other)


class ByTicket:
    """A source of a user's own, for one project."""

    def __init__(self, url):
        self.url = url

    def obtain(self, scope):
        """Ask for a token."""
        assert scope.project
        reply = yield Request(url=self.url)
        return Grant(key=Token(reply.body.decode()))

    def scrub(self, text):
        """Leave nothing out."""
        return text


async def test_wrong_source_of_ones_own_is_asked_once_for_a_fleet(fake):
    """What a source of a user's own is refused is known to all targets that share it."""
    refused = Fault.status(401, error_msg="wrong ticket")
    fake.intercept(lambda request: refused if request.path == "/ticket" else None)
    one = ByTicket(f"{fake.endpoint}/ticket")
    failures, _ = await failures_of(
        [target(fake, project_id=project, credentials=one) for project in PROJECTS]
    )

    assert (12, 1) == (len(failures), len(fake.requests))


async def test_metadata_that_gives_no_keys_is_asked_once_for_a_fleet(fake):
    """What a server's metadata refuse they refuse for all projects: nobody asks for another."""
    fake.metadata = "none"
    one = EcsMetadata(endpoint=fake.metadata_endpoint)
    failures, _ = await failures_of(
        [target(fake, project_id=project, credentials=one) for project in PROJECTS]
    )

    assert (12, 1) == (len(failures), seen(fake, "/securitykey"))


async def test_passcode_function_without_a_hash_is_taken(fake):
    """A passcode may come from an object that is no value: then nothing is shared."""

    class Codes:
        __hash__ = None

        def __call__(self):
            return "111111"

    fake.passcode = "111111"
    credentials = password(fake, user_id=fake.user_id, passcode=Codes())
    async with session(fake, credentials) as ief:
        assert {"Page": 1} == kinds(await ask(ief, fake))


def test_loop_that_ends_while_it_waits_for_another_thread_is_left_alone(caplog):
    """A session whose loop is closed while another's login runs is told nothing of its end."""
    with FakeIef(20) as fake:
        one, errors = password(fake), []
        begun, over = threading.Event(), threading.Event()

        def hold(_):
            begun.set()
            over.wait(60)

        fake.intercept(hold)

        async def read(waits):
            async with session(fake, one) as ief:
                async with asyncio.timeout(waits):
                    errors.extend(await ask(ief, fake))

        thread = threading.Thread(target=lambda: asyncio.run(read(None)))
        thread.start()
        assert begun.wait(60)
        with pytest.raises(TimeoutError):
            asyncio.run(read(0.05))
        over.set()
        thread.join()

    assert {"Page": 1} == kinds(errors)
    assert not [record for record in caplog.records if record.name == "concurrent.futures"]


# ---- access keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize("when", ["at-once", "late"])
@pytest.mark.parametrize("bad", [1, 3])
async def test_refused_target_does_not_stop_the_healthy_one(fake, stray, when, bad):
    """Targets that are refused fail alone: the one that was accepted gives all of its pods."""
    key, accepted = AccessKey(fake.access_key, fake.secret_key), asyncio.Event()

    def answer(request):
        if request.headers.get("ief-instance-id") == "good":
            accepted.set()
            return None
        return STRAY[stray] if when == "at-once" or accepted.is_set() else Fault.slow(0.05)

    fake.intercept(answer)
    good = target(fake, credentials=key, instance_id="good")
    others = [target(fake, credentials=key, instance_id=f"bad-{at}") for at in range(bad)]
    # who comes first is tried first, and proves the key where the refusal does not say whose it is
    targets = [good, *others]
    failures, items = await failures_of(targets, batch_size=1, page_size=5, concurrency=3)

    came = Counter(one.instance_id for one, _ in items)
    assert 200 == came["good"]
    assert good.name not in failures
    if when == "at-once":
        assert {one.name for one in others} == {*failures}


async def test_refused_target_that_comes_first_does_not_stop_the_healthy_one(fake):
    """A refusal that does not speak of the key is not believed for others, not even the first."""
    key = AccessKey(fake.access_key, fake.secret_key)
    fake.intercept(
        lambda request: STRAY["plain"] if request.headers["ief-instance-id"] == "bad" else None
    )
    targets = [target(fake, credentials=key, instance_id=one) for one in ("bad", "good")]
    failures, items = await failures_of(targets)

    assert ([targets[0].name], 200) == ([*failures], len(items))


@attrs.frozen
class Basic(Key):
    """A kind that the package does not know: HTTP basic, whose user is locked."""

    locks_on_refusal = True
    refusal_words = ("wrong user",)

    login_name: str

    def headers(self, request, *, now):  # noqa: ARG002  they are the same for all
        """Return the header."""
        return {"Authorization": f"Basic {self.login_name}"}

    def scrub(self, text):
        """Leave nothing out."""
        return text

    def identity(self):
        """Return the user."""
        return self.login_name


@pytest.mark.parametrize("way", ["fleet", "sessions", "derived"])
@pytest.mark.parametrize("kind", ["access key", "new kind"])
async def test_wrong_key_of_many_projects_is_sent_once(fake, way, kind):
    """A wrong key of a kind that is locked is sent once: of a fleet, of sessions, of derived ones.

    What says that the key is wrong is asked of the kind, whichever it is.
    """
    key = AccessKey(fake.access_key, "wrong-secret-key")
    if kind == "new kind":
        key = Basic(f"user-{way}")
        refused = Fault.status(401, error_msg="Wrong user or password", shape="apigw")
        fake.intercept(lambda _: refused)
    if way == "fleet":
        targets = [target(fake, project_id=one, credentials=key) for one in PROJECTS]
        failures, _ = await failures_of(targets)
        assert 12 == len(failures)
    elif way == "sessions":
        sessions = [session_with(fake, credentials=key) for _ in PROJECTS]
        outcomes = await asyncio.gather(*(ask(one, fake, 2) for one in sessions))
        assert [{"AuthenticationError": 2}] * 12 == [kinds(some) for some in outcomes]
        for one in sessions:
            await one.aclose()
    else:
        async with session_with(fake, credentials=key) as ief:
            derived = [ief.with_options(project_id=one) for one in PROJECTS]
            await asyncio.gather(*(ask(one, fake, 2) for one in derived))

    assert 1 == len(fake.requests)
    assert not fake.locked_keys


async def test_key_that_was_changed_is_not_locked_by_its_targets(fake):
    """When a secret key changes under twelve accepted targets, a second refusal ends it for all."""
    key = AccessKey(fake.access_key, fake.secret_key)
    async with session_with(fake, credentials=key) as ief:
        targets = [ief.with_options(instance_id=f"i{at}") for at in range(12)]
        for one in targets:
            assert {"Page": 1} == kinds(await ask(one, fake))
        fake.secret_key = "another-secret-key"
        for one in targets:
            assert {"AuthenticationError": 4} == kinds(await ask(one, fake, 4))

    assert fake.wrong_signatures[fake.access_key] < 6
    assert not fake.locked_keys


async def test_function_whose_tokens_one_target_refuses_serves_the_others(fake):
    """Of a function for all targets: one that refuses each token fails alone."""

    async def source():
        return Token(fake.token)

    fake.intercept(
        lambda request: STRAY["plain"] if request.headers["ief-instance-id"] == "bad" else None
    )
    targets = [target(fake, credentials=source, instance_id=one) for one in ("good", "bad")]
    failures, items = await failures_of(targets, page_size=5, batch_size=1)

    assert ([targets[1].name], 200) == ([*failures], len(items))


async def test_fleet_whose_target_fails_says_so(fake):
    """With "defer" the healthy targets come whole before the refused one is raised."""
    key = AccessKey(fake.access_key, fake.secret_key)
    fake.intercept(
        lambda request: STRAY["plain"] if request.headers["ief-instance-id"] == "bad" else None
    )
    targets = [target(fake, credentials=key, instance_id=one) for one in ("good", "bad")]
    items = []
    with pytest.raises(PartialScanError, match="1 of 2 targets failed"):
        async for item in scan_fleet(targets):
            items.append(item)

    assert 200 == len(items)


# ---- what is kept --------------------------------------------------------------------------------


async def test_refusal_is_forgotten_with_the_credentials(fake):
    """What is known of credentials goes with the last object that has their value."""
    one, two = (AccessKey(fake.access_key, "wrong-secret-key") for _ in range(2))
    async with IefSession("p", credentials=one, endpoint=fake.endpoint) as ief:
        assert {"AuthenticationError": 1} == kinds(await ask(ief, fake))
    circuit = circuit_of(one, fake.endpoint)
    assert circuit is circuit_of(two, fake.endpoint)
    assert circuit is not circuit_of(one, "https://ief.cn-north-4.myhuaweicloud.com")
    del circuit, one, ief
    gc.collect()
    assert circuit_of(two, fake.endpoint).refusal(None, 0.0) is not None
    del two
    gc.collect()

    assert not [key for key in circuits._KNOWN if fake.endpoint.endswith(key[2])]


def test_public_cloud_has_the_same_accounts_everywhere():
    """A password that one region's IAM refused is not sent to another's."""
    one = AccessKey("a", "s")
    north = circuit_of(one, "https://iam.cn-north-4.myhuaweicloud.com")

    assert north is circuit_of(one, "https://iam.myhuaweicloud.com")
    assert north is not circuit_of(one, "https://iam.example.com")
    assert north is not circuit_of(AccessKey("a", "t"), "https://iam.myhuaweicloud.com")
