"""`FakeIef` as IAM, as a gateway that verifies, and as a machine's metadata service."""

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from ief_async.testing import Account, FakeIef, FakeRequest, Fault, Service, _signatures, sign

pytestmark = pytest.mark.once  # of the fake server, which no interpreter changes

VECTORS = json.loads((Path(__file__).parents[1] / "samples/signing_vectors.json").read_bytes())[
    "vectors"
]
UNAUTHENTICATED = "Incorrect IAM authentication information: "
SOME_TIME = 1_709_251_199.25
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


class Clock:
    """A clock that a test moves."""

    def __init__(self, at=SOME_TIME):
        self.at = at

    def __call__(self):
        """Give the time."""
        return self.at


@pytest.fixture
async def fake():
    """Run a fake server whose clock does not move."""
    async with FakeIef(service=Service(clock=Clock())) as running:
        yield running


async def send(fake, method, target, *, headers=None, body=None):
    """One request through aiohttp's client: status, headers, JSON (or text that isn't JSON)."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(
            method, URL(fake.endpoint + target, encoded=True), headers=headers, data=body
        ) as answer,
    ):
        text = await answer.text()
        with_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, answer.headers, json.loads(text) if with_json else text


def pods(fake):
    """The target of a list of pods."""
    return f"/v3/{fake.project_id}/edgemgr/pods?deployment_id={fake.deployment_ids[0]}&limit=2"


def signed(fake, target=None, *, method="GET", keys=None, at=None, headers=None):
    """Headers of a signed request to the fake, at its own time unless another is given."""
    access, secret = keys or (fake.access_key, fake.secret_key)
    parts = urlsplit(target or pods(fake))
    at = datetime.fromtimestamp(fake.clock() if at is None else at, UTC)
    sent = {"X-Sdk-Date": at.strftime("%Y%m%dT%H%M%SZ"), **(headers or {})}
    host = fake.endpoint.removeprefix("http://")
    given = {"host": host, "path": parts.path, "query": parts.query, "headers": sent, "now": at}
    return {**sent, "Authorization": sign(access, secret, method=method, **given)}


async def get_signed(fake, target=None, **options):
    """A signed GET: the status, and the error's text or the whole document."""
    target = target or pods(fake)
    headers = signed(fake, target, **options)
    status, _, document = await send(fake, "GET", target, headers=headers)
    return status, document.get("error_msg", document)


def login(fake, **changes):
    """The documented body of a login, parts of it changed or (None) left out."""
    user = {"name": fake.user, "password": fake.password, "domain": {"name": fake.domain}}
    parts = {
        "methods": ["password"],
        "password": {"user": user},
        "scope": {"project": {"name": fake.region}},
        "totp": None,
        **changes,
    }
    identity = {k: parts[k] for k in ("methods", "password", "totp") if parts[k] is not None}
    scope = {} if parts["scope"] is None else {"scope": parts["scope"]}
    return {"auth": {"identity": identity, **scope}}


async def log_in(fake, body=None, *, query="?nocatalog=true", content_type="application/json"):
    """A login: status, headers, document."""
    body = login(fake) if body is None else body
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": content_type}
    return await send(fake, "POST", f"/v3/auth/tokens{query}", headers=headers, body=data)


async def issued(fake):
    """A new token."""
    return (await log_in(fake))[1]["X-Subject-Token"]


async def get_with(fake, token, target=None):
    """A GET with a token: status and document."""
    headers = {"X-Auth-Token": token}
    status, _, document = await send(fake, "GET", target or pods(fake), headers=headers)
    return status, document


# --- sign ---


def vector_arguments(vector):
    """What `sign` takes of a vector."""
    keys = ("method", "host", "path", "query", "headers", "body")
    return {key: vector["input"][key] for key in keys}


@each_vector
def test_sign_makes_the_vendors_signatures(vector):
    """`sign` makes the same signatures as the vendor's signer."""
    made = sign(vector["ak"], vector["sk"], now="", **vector_arguments(vector))
    assert made == vector["authorization"]


def test_sign_takes_a_query_in_any_form():
    """A string, a mapping, lists in it, and pairs are equal; a boolean is in lower case."""
    common = {"method": "GET", "host": "h", "path": "/", "now": "20240229T235959Z"}
    forms = [
        "b=%E4%B8%AD&a=2&a=10&c=true&d=",
        "d&c=tru%65&a=10&a=2&&b=%e4%b8%ad",
        {"a": [10, "2"], "b": "中", "c": True, "d": ""},
        [("d", ""), ("a", "2"), ("c", "true"), ("b", "中"), ("a", 10)],
    ]
    assert len({sign("a", "s", query=form, **common) for form in forms}) == 1
    assert sign("a", "s", query="a=b+c", **common) == sign("a", "s", query={"a": "b+c"}, **common)
    assert sign("a", "s", query="a=b+c", **common) != sign("a", "s", query={"a": "b c"}, **common)


