"""What the official SDK's variables and files say: real files, real sockets, no secret shown."""

import asyncio
import json
import logging
import pickle
import socket
import ssl
import sys
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
    TransportError,
)
from ief_async._auth.environment import find_credentials
from ief_async._regions import IAM_REGIONS, REGIONS, endpoints_of, iam_endpoint_of, known_region
from ief_async.testing import Account, FakeIef, Fault

LIBRARY = Path(ief_async.__file__).parent
PROJECT = "bcd83056c918480f8f190844bd425b23"
AK = "CANARYACCESSKEY00001"
SK = "canary-secret-key-that-opens-nothing-001"
PAIR = {"AK": AK, "SK": SK}
VARIABLE = "HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4"
NOWHERE = "https://nosuchhost.invalid"

# the contract's table of regions, both spellings, and IAM's hosts of their own
HOSTS = {
    "cn-north-1": ("ief", "ief2"),
    "cn-north-4": ("ief", "ief2"),
    "cn-east-2": ("ief", "ief2"),
    "cn-east-3": ("ief",),
    "cn-south-1": ("ief",),
}
IAM = [
    *(f"cn-north-{number}" for number in (1, 2, 4, 9, 12)),
    *(f"cn-east-{number}" for number in (2, 3, 4, 5)),
    *("cn-south-1", "cn-south-2", "cn-southwest-2"),
    *(f"ap-southeast-{number}" for number in (1, 2, 3, 4)),
    *("af-south-1", "sa-brazil-1", "la-south-2", "la-north-2", "na-mexico-1", "eu-west-0"),
    *("my-kualalumpur-1", "ru-moscow-1", "me-east-1", "ae-ad-1", "tr-west-1"),
]


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
            if Path(frame.f_code.co_filename).parent == LIBRARY:
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


# ---- regions -------------------------------------------------------------------------------------


def test_regions_are_those_of_the_documents():
    """The table has the five regions with a documented API host, and no other."""
    assert HOSTS == dict(REGIONS)


@pytest.mark.parametrize("region", HOSTS)
def test_region_has_its_hosts(region):
    """Each region gives its hosts in both spellings where two are documented, first `ief.`."""
    hosts = tuple(f"https://{host}.{region}.myhuaweicloud.com" for host in HOSTS[region])
    ief = IefSession(PROJECT, credentials=Token("t"), region=region)

    assert hosts == endpoints_of(region)
    assert hosts[0] == ief._transport.endpoint == f"https://ief.{region}.myhuaweicloud.com"


@pytest.mark.parametrize(
    ("region", "variable"),
    [
        ("ap-southeast-1", "HUAWEICLOUD_SDK_REGION_IEF_AP_SOUTHEAST_1"),
        ("CN-NORTH-4", VARIABLE),
        ("cn_north_4", VARIABLE),
        ("", "HUAWEICLOUD_SDK_REGION_IEF_"),
        (None, VARIABLE),
        (7, VARIABLE),
        (["cn-north-4"], VARIABLE),
    ],
)
def test_unknown_region_is_told_what_helps(region, variable):
    """A region that is not known: the known ones, endpoint=, and the variable for this very one."""
    text = str(refused(endpoints_of, region))

    assert text.startswith("region takes one of ")
    assert not [known for known in HOSTS if known not in text]
    assert f"was given {region!r}" in text
    assert "give endpoint='https://" in text
    assert text.endswith(f"or set {variable}")


def test_very_long_region_is_cut_in_the_error():
    """A text that is no region does not flood the log."""
    assert len(str(refused(endpoints_of, "x" * 100_000))) < 500


@pytest.mark.parametrize(
    ("value", "endpoints"),
    [
        ("https://a.example.com", ["https://a.example.com"]),
        ("https://a.example.com/", ["https://a.example.com"]),
        ("https://a.example.com:443", ["https://a.example.com"]),
        ("http://127.0.0.1:8080", ["http://127.0.0.1:8080"]),
        (
            "https://b.example.com,https://a.example.com:8443",
            ["https://b.example.com", "https://a.example.com:8443"],
        ),
        (
            "  https://b.example.com ,\thttps://a.example.com ",
            ["https://b.example.com", "https://a.example.com"],
        ),
        (
            "https://a.example.com,https://a.example.com/,https://b.example.com",
            ["https://a.example.com", "https://b.example.com"],
        ),
    ],
)
def test_variable_redefines_a_region(variables, value, endpoints):
    """The variable wins over the table: one endpoint or several, each only once, in order."""
    variables(REGION_IEF_CN_NORTH_4=value)

    assert tuple(endpoints) == endpoints_of("cn-north-4")
    assert "https://ief.cn-north-1.myhuaweicloud.com" == endpoints_of("cn-north-1")[0]


