"""What the official SDK's variables and files say: real files, real sockets, no secret shown."""

import asyncio
import json
import logging
import pickle
import socket
import traceback
from collections import Counter
from pathlib import Path

import pytest

import ief_async
from ief_async import (
    AccessKey,
    AuthenticationError,
    ConfigurationError,
    IefSession,
    RetryPolicy,
    Token,
)
from ief_async._auth.environment import find_credentials
from ief_async.testing import Account, FakeIef

LIBRARY = Path(ief_async.__file__).parent
PROJECT = "bcd83056c918480f8f190844bd425b23"
AK = "CANARYACCESSKEY00001"
SK = "canary-secret-key-that-opens-nothing-001"
PAIR = {"AK": AK, "SK": SK}
VARIABLE = "HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4"
NOWHERE = "https://nosuchhost.invalid"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """Give each test a home of its own: the folder that the files are in by default."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = tmp_path / ".huaweicloud"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Put the metadata service where nothing listens, and give that address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # the port is taken, but nobody is called
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setattr("ief_async._auth.sources.METADATA", address)
        yield address


@pytest.fixture
def variables(monkeypatch):
    """Give a function that sets variables of the official SDK, named without their prefix."""

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"HUAWEICLOUD_SDK_{name}", str(value))

    return put


@pytest.fixture
async def fake():
    """Run a fake fleet of 40 pods, whose one access key is the canary."""
    async with FakeIef(40, deployments=4, account=Account(access_key=AK, secret_key=SK)) as running:
        yield running


@pytest.fixture
def around(fake, variables):
    """Let the variables name the fake server as a region and as IAM; give the fake."""
    variables(REGION_IEF_CN_NORTH_4=fake.endpoint, IAM_ENDPOINT=fake.endpoint)
    return fake


def regions_file(path, **services):
    """Write a file of regions; JSON is YAML, too."""
    path.write_text(json.dumps(services))


def profile(path, section="basic", **values):
    """Write a section of a file of credentials behind what is there."""
    with path.open("a") as file:
        print(
            f"[{section}]",
            *(f"{name} = {value}" for name, value in values.items()),
            sep="\n",
            file=file,
        )


def refused(call, *args, **options):
    """Return the error that a call is refused with."""
    with pytest.raises(ConfigurationError) as caught:
        call(*args, **options)
    return caught.value


def shown_by(error):
    """Return all that an error shows: its text, its attributes, its pickle, and its frames."""
    shown = [str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))]
    while error is not None:
        shown += traceback.format_exception(error)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if LIBRARY in Path(frame.f_code.co_filename).parents:
                for name, value in frame.f_locals.items():
                    try:
                        shown.append(f"{frame.f_code.co_name}: {name} = {value!r}")
                    except AttributeError:  # half made
                        shown.append(f"{frame.f_code.co_name}: {name}")
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


def paths(fake):
    """Count the requests that the fake saw, by the last part of their paths."""
    return Counter(request.path.rpartition("/")[2] for request in fake.requests)


async def ask(ief, fake, times=1):
    """Send so many requests at once; return what came of each."""
    calls = [ief.list_pods(deployment_id=fake.deployment_ids[0], limit=5) for _ in range(times)]
    return await asyncio.gather(*calls, return_exceptions=True)


# ---- credentials ---------------------------------------------------------------------------------


def test_environment_gives_a_key(variables):
    """AK and SK make an access key; what is not set beside them is None."""
    variables(**PAIR)
    found = find_credentials(None)

    assert AccessKey(AK, SK) == found.credentials
    assert (None, None) == (found.project_id, found.iam_endpoint)


def test_environment_gives_all_that_belongs_to_a_key(variables):
    """The security token and the project are taken from beside them."""
    variables(SECURITY_TOKEN="canary-token", PROJECT_ID=PROJECT, **PAIR)
    found = find_credentials(None)

    assert AccessKey(AK, SK, "canary-token") == found.credentials
    assert PROJECT == found.project_id


def test_empty_variables_are_not_set(variables):
    """A security token and a project that are set to nothing are None, not an empty text."""
    variables(SECURITY_TOKEN="", PROJECT_ID="", IDP_ID="", **PAIR)
    found = find_credentials(None)

    assert AccessKey(AK, SK) == found.credentials
    assert found.project_id is None


def test_file_gives_a_key(home):
    """The section basic of the file in the default place is read, with all that is known there."""
    values = {"security_token": "canary-token", "project_id": PROJECT, "domain_id": "d"}
    profile(home / "credentials", "global", ak="other", sk="other")
    profile(home / "credentials", ak=AK, sk=SK, iam_endpoint="https://p.example.com", **values)
    found = find_credentials(None)

    assert AccessKey(AK, SK, "canary-token") == found.credentials
    assert (PROJECT, "https://p.example.com") == (found.project_id, found.iam_endpoint)


def test_variable_names_the_file(home, tmp_path, variables):
    """A variable names the file; the one in the default place is then not read."""
    profile(home / "credentials", ak="other", sk="other")
    profile(tmp_path / "own", ak=AK, sk=SK)
    variables(CREDENTIALS_FILE=tmp_path / "own")

    assert AccessKey(AK, SK) == find_credentials(None).credentials


def test_empty_variable_names_no_file(home, variables):
    """A variable that is set to nothing leaves the default place."""
    profile(home / "credentials", ak=AK, sk=SK)
    variables(CREDENTIALS_FILE="")

    assert AccessKey(AK, SK) == find_credentials(None).credentials


def test_named_profile_is_a_section(home, variables):
    """A profile that is named is read from the file, even if the environment has a key."""
    profile(home / "credentials", ak="other", sk="other")
    profile(home / "credentials", "night shift", ak=AK, sk=SK)
    variables(AK="third", SK="third")

    assert AccessKey(AK, SK) == find_credentials("night shift").credentials


@pytest.mark.parametrize("secret", ["100%", "%(ak)s", "%%", "a;b", "a#b", "a=b:c", "[x]", "$HOME"])
def test_secret_is_taken_to_the_letter(home, secret):
    """No character in a secret means anything: a % stands for itself, too."""
    profile(home / "credentials", ak=AK, sk=secret)

    assert secret == find_credentials(None).credentials.secret_key.reveal()


def test_names_in_the_file_may_be_in_capitals(home):
    """As configuration files have it, AK is ak, and a colon is as good as an equals sign."""
    (home / "credentials").write_text(f"[basic]\nAK: {AK}\nSk={SK}\nsecurity_token =\n")

    assert AccessKey(AK, SK) == find_credentials(None).credentials


def test_environment_comes_before_the_file(home, variables):
    """A whole pair in the environment wins; nothing of the file is mixed in."""
    profile(home / "credentials", ak="other", sk="other", security_token="x", project_id="p")
    variables(**PAIR)
    found = find_credentials(None)

    assert AccessKey(AK, SK) == found.credentials
    assert found.project_id is None


@pytest.mark.parametrize("half", [{"AK": "half"}, {"SK": "half"}, {"AK": "half", "SK": ""}])
def test_half_a_pair_is_passed_over(home, variables, half):
    """One of AK and SK is no key: the file is read, and the two are not mixed."""
    profile(home / "credentials", ak=AK, sk=SK)
    variables(**half)

    assert AccessKey(AK, SK) == find_credentials(None).credentials


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ak": AK}, "no sk"),
        ({"sk": SK}, "no ak"),
        ({"ak": AK, "sk": ""}, "no sk"),
        ({"project_id": PROJECT, "security_token": "canary-token"}, "no ak and no sk"),
    ],
)
def test_half_a_pair_in_a_named_profile_is_an_error(home, values, words):
    """A profile that is named has to have both; what is missing is said, and nothing shown."""
    profile(home / "credentials", "mine", **values)
    error = refused(find_credentials, "mine")

    assert f"No credentials found in {home / 'credentials'} (section [mine]): {words}" == str(error)
    assert "canary" not in shown_by(error).lower()


def test_profile_that_is_missing_names_those_that_are_there(home):
    """A profile that is named has to be there; the text names the file and its sections."""
    profile(home / "credentials", ak=AK, sk=SK)
    profile(home / "credentials", "night", ak=AK, sk=SK)
    error = refused(IefSession.from_env, "day", region="cn-north-4")

    assert f"{home / 'credentials'} (section [day]): no such section" in str(error)
    assert "basic, night" in str(error)
    assert "canary" not in shown_by(error).lower()


def test_profile_without_a_file_names_the_file(home):
    """A profile that is named without a file to look in: the text says where one was looked for."""
    text = str(refused(find_credentials, "mine"))

    assert f"No credentials found in {home / 'credentials'} (section [mine])" in text
    assert text.endswith("no such file")


SPOILT = {
    "no-section": f"ak = {AK}\nsk = {SK}\n".encode(),
    "no-equals-sign": f"[basic]\nak = {AK}\n{SK}\n".encode(),
    "section-twice": f"[basic]\nak = {AK}\n[basic]\nsk = {SK}\n".encode(),
    "key-twice": f"[basic]\nak = {AK}\nsk = x\nsk = {SK}\n".encode(),
    "open-section": f"[basic\nak = {AK}\nsk = {SK}\n".encode(),
    "json": json.dumps({"basic": {"ak": AK, "sk": SK}}).encode(),
    "not-utf-8": f"[basic]\nak = {AK}\nsk = {SK}".encode() + b"\xff\n",
    "utf-16": f"[basic]\nak = {AK}\nsk = {SK}\n".encode("utf-16"),
}


@pytest.mark.parametrize("profile", ["basic", None])
@pytest.mark.parametrize("name", SPOILT)
def test_damaged_file_of_credentials_is_an_error_that_shows_no_line(home, name, profile, caplog):
    """The parser's own error quotes the line; neither text nor frame nor log of ours does."""
    caplog.set_level(logging.DEBUG)
    (home / "credentials").write_bytes(SPOILT[name])
    error = refused(IefSession.from_env, profile, region="cn-north-4")

    assert f"{home / 'credentials'} can't be read as a profile file (" in str(error)
    assert "canary" not in shown_by(error).lower()
    assert "canary" not in caplog.text.lower()