def test_sign_takes_a_time_in_any_form():
    """`now` is a string, seconds or an aware datetime; a naive one is refused."""
    common = {"method": "GET", "host": "h", "path": "/"}
    china = timezone(timedelta(hours=8))
    times = ["20240229T235959Z", SOME_TIME, datetime(2024, 3, 1, 7, 59, 59, tzinfo=china)]
    made = {sign("a", "s", now=now, **common) for now in times}
    made.add(sign("a", "s", now=0, headers={"x-SDK-date": times[0]}, **common))
    assert len(made) == 1
    with pytest.raises(ValueError, match="zone"):
        sign("a", "s", now=datetime(2024, 3, 1), **common)  # noqa: DTZ001 - that is the point


def test_sign_takes_a_body_in_any_form():
    """No body, "" and b"" sign alike; a string is UTF-8; a given hash replaces the body."""
    common = {"method": "POST", "host": "h", "path": "/", "now": 0}
    assert len({sign("a", "s", body=body, **common) for body in (None, "", b"")}) == 1
    one, other = (sign("a", "s", body=body, **common) for body in ("中", "中".encode()))
    assert one == other != sign("a", "s", **common)
    given = {"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"}
    one, other, none = (sign("a", "s", body=b, headers=given, **common) for b in ("1", "2", ""))
    assert one == other != none


# --- signed requests ---


@each_vector
def test_fake_takes_the_vendors_signatures(vector):
    """The fake accepts what the vendor's signer signed, as it was sent."""
    fake = FakeIef(account=Account(access_key=vector["ak"], secret_key=vector["sk"]))
    sent, seen = vector["input"], vector_seen(vector)
    at = sent["headers"]["X-Sdk-Date"]
    fake.clock = datetime.strptime(f"{at}+0000", "%Y%m%dT%H%M%SZ%z").timestamp
    fake._iam.authenticate(seen, sent["headers"].get("X-Project-Id"))
    fake.secret_key += "x"
    text = refusal(fake, seen)
    assert "verify aksk signature fail" in text
    assert vector["canonical_request"].replace("\n", "|") in text


def vector_seen(vector):
    """A vector's request as the fake sees it."""
    sent = vector["input"]
    path, _, raw_query = vector["sent_uri"].partition("?")
    headers = {"host": sent["host"], "authorization": vector["authorization"]}
    headers |= {name.lower(): value for name, value in sent["headers"].items()}
    return FakeRequest(sent["method"], path, raw_query, headers, 0.0, 1, sent["body"].encode())


def refusal(fake, seen):
    """The message with which a request is refused."""
    with pytest.raises(Exception, match="Incorrect IAM") as caught:
        fake._iam.authenticate(seen, None)
    return json.loads(caught.value.answer.body)["error_msg"]


async def test_signed_request_is_let_in(fake):
    """A signature suffices; a project that is named as well must be that of the path."""
    assert (await get_signed(fake))[1]["count"] == 10
    assert (await get_signed(fake, headers={"X-Project-Id": fake.project_id}))[0] == 200
    headers = signed(fake, headers={"X-Project-Id": "0" * 32})
    status, _, error = await send(fake, "GET", pods(fake), headers=headers)
    assert (status, error["error_code"]) == (403, "APIGW.0310")


async def test_signature_covers_raw_path_and_query(fake):
    """Escapes don't matter, a plus isn't a blank, and each parameter counts."""
    target = pods(fake)
    headers = signed(fake, target)
    path, query = target.split("?")
    swapped = f"{path}?{'&'.join(reversed(query.split('&')))}"
    for equal in (swapped, swapped.replace("limit", "%6Cimit")):
        assert (await send(fake, "GET", equal, headers=headers))[0] == 200
    for other in (target.replace("=2", "=3"), f"{target}&a=", target.replace("&limit=2", "")):
        assert (await send(fake, "GET", other, headers=headers))[0] == 401
    plus = f"{target}&plugin_instance_name=a+b"
    assert (await get_signed(fake, plus))[0] == 200
    headers = signed(fake, plus.replace("+", "%20"))
    assert (await send(fake, "GET", plus, headers=headers))[0] == 401


