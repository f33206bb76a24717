"""The project of a session: told by its token, or looked up by its name."""

import json

import pytest
from asking import LOGIN, access_key, ask, kinds, password, seen
from conftest import session_at

from ief_async import (
    IefError,
    IefSession,
    PayloadError,
)
from ief_async._auth.projects import project_of
from ief_async._messages import Reply
from ief_async.testing import FakeIef, Service


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"projects": 7}', b"<html>"])
def test_lookup_that_is_no_list_is_an_error(body):
    """An answer that holds no list of projects is a PayloadError, not "no project"."""
    with pytest.raises(PayloadError, match="not a list of projects"):
        project_of(Reply(status=200, headers={}, body=body), "cn-north-4")


@pytest.fixture
async def fake(fake_clock):
    """Run a fake fleet of 200 pods whose time is that of the fake clock."""
    async with FakeIef(200, deployments=8, service=Service(clock=fake_clock.clock.wall)) as running:
        yield running


@pytest.fixture
def clock(fake_clock):
    """Give the option that lets a session run on the fake clock."""
    return {"clock": fake_clock.clock}


@pytest.mark.parametrize(
    ("project", "region", "scope"),
    [
        (None, "cn-north-4", {"name": "cn-north-4"}),
        ("cn-north-4", None, {"name": "cn-north-4"}),
        ("bcd83056c918480f8f190844bd425b23", None, {"id": "bcd83056c918480f8f190844bd425b23"}),
    ],
)
async def test_token_tells_the_project(fake, clock, project, region, scope):
    """Without project_id the token is for the project that is named, and tells its id."""
    options = {"endpoint": fake.endpoint, "iam_endpoint": fake.endpoint, "region": region}
    credentials = password(fake, project=project)
    async with session_at(credentials=credentials, **options, **clock) as ief:
        assert {"Page": 4} == kinds(await ask(ief, fake, 4))

    assert 0 == seen(fake, "/projects")
    login = next(request for request in fake.requests if request.path == LOGIN)
    assert {"project": scope} == json.loads(login.body)["auth"]["scope"]
    assert fake.project_id == fake.requests[-1].headers["x-project-id"]


@pytest.mark.parametrize("kind", [password, access_key])
async def test_looked_up_project_fits_the_same_checkpoint(fake, clock, kind):
    """A scan that began before its project was known goes on after it is, and the other way."""
    options = {"endpoint": fake.endpoint, "iam_endpoint": fake.endpoint, "region": "cn-north-4"}
    async with session_at(credentials=kind(fake), **options, **clock) as ief:
        first = ief.iter_pods(fake.deployment_ids, batch_size=2)
        begun = [await anext(aiter(first))]
        rest = ief.iter_pods(fake.deployment_ids, batch_size=2, resume_from=first.checkpoint())
        async for pod in rest:
            begun.append(pod)
            if len(begun) == 150:
                break
    async with session_at(credentials=kind(fake), **options, **clock) as again:
        saved = rest.checkpoint()
        left = await again.iter_pods(fake.deployment_ids, batch_size=2, resume_from=saved).collect()

    assert {*fake.pod_ids()} == {pod.id for pod in (*begun, *left)}


@pytest.mark.parametrize("name", ["\x1b[31m", "a/../b", "a\r\nX-Evil: 1", "a" * 65, ""])
@pytest.mark.parametrize("kind", [password, access_key])
async def test_project_id_of_a_server_is_an_id_or_none(fake, kind, name):
    """What IAM calls the project's id goes into paths and headers only if it can be one."""
    fake.projects = [{"id": name, "name": "cn-north-4"}]
    where = {"endpoint": fake.endpoint, "iam_endpoint": fake.endpoint}
    async with IefSession(region="cn-north-4", credentials=kind(fake), **where) as ief:
        (error,) = await ask(ief, fake)

    assert isinstance(error, IefError)
    assert not [one for one in fake.requests if one.path.endswith("/pods")]
    assert "\x1b" not in f"{error} {vars(error)}"