def test_file_of_credentials_may_begin_with_a_byte_order_mark(home):
    """What some editors write ahead of a text is no part of it."""
    (home / "credentials").write_bytes(f"[basic]\nak = {AK}\nsk = {SK}\n".encode("utf-8-sig"))

    assert AccessKey(AK, SK) == find_credentials(None).credentials


@pytest.mark.parametrize("name", ["folder", "too-long"])
def test_file_of_credentials_that_can_not_be_opened_is_named(tmp_path, variables, name):
    """What the system says of the file is an error of this library."""
    variables(CREDENTIALS_FILE=tmp_path if name == "folder" else tmp_path / ("x" * 5_000))

    assert "can't be read as a profile file (" in str(refused(find_credentials, "basic"))


def test_empty_file_of_credentials_has_no_sections(home):
    """An empty file is no error of its own: the section is missing."""
    (home / "credentials").touch()

    assert str(refused(find_credentials, "basic")).endswith("no such section (it has: none)")


@pytest.mark.parametrize("bad", [f"{SK}\n", f"{SK} ", f"{SK}é", f" {SK}"])
@pytest.mark.parametrize("name", ["AK", "SK", "SECURITY_TOKEN"])
def test_variable_that_no_header_can_carry_is_refused_unshown(variables, name, bad):
    """A secret with a stray newline is refused; neither text nor frame shows it."""
    variables(**{**PAIR, name: bad})
    error = refused(IefSession.from_env, region="cn-north-4")

    assert str(error).startswith("AccessKey(")
    assert "canary" not in shown_by(error).lower()