async def test_wrong_signature_shows_what_was_seen(fake):
    """The error has the gateway's canonical request, its lines between bars."""
    status, text = await get_signed(fake, keys=(fake.access_key, "other"))
    assert status == 401
    assert text.startswith(f"{UNAUTHENTICATED}verify aksk signature fail")
    host = fake.endpoint.removeprefix("http://")
    query = f"deployment_id={fake.deployment_ids[0]}&limit=2"
    assert f"GET|/v3/{fake.project_id}/edgemgr/pods/|{query}|host:{host}|x-sdk-date:" in text
    assert text.endswith("||host;x-sdk-date|" + VECTORS[0]["canonical_request"][-64:])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("host;x-sdk-date", "x-sdk-date;host"),
        lambda text: text.replace("host;x-sdk-date", "x-sdk-date"),
        lambda text: text.replace("host;x-sdk-date", "host;x-missing;x-sdk-date"),
        lambda text: text.replace(", ", ","),
        lambda text: text[:-1],
        lambda text: text[:-64] + text[-64:].upper(),
        lambda _: "SDK-HMAC-SHA256 nonsense",
    ],
)
async def test_authorization_is_read_strictly(fake, change):
    """``Authorization`` with its names in another order or spelling is refused."""
    headers = signed(fake)
    headers["Authorization"] = change(headers["Authorization"])
    status, _, error = await send(fake, "GET", pods(fake), headers=headers)
    assert (status, error["error_code"]) == (401, "APIGW.0301")
    assert "verify aksk signature fail" in error["error_msg"]


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (["host", "x-sdk-date"], True),
        (["host"], False),
        (["x-sdk-date"], False),
        (["x-sdk-date", "host"], False),
        (["host", "host", "x-sdk-date"], False),
        (["host", "x-missing", "x-sdk-date"], False),
    ],
)
def test_what_has_to_be_signed(names, fits):
    """A signature must cover host and date, and names that were sent, each once and in order."""
    fake = FakeIef(service=Service(clock=Clock()))
    headers = {"host": "h", "x-sdk-date": "20240229T235959Z"}
    sent = headers | {"authorization": signature_of(fake, headers, names)}
    seen = FakeRequest("GET", "/", "", sent, 0.0, 1)
    if fits:
        fake._iam.authenticate(seen, None)
    else:
        assert "verify aksk signature fail" in refusal(fake, seen)


def signature_of(fake, headers, names):
    """An ``Authorization`` over these headers alone."""
    request = _signatures._canonical("GET", "/", [], headers=headers, names=names, body=b"")
    signature = _signatures._signature(fake.secret_key, headers["x-sdk-date"], request)
    listed = ";".join(names)
    return (
        f"SDK-HMAC-SHA256 Access={fake.access_key}, SignedHeaders={listed}, Signature={signature}"
    )


async def test_unknown_key(fake):
    """An unknown key has its own message, and is never locked."""
    for _ in range(8):
        status, text = await get_signed(fake, keys=("AKUNKNOWN", fake.secret_key))
        assert (status, text.split(": ")[1]) == (401, "Get secretKey failed")
    assert fake.locked_keys == frozenset()


@pytest.mark.parametrize(("off", "fits"), [(899, True), (-899, True), (902, False), (-902, False)])
async def test_clocks_may_differ_by_a_quarter_of_an_hour(fake, off, fits):
    """A right signature that is too old or too new has its own message."""
    status, text = await get_signed(fake, at=fake.clock() + off)
    assert (status == 200) is fits
    if not fits:
        assert text.endswith("calc ak sk signature fail:signature expired")


@pytest.mark.parametrize("date", ["yesterday", "2024-02-29T23:59:59Z", "20240229T235959"])
async def test_other_dates_are_too_old(fake, date):
    """A signature over a malformed date is refused."""
    status, text = await get_signed(fake, headers={"X-Sdk-Date": date})
    assert (status, text) == (401, f"{UNAUTHENTICATED}calc ak sk signature fail:signature expired")