def test_variable_makes_a_region_known(variables):
    """A region without a documented host can be used once its variable is set."""
    variables(REGION_IEF_AP_SOUTHEAST_1="https://a.example.com")

    assert ("https://a.example.com",) == endpoints_of("ap-southeast-1")


@pytest.mark.parametrize(
    "name", ["REGION_ECS_CN_NORTH_4", "REGION_IEFX_CN_NORTH_4", "REGION_CN_NORTH_4"]
)
def test_variable_of_another_service_says_nothing(variables, name):
    """What is set for another service is neither used nor checked."""
    variables(**{name: "no endpoint"})

    assert "https://ief.cn-north-4.myhuaweicloud.com" == endpoints_of("cn-north-4")[0]
    assert known_region() is None


@pytest.mark.parametrize(
    "value",
    [
        "http://a.example.com",
        "https://a.example.com,http://b.example.com",
        "https://a.example.com;https://b.example.com",
        "https://a.example.com/path",
        "a.example.com",
        " ",
        ",",
    ],
)
def test_variable_that_holds_no_endpoint_is_named(variables, value):
    """Plain http off loopback and whatever else is no endpoint is refused, with the variable."""
    variables(REGION_IEF_CN_NORTH_4=value)

    assert str(refused(endpoints_of, "cn-north-4")).startswith(f"{VARIABLE} takes https://host")
    assert "https://ief.cn-north-1.myhuaweicloud.com" == endpoints_of("cn-north-1")[0]


@pytest.mark.parametrize("host", ["user:canary-password@a.example.com", "a.example.com?k=canary"])
def test_secret_in_an_endpoint_is_not_shown(variables, host):
    """E14: a password or a query in a variable's endpoint is refused unshown."""
    variables(REGION_IEF_CN_NORTH_4=f"https://{host}")

    assert "canary" not in str(refused(endpoints_of, "cn-north-4"))


def test_empty_variable_of_a_region_is_not_set(variables):
    """A variable that is set to nothing leaves the table as it is."""
    variables(REGION_IEF_CN_NORTH_4="")

    assert "https://ief.cn-north-4.myhuaweicloud.com" == endpoints_of("cn-north-4")[0]
    assert known_region() is None


FILES = {
    "endpoint": {"IEF": [{"id": "cn-north-4", "endpoint": "https://a.example.com"}]},
    "endpoints": {"IEF": [{"id": "cn-north-4", "endpoints": ["https://a.example.com"]}]},
    "lower-case": {"ief": [{"id": "cn-north-4", "endpoint": "https://a.example.com"}]},
    "mixed-case": {"Ief": [{"id": "cn-north-4", "endpoint": "https://a.example.com"}]},
    "more-keys": {"IEF": [{"id": "cn-north-4", "endpoint": "https://a.example.com", "x": 1}]},
    "null-endpoints": {
        "IEF": [{"id": "cn-north-4", "endpoints": None, "endpoint": "https://a.example.com"}]
    },
    "second": {
        "IEF": [
            {"id": "cn-north-1", "endpoint": "https://b.example.com"},
            {"id": "cn-north-4", "endpoint": "https://a.example.com"},
        ]
    },
    "among-others": {
        "ECS": [{"id": "cn-north-4", "endpoint": "https://ecs.example.com"}],
        "IEF": [{"id": "cn-north-4", "endpoint": "https://a.example.com"}],
        "VPC": [{"id": "cn-north-4", "endpoint": "https://vpc.example.com"}],
    },
    "others-are-odd": {
        "IEF": [{"id": "cn-north-4", "endpoint": "https://a.example.com"}],
        "ECS": None,
        "VPC": [{"id": 7, "endpoint": "ftp://x", "endpoints": "none"}],
        "OBS": "https://obs.example.com",
    },
    "without-id-or-endpoint": {
        "IEF": [
            {"endpoint": "https://b.example.com"},
            {"id": "cn-north-1"},
            {"id": "cn-north-1", "endpoint": "", "endpoints": []},
            {"id": "cn-north-4", "endpoint": "https://a.example.com"},
        ]
    },
}