def test_identity_provider_is_named_as_not_supported(home):
    """Who signs in by an identity provider reads that this is not supported."""
    profile(home / "credentials", "federated", idp_id="canary-idp", id_token_file="/x/canary")
    error = refused(find_credentials, "federated")

    assert str(error).endswith(
        "no ak and no sk (an identity provider is set, which is not supported)"
    )
    assert "canary" not in shown_by(error)


def test_places_are_no_secret_and_values_are(variables, home, caplog):
    """One INFO line says where the credentials were found, and nothing of what they are."""
    caplog.set_level(logging.DEBUG)
    variables(SECURITY_TOKEN="canary-token", **PAIR)
    IefSession.from_env(region="cn-north-4")
    profile(home / "credentials", "mine", ak=AK, sk=SK, security_token="canary-token")
    IefSession.from_env("mine", region="cn-north-4")

    assert [
        ("ief_async", logging.INFO, f"credentials found in {place}")
        for place in (
            "the environment (HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK)",
            f"{home / 'credentials'} (section [mine])",
        )
    ] == caplog.record_tuples
    assert "canary" not in caplog.text.lower()


def test_what_was_found_shows_no_secret(variables):
    """What a place gives prints stars, and so does the session made of it."""
    variables(SECURITY_TOKEN="canary-token", PROJECT_ID=PROJECT, **PAIR)
    ief = IefSession.from_env(region="cn-north-4")

    assert "canary" not in repr([find_credentials(None), ief, ief._transport]).lower()