async def test_sixth_wrong_signature_locks_the_key(fake):
    """More than five wrong signatures in a row lock the key for five minutes."""
    for _ in range(5):
        await get_signed(fake, keys=(fake.access_key, "wrong"))
    assert (fake.locked_keys, fake.wrong_signatures) == (frozenset(), {fake.access_key: 5})
    status, text = await get_signed(fake, keys=(fake.access_key, "wrong"))
    assert (status, "verify aksk signature fail" in text) == (401, True)
    assert fake.locked_keys == {fake.access_key}
    for _ in range(3):
        status, text = await get_signed(fake)
        assert text.endswith("AK access failed to reach the limit,forbidden")
    assert (await get_with(fake, fake.token))[0] == 200
    fake.clock.at += 299
    assert (await get_signed(fake))[0] == 401
    fake.clock.at += 2
    assert fake.locked_keys == frozenset()
    assert (await get_signed(fake, keys=(fake.access_key, "wrong")))[0] == 401
    assert (await get_signed(fake))[0] == 200


async def test_right_signature_starts_the_count_anew(fake):
    """A right signature between five wrong ones and five more prevents the lock."""
    for _ in range(3):
        for _ in range(5):
            await get_signed(fake, keys=(fake.access_key, "wrong"))
        assert (await get_signed(fake))[0] == 200
    assert (fake.locked_keys, fake.wrong_signatures) == (frozenset(), {})


async def test_body_is_signed_too(fake):
    """The canonical request has the hash of the body that was received."""
    target = f"/v3/{fake.project_id}/edgemgr/pods"
    headers = signed(fake, target)
    status, _, error = await send(fake, "GET", target, headers=headers, body=b"{}")
    assert (status, "verify aksk signature fail" in error["error_msg"]) == (401, True)
    assert fake.requests[-1].body == b"{}"


# --- tokens ---


async def test_token_is_issued(fake):
    """A login is a 201 with the documented body, and the token is in the header alone."""
    status, headers, document = await log_in(fake)
    token = headers["X-Subject-Token"]
    domain = document["token"]["user"]["domain"]
    assert (status, token[:3], token.isascii()) == (201, "MII", True)
    assert token not in json.dumps(document)
    assert domain["name"] == "fake-domain"
    assert document["token"] == {
        "expires_at": "2024-03-01T23:59:59.250000Z",
        "issued_at": "2024-02-29T23:59:59.250000Z",
        "methods": ["password"],
        "project": {"domain": domain, "id": fake.project_id, "name": "cn-north-4"},
        "roles": [{"id": "0", "name": "te_admin"}, {"id": "0", "name": "op_gated_ief"}],
        "user": {
            "domain": domain,
            "id": "fake-user-id",
            "name": "fake-user",
            "password_expires_at": "",
        },
    }
    assert headers["Date"] == "Thu, 29 Feb 2024 23:59:59 GMT"


@pytest.mark.parametrize(
    ("query", "with_catalog"),
    [("", True), ("?nocatalog=", True), ("?nocatalog=true", False), ("?nocatalog=no", False)],
)
async def test_catalogue(fake, query, with_catalog):
    """Any value of ``nocatalog`` leaves the catalogue out; it names this very server."""
    _, _, document = await log_in(fake, query=query)
    assert ("catalog" in document["token"]) is with_catalog
    if with_catalog:
        (service,) = document["token"]["catalog"]
        assert service["endpoints"][0]["url"].startswith(fake.endpoint)


async def test_each_token_is_another_and_all_are_valid(fake):
    """A new token leaves earlier ones valid, and another seed issues other tokens."""
    tokens = [await issued(fake) for _ in range(3)]
    assert len({*tokens}) == 3
    for token in [*tokens, fake.token]:
        assert (await get_with(fake, token))[0] == 200
    async with FakeIef(seed=1) as other, FakeIef() as same:
        assert await issued(other) not in tokens
        assert await issued(same) == tokens[0]


async def test_tokens_of_any_length(fake):
    """Tokens up to the gateway's limit for a header are accepted, longer ones are refused."""
    for characters, status in ((40, 200), (30_000, 200), (40_000, 494)):
        fake.token_characters = characters
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(max_field_size=65_536, max_line_size=65_536) as http,
            http.post(
                f"{fake.iam_endpoint}/v3/auth/tokens", json=login(fake), headers=headers
            ) as answer,
        ):
            token = answer.headers["X-Subject-Token"]
        assert len(token) == characters
        assert (await get_with(fake, token))[0] == status


