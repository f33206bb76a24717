"""Where a region answers: the documented hosts, and what variables and files say instead."""

import json
import logging
import socket
import sys
from pathlib import Path

import pytest

from ief_async import (
    ConfigurationError,
    IefSession,
    Token,
)
from ief_async._auth.environment import find_credentials
from ief_async._regions import IAM_REGIONS, REGIONS, endpoints_of, iam_endpoint_of, known_region

PROJECT = "bcd83056c918480f8f190844bd425b23"


AK = "CANARYACCESSKEY00001"


SK = "canary-secret-key-that-opens-nothing-001"


PAIR = {"AK": AK, "SK": SK}


VARIABLE = "HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4"


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

    assert text.startswith("region must be one of ")
    assert not [known for known in HOSTS if known not in text]
    assert f"got {region!r}" in text
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

    assert str(refused(endpoints_of, "cn-north-4")).startswith(f"{VARIABLE} must be https://host")
    assert "https://ief.cn-north-1.myhuaweicloud.com" == endpoints_of("cn-north-1")[0]


@pytest.mark.parametrize("host", ["user:canary-password@a.example.com", "a.example.com?k=canary"])
def test_secret_in_an_endpoint_is_not_shown(variables, host):
    """A password or a query in a variable's endpoint is refused unshown."""
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
    assert text.startswith(f"{home / 'regions.yaml'} must be https://host")


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
    assert "region must be one of" in str(refused(IefSession.from_env))
    chosen = IefSession.from_env(region="cn-east-3")
    assert "https://v.example.com" == chosen._transport.endpoint


def test_without_a_project_and_a_region_from_env_says_what_to_give(variables):
    """Nothing to look a project up by is said at once."""
    variables(**PAIR)

    assert "project_id is missing" in str(refused(IefSession.from_env))


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
    assert str(refused(iam_endpoint_of, None, endpoint)).startswith("iam_endpoint must be https://")

    variables(IAM_ENDPOINT=endpoint)
    text = str(refused(iam_endpoint_of, None, None))
    assert text.startswith("HUAWEICLOUD_SDK_IAM_ENDPOINT must be https://")


def test_iam_endpoint_of_a_profile_wins_over_the_variable(home, variables):
    """As in the official SDK: it belongs to the key beside it; an argument wins over both."""
    profile(home / "credentials", ak=AK, sk=SK, iam_endpoint="https://p.example.com")
    variables(IAM_ENDPOINT="https://v.example.com")
    given = {"region": "cn-north-4", "project_id": PROJECT}

    assert "https://p.example.com" == IefSession.from_env(**given)._transport.iam_endpoint
    given["iam_endpoint"] = "https://a.example.com"
    assert "https://a.example.com" == IefSession.from_env(**given)._transport.iam_endpoint