# ---- overrides of from_env -----------------------------------------------------------------------


async def test_arguments_win_over_what_was_found(home, variables):
    """Project, region, IAM and endpoint that are given are used; the key is the one found."""
    profile(
        home / "credentials", ak=AK, sk=SK, project_id="p", iam_endpoint="https://p.example.com"
    )
    variables(REGION_IEF_CN_NORTH_4="https://v.example.com")
    ief = IefSession.from_env(
        project_id=PROJECT, endpoint="https://e.example.com", iam_endpoint="https://i.example.com"
    )
    transport = ief._transport

    assert (PROJECT, "https://e.example.com") == (transport.project.id, transport.endpoint)
    assert "https://i.example.com" == transport.iam_endpoint
    async with transport.provider.permit(None, None):
        assert AccessKey(AK, SK) == transport.provider.key()
    east = IefSession.from_env(region="cn-east-3")._transport
    assert ("p", "https://ief.cn-east-3.myhuaweicloud.com") == (east.project.id, east.endpoint)


def test_given_credentials_are_all_that_counts(home, variables, caplog):
    """With credentials= neither variables nor file are looked at: a damaged one does not show."""
    caplog.set_level(logging.INFO)
    (home / "credentials").write_bytes(SPOILT["no-section"])
    variables(SECURITY_TOKEN="no header", **PAIR)
    ief = IefSession.from_env(credentials=Token("t"), project_id=PROJECT, region="cn-north-4")

    assert Token("t") == ief._transport.provider.key()
    assert not caplog.records


def test_other_options_are_passed_on(variables):
    """from_env takes whatever the constructor takes."""
    variables(PROJECT_ID=PROJECT, **PAIR)
    ief = IefSession.from_env(
        region="cn-north-4", instance_id="canary-instance", retry=RetryPolicy(attempts=2)
    )

    assert "canary-instance" == ief._transport.instance_id
    assert 2 == ief._transport.retry.attempts
    with pytest.raises(TypeError, match="nonsense"):
        IefSession.from_env(region="cn-north-4", nonsense=1)


def test_class_of_the_session_is_kept(variables):
    """A subclass gets its own kind."""

    class Own(IefSession):
        pass

    variables(PROJECT_ID=PROJECT, **PAIR)

    assert Own is type(Own.from_env(region="cn-north-4"))