@pytest.mark.parametrize(
    "change",
    [
        {"methods": None},
        {"methods": []},
        {"methods": ["token"]},
        {"methods": "password"},
        {"methods": ["password", "totp"]},
        {"password": None},
        {"password": {"user": {"name": "fake-user", "password": "fake-password"}}},
        {"password": {"user": {"name": 1, "password": "p", "domain": {"name": "d"}}}},
        {"scope": 7},
        {"scope": {}},
        {"scope": "else"},
        {"scope": {"system": {"all": True}}},
        {"scope": {"domain": {}}},
        {"scope": {"domain": {"name": "fake-domain", "id": "x"}}},
        {"scope": {"project": {"name": "cn-north-4", "domain": {}}}},
        {"scope": {"project": {"name": "cn-north-4", "domain": {"name": 7}}}},
        {"scope": {"project": {"domain": {"name": "fake-domain"}}}},
        {"scope": {"project": {"name": "cn-north-4", "else": "x"}}},
        {"scope": {"project": {}}},
        {"scope": {"project": {"name": 7}}},
        {"scope": {"project": {"name": "cn-north-4", "id": "x"}}},
        {"scope": {"project": {"name": "cn-north-4"}, "domain": {"name": "fake-domain"}}},
    ],
)
async def test_malformed_logins(fake, change):
    """A body that isn't the documented one is a 400 in IAM's shape, and nothing is issued."""
    status, headers, document = await log_in(fake, login(fake, **change))
    assert (status, document["error"]["code"]) == (400, 400)
    assert document["error"]["title"] == "Bad Request"
    assert "X-Subject-Token" not in headers


async def test_bodies_that_are_no_login(fake):
    """A login that is not a JSON object, or not sent as JSON, is a 400."""
    for body in (b"", b"{", b"[]", b"null", b'"auth"', b'{"auth": 1}', b"\xff"):
        assert (await log_in(fake, body))[0] == 400
    assert (await log_in(fake, content_type="text/plain"))[0] == 400
    assert (await log_in(fake, content_type="application/json;charset=utf8"))[0] == 201


@pytest.mark.parametrize("wrong", ["domain", "user", "password"])
async def test_wrong_logins(fake, wrong):
    """A wrong account, user or password is a 401 in IAM's shape, with the same message."""
    body = login(fake)
    setattr(fake, wrong, "another")
    status, _, document = await log_in(fake, body)
    assert (status, document) == (
        401,
        {
            "error": {
                "code": 401,
                "message": "The username or password is wrong.",
                "title": "Unauthorized",
            }
        },
    )
    assert (await log_in(fake))[0] == 201


async def test_second_factor(fake):
    """If there is a passcode, a login needs it, and it must be that of the user."""
    fake.passcode = "123456"
    for user, passcode, status in (
        ("fake-user-id", "123456", 201),
        ("fake-user-id", "654321", 401),
        ("fake-user", "123456", 401),
    ):
        totp = {"user": {"id": user, "passcode": passcode}}
        body = login(fake, methods=["password", "totp"], totp=totp)
        assert (await log_in(fake, body))[0] == status
    assert (await log_in(fake))[0] == 401


async def test_scope_is_a_known_project(fake):
    """A project is chosen by its id or its name; an unknown one is a 401."""
    fake.projects = [{"id": "a" * 32, "name": "one"}, {"id": "b" * 32, "name": "two"}]
    for scope, expected in (({"name": "two"}, "b" * 32), ({"id": "a" * 32}, "a" * 32)):
        status, _, document = await log_in(fake, login(fake, scope={"project": scope}))
        assert (status, document["token"]["project"]["id"]) == (201, expected)
    assert (await log_in(fake, login(fake, scope={"project": {"name": "on"}})))[0] == 401


# --- keystoneauth1, the client of OpenStack, as a second judge beside the vendor's ---

DOMAIN_ID = "the account's id, which only a token tells"
LOGINS = {
    "project-id": {"project_id": "bcd83056c918480f8f190844bd425b23"},
    "name-and-domain-name": {"project_name": "cn-north-4", "project_domain_name": "fake-domain"},
    "name-and-domain-id": {"project_name": "cn-north-4", "project_domain_id": DOMAIN_ID},
    "domain-name": {"domain_name": "fake-domain"},
    "domain-id": {"domain_id": DOMAIN_ID},
    "unscoped": {"unscoped": True},
    "nothing": {},
}
USERS = {
    "name-and-domain-name": {"username": "fake-user", "user_domain_name": "fake-domain"},
    "name-and-domain-id": {"username": "fake-user", "user_domain_id": DOMAIN_ID},
    "id": {"user_id": "fake-user-id"},
}