@pytest.mark.parametrize("name", FILES)
def test_file_redefines_a_region(home, name):
    """A file wins over the table, by service in any case; what concerns others is ignored."""
    regions_file(home / "regions.yaml", **FILES[name])

    assert ("https://a.example.com",) == endpoints_of("cn-north-4")


def test_file_is_yaml(home):
    """The file is written as the official SDK documents it."""
    (home / "regions.yaml").write_text(
        """
        # our own gateway
        IEF:
          - id: cn-north-4
            endpoints:
              - https://a.example.com
              - 'https://b.example.com:8443'
          - id: xx-own-1
            endpoint: https://c.example.com
        """
    )

    assert ("https://a.example.com", "https://b.example.com:8443") == endpoints_of("cn-north-4")
    assert ("https://c.example.com",) == endpoints_of("xx-own-1")


def test_file_with_both_spellings_gives_all_endpoints(home):
    """`endpoint` stands behind `endpoints` when an entry has both, as in the official SDK."""
    entry = {"endpoints": ["https://a.example.com"], "endpoint": "https://b.example.com"}
    regions_file(home / "regions.yaml", IEF=[{"id": "cn-north-4", **entry}])

    assert ("https://a.example.com", "https://b.example.com") == endpoints_of("cn-north-4")


def test_file_in_another_place_is_read_instead(home, tmp_path, variables):
    """A variable names the file; the one in the default place is then not read."""
    (home / "regions.yaml").write_text("{damaged")
    regions_file(tmp_path / "other", **FILES["endpoint"])
    variables(REGIONS_FILE=tmp_path / "other")

    assert ("https://a.example.com",) == endpoints_of("cn-north-4")


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "null", "{}", "IEF: []\n"])
def test_empty_file_says_nothing(home, text):
    """A file without an entry leaves the table as it is."""
    (home / "regions.yaml").write_text(text)

    assert "https://ief.cn-north-4.myhuaweicloud.com" == endpoints_of("cn-north-4")[0]


@pytest.mark.parametrize("name", ["no-such-file", "a-folder", ""])
def test_file_that_is_not_there_says_nothing(tmp_path, variables, name):
    """No file, a folder in its place, and a variable that is set to nothing: the table holds."""
    (tmp_path / "a-folder").mkdir()
    variables(REGIONS_FILE=tmp_path / name if name else "")

    assert "https://ief.cn-north-4.myhuaweicloud.com" == endpoints_of("cn-north-4")[0]


def test_user_without_a_home_has_no_files(monkeypatch, caplog):
    """Where the system knows no home, as in some containers, there are no files: no error."""

    def unknown(_):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    caplog.set_level(logging.INFO, "ief_async")

    assert "https://ief.cn-north-4.myhuaweicloud.com" == endpoints_of("cn-north-4")[0]
    assert find_credentials(None).project_id is None
    assert "no credentials found in variables and files" in caplog.text


def test_variable_wins_over_file(home, variables):
    """What both redefine is as the variable says; the file's other regions stay."""
    entries = [{"id": name, "endpoint": "https://f.example.com"} for name in ("cn-north-4", "x-1")]
    regions_file(home / "regions.yaml", IEF=entries)
    variables(REGION_IEF_CN_NORTH_4="https://v.example.com")

    assert ("https://v.example.com",) == endpoints_of("cn-north-4")
    assert ("https://f.example.com",) == endpoints_of("x-1")


def test_endpoint_wins_over_all_and_the_file_is_not_read(home, variables):
    """endpoint= is all that counts: a damaged file and a wrong variable do not even show."""
    (home / "regions.yaml").write_text("{damaged")
    variables(REGION_IEF_CN_NORTH_4="no endpoint")
    options = {"region": "cn-north-4", "endpoint": "https://e.example.com"}
    made = IefSession(PROJECT, credentials=Token("t"), **options)
    found = IefSession.from_env(credentials=Token("t"), project_id=PROJECT, **options)

    assert {"https://e.example.com"} == {ief._transport.endpoint for ief in (made, found)}