# ---- nothing found, and the metadata service -----------------------------------------------------


async def test_nothing_found_lists_every_place(around, home, silence, caplog):
    """The first request says that there is no key, and each place where one was looked for."""
    caplog.set_level(logging.INFO)
    async with IefSession.from_env() as ief:
        assert "asking the metadata service" in caplog.text
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    text = str(error)
    places = (
        "the environment (HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK): no ak and no sk; ",
        f"{home / 'credentials'} (section [basic]): no such file; ",
        f"{silence}: PUT /meta-data/latest/api/token: ",
    )
    assert text.startswith("No credentials found. Looked at ")
    assert text.endswith(" Set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK.")
    assert sorted(map(text.index, places)) == [text.index(place) for place in places]
    assert not around.requests


async def test_nothing_found_says_what_is_wrong_with_each_place(around, home, variables):
    """Half a pair, an identity provider and a missing section are named, nothing is shown."""
    (home / "credentials").write_text("[other]\n")
    variables(AK=AK, IDP_ID="canary-idp", PROJECT_ID=PROJECT)
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    assert "no sk (an identity provider is set, which is not supported); " in str(error)
    assert "(section [basic]): no such section (it has: other); " in str(error)
    assert "canary" not in shown_by(error).lower()


async def test_server_without_an_agency_is_one_of_the_places(around, monkeypatch):
    """A metadata service that gives no keys is listed with its answer."""
    monkeypatch.setattr("ief_async._auth.sources.METADATA", around.metadata_endpoint)
    around.metadata = "none"
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    assert f"{around.endpoint}: GET /openstack/latest/securitykey was answered 404" in str(error)
    assert "server, and that it has an agency. Set HUAWEICLOUD_SDK_AK and " in str(error)


async def test_keys_of_the_server_are_used_when_nothing_else_is_found(around, monkeypatch):
    """On an elastic cloud server its temporary keys sign lookup and scan, asked for only once."""
    monkeypatch.setattr("ief_async._auth.sources.METADATA", around.metadata_endpoint)
    async with IefSession.from_env() as ief:
        assert not around.requests  # nothing is asked before the first request
        pages = await ask(ief, around, 8)

    assert [10] * 8 == [page.count for page in pages]
    assert {"token": 1, "securitykey": 1, "projects": 1, "pods": 8} == paths(around)
    signed = [request.headers for request in around.requests if "authorization" in request.headers]
    assert 9 == len(signed)
    assert all("Access=HST" in headers["authorization"] for headers in signed)
    assert all(headers["x-security-token"] for headers in signed)
    assert not around.wrong_signatures


async def test_project_of_the_environment_goes_with_the_servers_keys(
    around, variables, monkeypatch
):
    """A project that is set without a key is for the keys of the server: no lookup."""
    monkeypatch.setattr("ief_async._auth.sources.METADATA", around.metadata_endpoint)
    variables(PROJECT_ID=PROJECT)
    async with IefSession.from_env() as ief:
        (page,) = await ask(ief, around)

    assert 10 == page.count
    assert {"token": 1, "securitykey": 1, "pods": 1} == paths(around)


@pytest.mark.parametrize("place", ["environment", "file", "argument"])
async def test_server_is_not_asked_when_a_key_is_found(around, home, variables, monkeypatch, place):
    """The metadata service is the last resort: with a key from elsewhere it sees no request."""
    monkeypatch.setattr("ief_async._auth.sources.METADATA", around.metadata_endpoint)
    options = {}
    if place == "environment":
        variables(**PAIR)
    elif place == "file":
        profile(home / "credentials", ak=AK, sk=SK)
    else:
        options["credentials"] = AccessKey(AK, SK)
    async with IefSession.from_env(**options) as ief:
        await ask(ief, around)

    assert {"projects": 1, "pods": 1} == paths(around)


# ---- from end to end -----------------------------------------------------------------------------