@pytest.fixture
def keystone():
    """Give a function that logs in at a fake by keystoneauth1: the session and what it got."""
    keystoneauth1 = pytest.importorskip("keystoneauth1")
    from keystoneauth1 import session
    from keystoneauth1.identity import v3

    with FakeIef(20) as fake, contextlib.ExitStack() as stack:

        def log_in(options, kind=v3.Password, **given):
            options = {"password": fake.password, **options} if kind is v3.Password else options
            given = {
                name: fake._iam._domain_id if value == DOMAIN_ID else value
                for name, value in {**options, **given}.items()
            }
            auth = kind(auth_url=f"{fake.endpoint}/v3", **given)
            opened = session.Session(auth=auth)
            stack.callback(opened.session.close)
            return opened, auth.get_access(opened)

        yield fake, log_in, keystoneauth1, v3


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("scope", LOGINS)
def test_keystoneauth_logs_in(keystone, scope, user):
    """The client of OpenStack gets a token for each scope that the real service knows."""
    fake, log_in, _, _ = keystone
    opened, found = log_in(USERS[user], **LOGINS[scope])

    of_project, of_domain = "project" in str(LOGINS[scope]), scope.startswith("domain")
    assert (of_project, of_domain) == (found.project_scoped, found.domain_scoped)
    assert ("fake-user", "fake-domain") == (found.username, found.user_domain_name)
    answer = opened.get(f"{fake.endpoint}{pods(fake)}", raise_exc=False)
    assert (200 if of_project else 401) == answer.status_code
    projects = opened.get(f"{fake.endpoint}/v3/projects").json()["projects"]
    assert fake.project_id in {project["id"] for project in projects}
    if of_project:
        where = {"service_type": "ief", "interface": "public", "region_name": fake.region}
        assert fake.project_id == found.project_id
        assert "fake-domain" == found.project_domain_name
        path = pods(fake).partition(fake.project_id)[2]
        assert 200 == opened.get(path, endpoint_filter=where).status_code


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wrong"},
        {"username": "nobody"},
        {"user_domain_name": "elsewhere"},
        {"project_name": "nothing"},
        {"project_domain_name": "elsewhere"},
        {"project_name": None, "project_domain_name": None, "domain_name": "elsewhere"},
    ],
    ids=str,
)
def test_keystoneauth_is_refused(keystone, wrong):
    """A wrong password, user, account or project is a 401 to the client of OpenStack, too."""
    _, log_in, keystoneauth1, _ = keystone
    right = {**USERS["name-and-domain-name"], **LOGINS["name-and-domain-name"]}

    with pytest.raises(keystoneauth1.exceptions.Unauthorized):
        log_in({**right, **wrong})


def test_keystoneauth_gets_a_token_for_a_token(keystone):
    """An unscoped token can be exchanged for one of a project until it expires."""
    fake, log_in, keystoneauth1, v3 = keystone
    _, unscoped = log_in(USERS["id"], unscoped=True)
    _, found = log_in({"token": unscoped.auth_token}, v3.Token, **LOGINS["project-id"])
    fake.expire_tokens()

    assert fake.project_id == found.project_id
    with pytest.raises(keystoneauth1.exceptions.Unauthorized):
        log_in({"token": unscoped.auth_token}, v3.Token, **LOGINS["project-id"])


async def test_token_of_another_project(fake):
    """A token that was issued for another project is refused by this one's lists."""
    fake.projects = [{"id": "a" * 32, "name": "cn-north-4"}]
    status, error = await get_with(fake, await issued(fake))
    assert (status, error["error_code"]) == (401, "APIGW.0307")


FACES = [
    ("APIGW.0307", 401, "The token must be updated"),
    (
        "APIGW.0301",
        401,
        f"{UNAUTHENTICATED}token expires, expires_at: 2024-03-01T00:59:59.250000Z",
    ),
    ("IEF.310002", 400, "Token expired"),
]


@pytest.mark.parametrize(("face", "status", "text"), FACES)
async def test_faces_of_an_expired_token(fake, face, status, text):
    """A token is valid for its lifetime, then refused with the chosen one of three codes."""
    fake.token_lifetime = 3_600.0
    token = await issued(fake)
    fake.clock.at += 3_599
    assert (await get_with(fake, token))[0] == 200
    fake.clock.at += 1
    fake.expired = face
    answered, error = await get_with(fake, token)
    assert (answered, error["error_code"], error["error_msg"]) == (status, face, text)
    assert (await get_with(fake, fake.token))[0] == 200