def test_given_endpoint_alone_keeps_from_env_off_the_file(home, variables):
    """Who gives from_env an endpoint and no region has none: no file is searched for one."""
    (home / "regions.yaml").write_text("{damaged")
    variables(PROJECT_ID=PROJECT, **PAIR)
    transport = IefSession.from_env(endpoint="https://e.example.com")._transport

    assert ("https://e.example.com", None) == (transport.endpoint, transport.project.name)


DAMAGED = {
    "open-bracket": b"IEF: [{id: cn-north-4",
    "tab": b"IEF:\n\t- id: x\n",
    "utf-16": "IEF: []".encode("utf-16")[:-1],
    "nul": b"IEF: \0",
    "list": b"[IEF]",
    "text": b"IEF",
    "number": b"7: []",
    "service-is-null": b"IEF:\n",
    "service-is-text": b"IEF: https://a.example.com\n",
    "service-is-mapping": b"IEF: {cn-north-4: https://a.example.com}\n",
    "entry-is-text": b"IEF: [https://a.example.com]\n",
    "entry-is-null": b"IEF: [null]\n",
    "id-is-number": b"IEF: [{id: 7, endpoint: 'https://a.example.com'}]",
    "endpoint-is-list": b"IEF: [{id: x, endpoint: ['https://a.example.com']}]",
    "endpoints-is-text": b"IEF: [{id: x, endpoints: 'https://a.example.com'}]",
    "no-such-day": b"IEF: [{id: 2024-02-31, endpoint: 'https://a.example.com'}]",
    "python": b"IEF: !!python/object/apply:os.getcwd []",
    "two-documents": b"IEF: []\n---\nIEF: []\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_named(home, name):
    """A file that can't be read as regions is a ConfigurationError with the file's name."""
    (home / "regions.yaml").write_bytes(DAMAGED[name])
    error = refused(IefSession, PROJECT, credentials=Token("t"), region="cn-north-4")

    assert str(error).startswith(f"{home / 'regions.yaml'} can't be read as regions: ")
    assert error.__context__ is None


def test_file_whose_name_can_not_be_looked_up_is_named(variables):
    """What the system says of the file's name is an error of this library, too."""
    variables(REGIONS_FILE="x" * 5_000)

    assert "can't be read as regions: " in str(refused(endpoints_of, "cn-north-4"))


def test_file_that_may_not_be_read_is_named(home, monkeypatch):
    """A file of somebody else is not passed over."""

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    regions_file(home / "regions.yaml", **FILES["endpoint"])
    monkeypatch.setattr(Path, "read_bytes", denied)

    assert "regions.yaml can't be read as regions: " in str(refused(endpoints_of, "cn-north-4"))


@pytest.mark.parametrize("endpoint", ["http://a.example.com", "a.example.com", "https://a/path"])
def test_file_that_holds_no_endpoint_is_named(home, endpoint):
    """Plain http off loopback and whatever else is no endpoint is refused, with the file."""
    regions_file(home / "regions.yaml", IEF=[{"id": "cn-north-4", "endpoints": [endpoint]}])

    text = str(refused(endpoints_of, "cn-north-4"))
    assert text.startswith(f"{home / 'regions.yaml'} takes https://host")


def test_without_pyyaml_the_file_says_how_to_install_it(home, monkeypatch):
    """PyYAML is an extra: who has a file and not the extra is told its name, or endpoint=."""
    regions_file(home / "regions.yaml", **FILES["endpoint"])
    monkeypatch.setitem(sys.modules, "yaml", None)
    error = refused(endpoints_of, "cn-north-4")

    assert f"{home / 'regions.yaml'} needs PyYAML: pip install 'ief-async[yaml]'" in str(error)
    assert "endpoint=" in str(error)
    assert error.__context__ is None


def test_without_a_file_pyyaml_is_not_missed(monkeypatch, variables):
    """Variables and the table do without the extra."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    variables(REGION_IEF_CN_NORTH_4="https://v.example.com")

    assert ("https://v.example.com",) == endpoints_of("cn-north-4")
    assert "https://ief.cn-north-1.myhuaweicloud.com" == endpoints_of("cn-north-1")[0]


def test_changed_variable_is_seen(variables):
    """Nothing is kept from one session for the next, unlike in the official SDK."""
    for host in ("a", "b"):
        variables(REGION_IEF_CN_NORTH_4=f"https://{host}.example.com")
        assert (f"https://{host}.example.com",) == endpoints_of("cn-north-4")


# ---- the only region -----------------------------------------------------------------------------


def test_only_region_of_the_variables_is_the_one(variables):
    """from_env takes the one region that a variable names, for the endpoint, IAM and the lookup."""
    variables(REGION_IEF_AP_SOUTHEAST_3="https://v.example.com", **PAIR)
    transport = IefSession.from_env()._transport

    assert "https://v.example.com" == transport.endpoint
    assert "https://iam.ap-southeast-3.myhuaweicloud.com" == transport.iam_endpoint
    assert "ap-southeast-3" == transport.project.name


def test_only_region_of_the_file_is_the_one(home, variables):
    """from_env takes the one region that the file names."""
    regions_file(home / "regions.yaml", **FILES["endpoint"])
    variables(**PAIR)
    transport = IefSession.from_env()._transport

    assert ("https://a.example.com", "cn-north-4") == (transport.endpoint, transport.project.name)


def test_entry_without_an_id_or_an_endpoint_is_no_region(home):
    """What says nothing of a region does not count beside the only one."""
    regions_file(home / "regions.yaml", **FILES["without-id-or-endpoint"])

    assert "cn-north-4" == known_region()


def test_session_needs_no_region_where_one_is_defined(variables):
    """The constructor without region and endpoint uses the only region that is defined."""
    variables(REGION_IEF_CN_NORTH_4="https://v.example.com")

    assert (
        "https://v.example.com" == IefSession(PROJECT, credentials=Token("t"))._transport.endpoint
    )


def test_among_several_regions_none_is_chosen(home, variables):
    """Two regions, be it one in the file and one in a variable: somebody has to choose."""
    regions_file(home / "regions.yaml", **FILES["endpoint"])
    variables(REGION_IEF_CN_EAST_3="https://v.example.com", PROJECT_ID=PROJECT, **PAIR)

    assert known_region() is None
    assert "region takes one of" in str(refused(IefSession.from_env))
    chosen = IefSession.from_env(region="cn-east-3")
    assert "https://v.example.com" == chosen._transport.endpoint


def test_without_a_project_and_a_region_from_env_says_what_to_give(variables):
    """Nothing to look a project up by is said at once."""
    variables(**PAIR)

    assert "project_id was not given" in str(refused(IefSession.from_env))


# ---- fail-over -----------------------------------------------------------------------------------


async def test_host_without_an_address_is_left_for_the_next(fake, variables, caplog):
    """Eight requests that start together go on with the second host; one warning is logged."""
    variables(REGION_IEF_CN_NORTH_4=f"{NOWHERE},{fake.endpoint}")
    async with IefSession(PROJECT, credentials=Token(fake.token), region="cn-north-4") as ief:
        assert NOWHERE == ief._transport.endpoint
        pages = await ask(ief, fake, 8)
        assert fake.endpoint == ief._transport.endpoint
        before = ief.statistics()
        again = await ask(ief, fake)
        after = ief.statistics()

    assert [10] * 9 == [page.count for page in pages + again]
    assert 9 == len(fake.requests)
    assert 1 == after.requests - before.requests  # the first host is not asked again
    assert 0 == after.retries
    warnings = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert [f"{NOWHERE} can't be reached; going on with {fake.endpoint}"] == [
        line.getMessage() for line in warnings
    ]


async def test_host_whose_certificate_fails_is_left(fake, variables):
    """A name that answers with a certificate nobody trusts is left for the next one, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).parent / "samples/other_invalid.pem")
    impostor = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    endpoint = "https://127.0.0.1:{1}".format(*impostor.sockets[0].getsockname())
    variables(REGION_IEF_CN_NORTH_4=f"{endpoint},{fake.endpoint}")
    token = {"credentials": Token(fake.token), "region": "cn-north-4"}
    async with impostor, IefSession(PROJECT, **token) as ief:
        (page,) = await ask(ief, fake)

    assert (10, 1) == (page.count, page.attempts)
    assert fake.endpoint == ief._transport.endpoint