async def test_variables_alone_make_a_scan(around, variables, caplog):
    """With variables only, every pod is read, signed by their key; the log shows no secret."""
    caplog.set_level(logging.DEBUG, "ief_async")
    variables(SECURITY_TOKEN="canary-token", **PAIR)
    async with IefSession.from_env() as ief:
        pods = [pod.id async for pod in ief.iter_pods(around.deployment_ids, batch_size=1)]

    assert sorted(around.pod_ids()) == sorted(pods)
    assert f"the project is {PROJECT}" in caplog.text
    assert "canary" not in caplog.text.lower()
    for request in around.requests:
        assert f"Access={AK}, " in request.headers["authorization"]
        assert "canary-token" == request.headers["x-security-token"]


async def test_file_alone_makes_a_scan(fake, home):
    """With the two files only, every pod is read; the project beside the key is not looked up."""
    regions_file(home / "regions.yaml", IEF=[{"id": "cn-north-4", "endpoint": fake.endpoint}])
    profile(home / "credentials", ak=AK, sk=SK, project_id=PROJECT, iam_endpoint=NOWHERE)
    async with IefSession.from_env() as ief:
        pods = [pod.id async for pod in ief.iter_pods(fake.deployment_ids)]

    assert sorted(fake.pod_ids()) == sorted(pods)
    assert {"pods"} == paths(fake).keys()


async def test_project_is_looked_up_once_for_all(around, variables):
    """Eight first calls share one lookup: signed, by the region's name, without a project."""
    variables(**PAIR)
    async with IefSession.from_env() as ief:
        pages = await ask(ief, around, 8)
        pages += await ask(ief, around)

    assert [10] * 9 == [page.count for page in pages]
    assert {"projects": 1, "pods": 9} == paths(around)
    lookup = around.requests[0]
    assert ("/v3/projects", {"name": "cn-north-4"}) == (lookup.path, lookup.query)
    assert f"Access={AK}, " in lookup.headers["authorization"]
    assert "x-project-id" not in lookup.headers
    assert {PROJECT} == {request.headers["x-project-id"] for request in around.requests[1:]}


async def test_project_that_is_set_is_not_looked_up(around, variables):
    """With the project's id in the environment IAM is not asked."""
    variables(PROJECT_ID=PROJECT, **PAIR)
    async with IefSession.from_env() as ief:
        (page,) = await ask(ief, around)

    assert 10 == page.count
    assert {"pods": 1} == paths(around)


async def test_several_projects_of_the_name_are_listed(around, variables):
    """Which of two projects is meant nobody guesses: their ids are listed, and nothing is read."""
    around.projects = [
        {"id": PROJECT, "name": "cn-north-4"},
        {"id": "0" * 32, "name": "cn-north-4"},
        {"id": "1" * 32, "name": "cn-north-1"},
    ]
    variables(**PAIR)
    async with IefSession.from_env() as ief:
        errors = await ask(ief, around, 3)

    assert {ConfigurationError} == set(map(type, errors))
    for error in errors:
        text = str(error)
        assert "2 projects named 'cn-north-4'" in text
        assert [PROJECT, "0" * 32] == [one["id"] for one in around.projects if one["id"] in text]
    assert "pods" not in paths(around)


async def test_no_project_of_the_name_is_said(around, variables):
    """A region in which the account has no project: the text says so, and what to give."""
    around.projects = [{"id": PROJECT, "name": "cn-north-1"}]
    variables(**PAIR)
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert ConfigurationError is type(error)
    assert "IAM knows no project named 'cn-north-4'; give project_id=" == str(error)
    assert {"projects": 1} == paths(around)


async def test_wrong_key_of_the_environment_is_refused_unshown(around, variables):
    """A server that echoes what was signed does not bring the key into the error."""
    variables(AK=AK, SK=f"{SK}-wrong", SECURITY_TOKEN="canary-token", PROJECT_ID=PROJECT)
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    assert "canonicalRequest" in str(error)
    assert "canary" not in shown_by(error).lower()