async def test_tokens_expired_by_hand(fake):
    """`expire_tokens` ends all known tokens, the constructor's included; new ones are valid."""
    token = await issued(fake)
    fake.expire_tokens()
    for old in (token, fake.token):
        assert (await get_with(fake, old))[1]["error_code"] == "APIGW.0307"
    assert (await get_with(fake, await issued(fake)))[0] == 200


async def test_expiring_twice_changes_nothing(fake):
    """A token that has expired already keeps the time at which it expired."""
    fake.expired = "APIGW.0301"
    fake.expire_tokens()
    text = (await get_with(fake, fake.token))[1]["error_msg"]
    assert text.endswith("expires_at: 2024-02-29T23:59:59.250000Z")
    fake.clock.at += 60
    fake.expire_tokens()
    assert (await get_with(fake, fake.token))[1]["error_msg"] == text


@pytest.mark.parametrize("expired", [False, True])
async def test_forgotten_tokens(fake, expired):
    """`forget_tokens` makes all known tokens unknown, even expired ones; new ones are valid."""
    token = await issued(fake)
    if expired:
        fake.expire_tokens()
    fake.forget_tokens()
    if expired:
        fake.expire_tokens()
    for old in (token, fake.token):
        assert (await get_with(fake, old))[1]["error_msg"].endswith("decrypt token fail")
    assert (await get_with(fake, await issued(fake)))[0] == 200


async def test_nobody_asks():
    """With ``token=None`` lists need no token, and a login works nevertheless."""
    async with FakeIef(token=None) as fake:
        for headers in ({}, {"X-Auth-Token": "x"}, {"Authorization": "SDK-HMAC-SHA256 nonsense"}):
            assert (await send(fake, "GET", pods(fake), headers=headers))[0] == 200
        fake.expire_tokens()
        fake.forget_tokens()
        assert (await log_in(fake))[0] == 201
        assert (await get_with(fake, "x", "/v3/projects"))[0] == 401


async def test_faults_hit_logins_too(fake):
    """A script and a hook apply to a login as to any other request."""
    fake.script(Fault.status(503, shape="empty"))
    assert (await log_in(fake))[0] == 503
    fake.intercept(lambda seen: Fault.throttle() if seen.method == "POST" else None)
    assert (await log_in(fake))[0] == 429
    assert (await get_with(fake, fake.token))[0] == 200


async def test_password_is_in_no_repr(fake):
    """A printed request shows no body."""
    await log_in(fake)
    assert fake.password.encode() in fake.requests[-1].body
    assert fake.password not in repr(fake.requests)


# --- projects ---


async def test_project_lookup(fake):
    """By default there is one project, with the name of the region."""
    status, document = await get_signed(fake, "/v3/projects?name=cn-north-4")
    (project,) = document["projects"]
    assert (status, project["id"], project["name"]) == (200, fake.project_id, "cn-north-4")
    assert [*project] == [
        *("domain_id", "parent_id", "enabled", "is_domain", "description", "links", "id", "name")
    ]
    assert project["links"]["self"] == f"{fake.endpoint}/v3/projects/{fake.project_id}"
    assert document["links"]["self"] == f"{fake.iam_endpoint}/v3/projects"


async def test_project_names_are_exact(fake):
    """The parameter ``name`` selects projects by their exact name; without it all are listed."""
    names = ["cn-north-4", "cn-north-4_sub", "twin", "twin"]
    fake.projects = [{"id": f"{n:032x}", "name": name} for n, name in enumerate(names)]
    for query, expected in (
        ("", [0, 1, 2, 3]),
        ("?name=cn-north-4", [0]),
        ("?name=twin", [2, 3]),
        ("?name=cn-north", []),
    ):
        _, document = await get_with(fake, fake.token, f"/v3/projects{query}")
        assert [int(project["id"], 16) for project in document["projects"]] == expected


async def test_project_lookup_is_for_the_known(fake):
    """Without a valid token or signature no project is listed."""
    assert (await send(fake, "GET", "/v3/projects"))[0] == 401
    assert (await get_signed(fake, "/v3/projects", keys=(fake.access_key, "x")))[0] == 401
    assert (await get_with(fake, await issued(fake), "/v3/projects"))[0] == 200


# --- temporary keys ---


async def machine_token(fake, ttl="21600"):
    """A token of the metadata service: status and text."""
    headers = {"X-Metadata-Token-Ttl-Seconds": ttl}
    target = "/meta-data/latest/api/token"
    assert fake.metadata_endpoint == fake.endpoint
    status, _, text = await send(fake, "PUT", target, headers=headers)
    return status, text