async def test_derived_session_stays_with_the_second_host(fake, variables, caplog):
    """Sessions that share connections share what they learned of the hosts."""
    variables(REGION_IEF_CN_NORTH_4=f"{NOWHERE},{fake.endpoint}")
    async with IefSession(PROJECT, credentials=Token(fake.token), region="cn-north-4") as ief:
        await ask(ief, fake)
        other = ief.with_options(instance_id="i")

        assert fake.endpoint == other._transport.endpoint
    assert 1 == caplog.text.count("can't be reached")


async def test_signature_is_made_for_the_host_that_is_asked(around, variables):
    """A signed request that goes on with the second host is signed anew: its host is signed."""
    variables(
        REGION_IEF_CN_NORTH_4=f"{NOWHERE},{NOWHERE}:8443,{around.endpoint}",
        PROJECT_ID=PROJECT,
        **PAIR,
    )
    async with IefSession.from_env() as ief:
        (page,) = await ask(ief, around)

    assert 10 == page.count
    assert not around.wrong_signatures


async def test_only_host_without_an_address_is_an_error(fake, variables, caplog):
    """A2: without another host to go on with, it is a TransportError that names the host."""
    variables(REGION_IEF_CN_NORTH_4=NOWHERE)
    once = {"region": "cn-north-4", "retry": RetryPolicy(attempts=1)}
    async with IefSession(PROJECT, credentials=Token(fake.token), **once) as ief:
        (error,) = await ask(ief, fake)

    assert TransportError is type(error)
    assert "nosuchhost.invalid:443" in str(error)
    assert "going on with" not in caplog.text