async def security_key(fake, token=None):
    """A machine's keys: status and credential."""
    headers = {} if token is None else {"X-Metadata-Token": token}
    target = "/openstack/latest/securitykey"
    status, _, document = await send(fake, "GET", target, headers=headers)
    return status, document["credential"] if status == 200 else None


async def new_keys(fake):
    """The keys that a machine is given now."""
    return (await security_key(fake, (await machine_token(fake))[1]))[1]


async def get_with_keys(fake, keys, **headers):
    """A request that is signed by temporary keys: status, and text or document."""
    headers = {"X-Security-Token": keys["securitytoken"]} | headers
    return await get_signed(fake, keys=(keys["access"], keys["secret"]), headers=headers)


async def test_machine_gets_keys(fake):
    """The metadata service gives a token, and for it keys with which the lists can be read."""
    status, token = await machine_token(fake)
    assert (status, token.isascii()) == (200, True)
    status, keys = await security_key(fake, token)
    assert (status, [*keys]) == (200, ["access", "secret", "securitytoken", "expires_at"])
    assert keys["expires_at"] == "2024-03-01T00:59:59.250000Z"
    assert (await get_with_keys(fake, keys))[1]["count"] == 10
    assert (await get_signed(fake))[0] == 200


@pytest.mark.parametrize("ttl", ["", "0", "x", "21601", "-1"])
async def test_metadata_token_needs_a_lifetime(fake, ttl):
    """A token's lifetime that isn't 1 to 21,600 seconds is a 400."""
    assert (await machine_token(fake, ttl))[0] == 400


async def test_metadata_token_ends(fake):
    """A missing, wrong or expired token of the metadata service is a 401."""
    _, token = await machine_token(fake, "60")
    assert (await security_key(fake, token))[0] == 200
    fake.clock.at += 60
    for one in (None, "x", token):
        assert (await security_key(fake, one))[0] == 401


@pytest.mark.parametrize(("metadata", "status"), [("plain", 200), ("none", 404)])
async def test_metadata_without_tokens(fake, metadata, status):
    """With ``metadata`` "plain" keys need no token, and with "none" there are no keys."""
    fake.metadata = metadata
    assert (await machine_token(fake))[0] == 404
    assert (await security_key(fake))[0] == status


async def test_keys_stay_until_half_their_life(fake):
    """Keys are replaced after half their lifetime; the first ones stay valid."""
    keys = await new_keys(fake)
    fake.clock.at += 1_800
    assert await new_keys(fake) == keys
    fake.clock.at += 1
    later = await new_keys(fake)
    assert not {*later.values()} & {*keys.values()}
    for one in (keys, later):
        assert (await get_with_keys(fake, one))[0] == 200
    fake.clock.at += 1_799
    status, text = await get_with_keys(fake, keys)
    assert (status, text.endswith("security token expired")) == (401, True)
    assert (await get_with_keys(fake, later))[0] == 200


async def test_security_token_is_needed_right_and_signed(fake):
    """Temporary keys are refused without their security token, with another or an unsigned one."""
    keys = await new_keys(fake)
    pair = (keys["access"], keys["secret"])
    assert (await get_signed(fake, keys=pair))[0] == 401
    assert (await get_signed(fake, keys=pair, headers={"X-Security-Token": "x"}))[0] == 401
    headers = signed(fake, keys=pair) | {"X-Security-Token": keys["securitytoken"]}
    status, _, error = await send(fake, "GET", pods(fake), headers=headers)
    assert (status, "verify aksk signature fail" in error["error_msg"]) == (401, True)
    assert (await get_with_keys(fake, keys))[0] == 200


async def test_revoked_keys(fake):
    """`revoke_keys` ends all temporary keys, and the service gives others."""
    keys = await new_keys(fake)
    fake.revoke_keys()
    status, text = await get_with_keys(fake, keys)
    assert (status, text.endswith("security token expired")) == (401, True)
    assert (await get_with_keys(fake, await new_keys(fake)))[0] == 200
    assert (await get_signed(fake))[0] == 200


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v3/auth/tokens"),
        ("POST", "/v3/projects"),
        ("GET", "/v3/projects/"),
        ("GET", "/meta-data/latest/api/token"),
        ("PUT", "/openstack/latest/securitykey"),
        ("GET", "//v3/projects"),
    ],
)
async def test_other_methods_and_paths(fake, method, target):
    """A path or method that isn't published is a 404 of the gateway."""
    status, _, error = await send(fake, method, target)
    assert (status, error["error_code"]) == (404, "APIGW.0101")