async def test_last_host_without_an_address_is_an_error(fake, variables):
    """A2: when no host has an address the last one's error is raised."""
    variables(REGION_IEF_CN_NORTH_4=f"{NOWHERE},{NOWHERE}:8443")
    once = {"region": "cn-north-4", "retry": RetryPolicy(attempts=1)}
    async with IefSession(PROJECT, credentials=Token(fake.token), **once) as ief:
        (error,) = await ask(ief, fake)

    assert TransportError is type(error)
    assert "nosuchhost.invalid:8443" in str(error)


async def test_host_that_answers_is_not_left(fake, variables):
    """A server that fails is no reason to ask another host: only names and certificates are."""
    async with FakeIef(4) as second:
        variables(REGION_IEF_CN_NORTH_4=f"{fake.endpoint},{second.endpoint}")
        fake.script(Fault.status(500), Fault.status(503))
        patient = {"region": "cn-north-4", "retry": RetryPolicy(base=0)}
        async with IefSession(PROJECT, credentials=Token(fake.token), **patient) as ief:
            (page,) = await ask(ief, fake)

    assert (10, 3, 0) == (page.count, len(fake.requests), len(second.requests))


async def test_host_that_refuses_connections_is_not_left(fake, variables, silence):
    """A host that has an address is down, not gone: it is asked again, and no other."""
    variables(REGION_IEF_CN_NORTH_4=f"{silence},{fake.endpoint}")
    once = {"region": "cn-north-4", "retry": RetryPolicy(attempts=1)}
    async with IefSession(PROJECT, credentials=Token(fake.token), **once) as ief:
        (error,) = await ask(ief, fake)

    assert TransportError is type(error)
    assert not fake.requests


# ---- IAM -----------------------------------------------------------------------------------------


def test_regions_with_an_iam_of_their_own_are_the_official_sdks():
    """There are 27 of them; each gives its host."""
    assert 27 == len(IAM)
    assert set(IAM) == IAM_REGIONS
    for region in IAM:
        assert f"https://iam.{region}.myhuaweicloud.com" == iam_endpoint_of(region, None)


@pytest.mark.parametrize("region", [None, "xx-own-1", "cn-north-3", ""])
def test_other_regions_have_the_global_iam(region):
    """A region without an IAM host of its own, and no region, is known to the global one."""
    assert "https://iam.myhuaweicloud.com" == iam_endpoint_of(region, None)


def test_iam_is_where_the_argument_says_then_the_variable(variables):
    """The argument wins over the variable, and that over the region; an empty one is not set."""
    variables(IAM_ENDPOINT="https://v.example.com/")
    assert "https://a.example.com" == iam_endpoint_of("cn-north-4", "https://a.example.com")
    assert "https://v.example.com" == iam_endpoint_of("cn-north-4", None)

    variables(IAM_ENDPOINT="")
    assert "https://iam.cn-north-4.myhuaweicloud.com" == iam_endpoint_of("cn-north-4", None)


@pytest.mark.parametrize("endpoint", ["http://iam.example.com", "iam.example.com", " ", "https://"])
def test_iam_endpoint_that_is_none_is_named(variables, endpoint):
    """Keys go nowhere over plain http: who said so is named, the argument or the variable."""
    assert str(refused(iam_endpoint_of, None, endpoint)).startswith("iam_endpoint takes https://")

    variables(IAM_ENDPOINT=endpoint)
    text = str(refused(iam_endpoint_of, None, None))
    assert text.startswith("HUAWEICLOUD_SDK_IAM_ENDPOINT takes https://")


def test_iam_endpoint_of_a_profile_wins_over_the_variable(home, variables):
    """As in the official SDK: it belongs to the key beside it; an argument wins over both."""
    profile(home / "credentials", ak=AK, sk=SK, iam_endpoint="https://p.example.com")
    variables(IAM_ENDPOINT="https://v.example.com")
    given = {"region": "cn-north-4", "project_id": PROJECT}

    assert "https://p.example.com" == IefSession.from_env(**given)._transport.iam_endpoint
    given["iam_endpoint"] = "https://a.example.com"
    assert "https://a.example.com" == IefSession.from_env(**given)._transport.iam_endpoint


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

    assert f"no credentials were found in {home / 'credentials'} (section [mine]): {words}" == str(
        error
    )
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

    assert f"no credentials were found in {home / 'credentials'} (section [mine])" in text
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
    """E14: the parser's own error quotes the line; neither text nor frame nor log of ours does."""
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

    assert str(refused(find_credentials, "basic")).endswith("no such section (there are: none)")


@pytest.mark.parametrize("bad", [f"{SK}\n", f"{SK} ", f"{SK}é", f" {SK}"])
@pytest.mark.parametrize("name", ["AK", "SK", "SECURITY_TOKEN"])
def test_variable_that_no_header_can_carry_is_refused_unshown(variables, name, bad):
    """E9: a secret with a stray newline is refused; neither text nor frame shows it."""
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
    """E14: one INFO line says where the credentials were found, and nothing of what they are."""
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
    """E16: what a place gives prints stars, and so does the session made of it."""
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
    async with transport.keyring.turn(None, None):
        assert AccessKey(AK, SK) == transport.keyring.key()
    east = IefSession.from_env(region="cn-east-3")._transport
    assert ("p", "https://ief.cn-east-3.myhuaweicloud.com") == (east.project.id, east.endpoint)


def test_given_credentials_are_all_that_counts(home, variables, caplog):
    """With credentials= neither variables nor file are looked at: a damaged one does not show."""
    caplog.set_level(logging.INFO)
    (home / "credentials").write_bytes(SPOILT["no-section"])
    variables(SECURITY_TOKEN="no header", **PAIR)
    ief = IefSession.from_env(credentials=Token("t"), project_id=PROJECT, region="cn-north-4")

    assert Token("t") == ief._transport.keyring.key()
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
    assert ": set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK. " in text
    assert sorted(map(text.index, places)) == [text.index(place) for place in places]
    assert not around.requests


async def test_nothing_found_says_what_is_wrong_with_each_place(around, home, variables):
    """E14: half a pair, an identity provider and a missing section are named, nothing is shown."""
    (home / "credentials").write_text("[other]\n")
    variables(AK=AK, IDP_ID="canary-idp", PROJECT_ID=PROJECT)
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    assert "no sk (an identity provider is set, which is not supported); " in str(error)
    assert "(section [basic]): no such section (there are: other); " in str(error)
    assert "canary" not in shown_by(error).lower()


async def test_server_without_an_agency_is_one_of_the_places(around, monkeypatch):
    """A metadata service that gives no keys is listed with its answer."""
    monkeypatch.setattr("ief_async._auth.sources.METADATA", around.metadata_endpoint)
    around.metadata = "none"
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    assert f"{around.endpoint}: GET /openstack/latest/securitykey was answered 404" in str(error)
    assert ": set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK. Looked at " in str(error)
    assert str(error).endswith("server, and that it has an agency.")


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
    """E14: with variables only, every pod is read, signed by their key; the log shows no secret."""
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
    """E15: a server that echoes what was signed does not bring the key into the error."""
    variables(AK=AK, SK=f"{SK}-wrong", SECURITY_TOKEN="canary-token", PROJECT_ID=PROJECT)
    async with IefSession.from_env() as ief:
        (error,) = await ask(ief, around)

    assert AuthenticationError is type(error)
    assert "canonicalRequest" in str(error)
    assert "canary" not in shown_by(error).lower()
